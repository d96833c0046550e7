"""Whether weights can be had is asked once and quickly, before anything is made."""

import time
from types import SimpleNamespace

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from harness.data.folder import FOLDER_VARIABLE
from harness.models.reach import out_of_reach
from leaderboard.records.errors import UserError
from leaderboard.records.params import ModelParams

NOBODY = "http://127.0.0.1:9/tiny-12345678.pth"  # nothing listens there


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty data folder, and a hub that cannot be reached."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def lacking(weights, timm_name="resnet10t"):
    return out_of_reach({"x": ModelParams(timm=timm_name, weights=weights)})


def tagged(monkeypatch, url, hub=None):
    """Have timm's registry name an address for every model."""
    cfg = SimpleNamespace(url=url, hf_hub_id=hub)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: cfg)


@pytest.mark.parametrize("weights", ["timm", "hf-hub:somebody/tiny", "hf-hub:somebody/tiny@v1"])
def test_without_a_network_the_hub_is_out_of_reach_with_a_reason(weights):
    (reason,) = lacking(weights).values()
    assert "offline" in reason and "\n" not in reason


@pytest.mark.parametrize("weights", ["recipe", "nowhere.pth"])
def test_what_is_not_fetched_is_never_out_of_reach(weights):
    assert lacking(weights) == {}


def test_what_lies_here_needs_no_network(folder, monkeypatch):
    tagged(monkeypatch, NOBODY)
    (reason,) = lacking("timm").values()
    assert reason.startswith(NOBODY)
    (folder / "weights").mkdir()
    safetensors.torch.save_file(
        {"x": torch.zeros(1)}, folder / "weights" / NOBODY.rsplit("/", 1)[1]
    )
    assert lacking("timm") == {}


def test_a_hub_that_does_not_answer_is_asked_once_and_in_seconds(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    api = HfApi(endpoint="http://127.0.0.1:9")
    monkeypatch.setattr("harness.models.reach.HfApi", lambda: api)
    begun = time.monotonic()
    models = {str(n): ModelParams(timm="resnet10t", weights=f"hf-hub:a/b{n}") for n in range(5)}
    assert list(out_of_reach(models)) == list(models)
    assert time.monotonic() - begun < 20  # timm's loader takes 47 s for each


@pytest.mark.parametrize("answer", [None, RepositoryNotFoundError])
def test_a_hub_that_answers_is_within_reach_whatever_it_says_of_the_name(answer, monkeypatch):
    def model_info(*_, **__):
        if answer:
            raise answer("no such repository", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(HfApi, "model_info", model_info)
    assert lacking("hf-hub:somebody/tiny") == {}, "a wrong name is an error of the loader"


def test_a_model_that_timm_has_no_weights_of_is_one_line():
    with pytest.raises(UserError, match="timm has no weights of 'mixer_small'"):
        lacking("timm", "mixer_small")
