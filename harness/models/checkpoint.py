"""Files of weights as people save them: tensors bare or under a key, with prefixes of
wrappers or under their author's names, all of which must fit a model.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import re
import sys
import warnings
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from leaderboard.records.errors import UserError, one_line
from leaderboard.records.params import ModelParams

PICKLES = (".pth", ".pt", ".bin", ".th", ".tar")
# where the tensors lie, the first that there is: averaged ones before others, as in
# timm.models.load_state_dict, which knows the first four
KEYS = (
    *("state_dict_ema", "model_ema", "state_dict", "model"),
    *("model_state_dict", "net", "network", "params", "weights", "module"),
)
# of data parallelism, of whoever holds a model as self.model, of torch.compile
PREFIXES = ("module.", "model.", "_orig_mod.")
# a count that no inference uses, and that torch makes up where old files lack it
COUNTED = ".num_batches_tracked"
# what torch's refusal of a pickle names
CODE = re.compile(r"GLOBAL (\S+)|(TorchScript)")
TAR = "legacy .tar format"  # of torch 0.1, which it takes zeros for too

State = dict[str, Tensor]


def load(file: Path, model: nn.Module, params: ModelParams, classes: int) -> list[str]:
    """Put the weights of a file into the model, which `params` made for so many
    classes, and return what had to be done to them.

    Raises UserError if the file is damaged, may run code or holds no weights, or if a
    tensor is missing, is one too many or has another shape.
    """
    state, keys = _tensors(file)
    wanted = model.state_dict()
    state, prefixes = _stripped(state, wanted)
    converted = _converted(state, model, params.timm)
    by_timm = _misfit(converted, wanted).count < _misfit(state, wanted).count
    state = converted if by_timm else state
    misfit = _misfit(state, wanted)
    if misfit.count:
        raise _refused(file, misfit, params, classes)
    model.load_state_dict(state)
    notes = [".".join(keys)] if keys else []
    notes += [f"{', '.join(repr(prefix) for prefix in prefixes)} stripped"] if prefixes else []
    return notes + (["converted by timm"] if by_timm else [])


def _tensors(file: Path) -> tuple[State, list[str]]:
    """Return the tensors of a file by name, and the keys under which they lay."""
    content, keys = _read(file), list[str]()
    while isinstance(content, Mapping) and not _is_state(content) and len(keys) < 3:
        key = next((key for key in KEYS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        content = content[key]
        keys.append(key)
    if not _is_state(content):
        names = [str(key) for key in content] if isinstance(content, Mapping) else []
        found = type(content).__name__ + (f" with {_few(names)}" if names else "")
        raise UserError(
            f"weights {file} hold no state_dict, found {found}: save one, bare or under one of "
            f"{', '.join(KEYS)}"
        )
    return dict(content), keys


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) for name in content)
        and all(isinstance(tensor, Tensor) for tensor in content.values())
    )


def _read(file: Path) -> Any:
    """Return what a file holds; no code of a pickle is run."""
    kind = file.suffix.lower()
    if kind not in (".safetensors", *PICKLES):
        raise UserError(
            f"weights {file} cannot be read by their ending '{kind}': save them as .safetensors "
            f"or, by torch.save, as {', '.join(PICKLES)}"
        )
    try:
        if kind == ".safetensors":
            return safetensors.torch.load_file(file)
        # a plain record of arguments, which timm's training puts into its checkpoints
        with (
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals([Namespace]),
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are neither make the readers raise anything
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> UserError:
    text = one_line(str(error))
    convert = (
        "where you trust the author, load it by torch.load(..., weights_only=False) and save its "
        "state_dict by safetensors.torch.save_file"
    )
    code = CODE.search(text)
    if code:
        what = (code[1] or code[2])[:80]
        return UserError(
            f"weights {file} hold more than tensors ({what}), and to read that may run code: "
            f"{convert}"
        )
    if isinstance(error, UnpicklingError) or TAR in text:
        return UserError(
            f"weights {file} are damaged, or a pickle of something else, which may run code: get "
            f"the file again or, {convert}"
        )
    reason = f"{type(error).__name__}: {text or 'it ends at once'}".split(". ")[0][:160]
    return UserError(f"weights {file} are damaged ({reason}): get the file again")


def _stripped(state: State, wanted: State) -> tuple[State, list[str]]:
    """Return the tensors without the prefixes of wrappers, and these; a name of the
    model's own stays, and all do where two would become one.
    """
    found, prefixes = State(), list[str]()
    for name, tensor in state.items():
        bare = name
        while bare not in wanted and bare.startswith(PREFIXES):
            prefix = next(prefix for prefix in PREFIXES if bare.startswith(prefix))
            bare = bare.removeprefix(prefix)
            prefixes.append(prefix)
        found[bare] = tensor
    return (found, list(dict.fromkeys(prefixes))) if len(found) == len(state) else (state, [])


def _converted(state: State, model: nn.Module, name: str) -> State:
    """Return the tensors under timm's names where the model's file of timm knows those
    of their author; a tensor that it would resize stays as it is.
    """
    home = sys.modules[timm.model_entrypoint(name).__module__]
    convert = getattr(home, "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        found = convert(dict(state), model)
    except Exception:  # it is made for files of these authors alone
        return state
    return {
        key: state[key] if key in state and state[key].numel() != tensor.numel() else tensor
        for key, tensor in found.items()
    }


@dataclass(frozen=True)
class _Misfit:
    """Names of tensors that a file lacks, that the model lacks, and those of another
    shape with both shapes, the file's first.
    """

    missing: list[str]
    unexpected: list[str]
    reshaped: dict[str, tuple[torch.Size, torch.Size]]

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)


def _misfit(state: State, wanted: State) -> _Misfit:
    shapes = {
        name: (state[name].shape, tensor.shape) for name, tensor in wanted.items() if name in state
    }
    return _Misfit(
        [name for name in wanted if name not in state and not name.endswith(COUNTED)],
        [name for name in state if name not in wanted],
        {name: (found, right) for name, (found, right) in shapes.items() if found != right},
    )


def _refused(file: Path, misfit: _Misfit, params: ModelParams, classes: int) -> UserError:
    theirs = _classes(misfit, classes)
    if theirs is not None:
        return UserError(
            f"weights {file} are for {theirs} classes ({next(iter(misfit.reshaped))}), the data "
            f"have {classes}: name weights for {classes} classes, or none, by `weights`"
        )
    shapes = [
        f"{name[:60]} {tuple(found)} for {tuple(right)}"
        for name, (found, right) in misfit.reshaped.items()
    ]
    parts = {"missing": misfit.missing, "unexpected": misfit.unexpected, "of another shape": shapes}
    said = ", ".join(
        f"{len(names)} {what} ({_few(names)})" for what, names in parts.items() if names
    )
    return UserError(
        f"weights {file} do not fit '{params.timm}' with {str(params.args)[:80]}: {said}: name "
        "weights of this architecture, or correct `timm` and `args`"
    )


def _classes(misfit: _Misfit, classes: int) -> int | None:
    """Return for how many classes a file is if that is all that does not fit."""
    of_head = [
        found[0]
        for found, right in misfit.reshaped.values()
        if right[:1] == (classes,) and len(found) == len(right) and found[1:] == right[1:]
    ]
    return of_head[0] if len(of_head) == misfit.count and len(set(of_head)) == 1 else None


def _few(names: list[str]) -> str:
    return ", ".join(one_line(name)[:100] for name in names[:3]) + ("…" if len(names) > 3 else "")
