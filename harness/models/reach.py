"""Whether weights that are fetched can be had here, before anything is made for their
model: timm's loader tries again for most of a minute where there is no network.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import timm
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from harness.models.weights import source_sha256
from leaderboard.records.errors import one_line
from leaderboard.records.params import HUB, TIMM, ModelParams

SECONDS = 10.0  # that the hub, or another host, may take to answer
AT_ONCE = 8  # questions
# said by a hub that was reached: the loader has a line for each
MISNAMED = (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError)


def out_of_reach(models: Mapping[str, ModelParams]) -> dict[str, str]:
    """Return the models whose weights are neither on this machine nor to be fetched,
    each with the reason; raise UserError if timm has no weights of one.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        reasons = dict(zip(models, pool.map(_reason, models.values()), strict=True))
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _reason(params: ModelParams) -> str | None:
    if not params.fetched or source_sha256(params):
        return None
    hub, url = _home(params)
    try:
        _ask(hub) if hub else urlopen(Request(url, method="HEAD"), timeout=SECONDS).close()
    except MISNAMED:
        return None
    except Exception as error:  # the network's or the host's, of whatever library
        return f"{hub or url}: {one_line(str(error))[:160]}"
    return None


def _home(params: ModelParams) -> tuple[str, str]:
    """Return the name on the hub, or else the address, that timm's loader fetches."""
    if params.weights != TIMM:
        return params.weights.removeprefix(HUB), ""
    cfg = timm.get_pretrained_cfg(params.timm)
    return (cfg.hf_hub_id or "", str(cfg.url or "")) if cfg is not None else ("", "")


def _ask(name: str) -> None:
    owner_and_name, _, revision = name.partition("@")
    HfApi().model_info(owner_and_name, revision=revision or None, timeout=SECONDS)
