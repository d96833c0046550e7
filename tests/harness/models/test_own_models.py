"""Models of ours: a file of the folder is enough for timm to know one, and it decides
the points of its own models alone.
"""

import shutil
import sys
from functools import cache
from pathlib import Path

import pytest
import timm
import torch

import harness
import leaderboard
import methods
from harness import models
from harness.models import build
from harness.run import fingerprint
from harness.run.code.source import Sources
from harness.run.points import Point
from leaderboard.records.params import ModelParams
from leaderboard.records.schema import Images, TrackInfo, Trained

LINEAR = '''
"""One layer."""

from timm.models import register_model
from torch import nn


@register_model
def one_layer(pretrained=False, in_chans=3, num_classes=10, **kwargs):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_chans * 16, num_classes))
'''
OF_OURS = {
    "resnet20_cifar": "harness.models.cifar_resnet",
    "resnet_small": "harness.models.small",
    "mobilenetv2_cifar": "harness.models.small",
    "vit_tiny_patch16_224": None,
    "resnet18.a1_in1k": None,
    "no_model_at_all": None,
}


@pytest.mark.parametrize(("name", "module"), OF_OURS.items())
def test_the_home_of_a_model_is_its_file_here_or_none(name, module):
    assert models.home(name) == module


def test_a_file_in_the_folder_is_a_model(tmp_path, monkeypatch):
    (tmp_path / "one_layer.py").write_text(LINEAR)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "harness.models.one_layer", raising=False)
    model = build.build(ModelParams(timm="one_layer"), 1, 7)
    assert model(torch.zeros(2, 1, 4, 4)).shape == (2, 7)
    assert models.home("one_layer") == "harness.models.one_layer" and timm.is_model("one_layer")


def test_what_makes_models_does_not_rest_on_any_of_them():
    closure = fingerprint.sources().closure("harness.point.worker")
    assert "harness.models.build" in closure and not closure.keys() & {
        "harness.models.small",
        "harness.models.cifar_resnet",
    }


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the harness whose sources decide in place of the real ones; returns its
    folder of models.
    """
    shutil.copytree(
        harness.__path__[0], tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__")
    )

    @cache
    def of_copy(package="methods"):
        places = {ours.__name__: [Path(ours.__path__[0])] for ours in (methods, leaderboard)}
        return Sources(places | {"harness": [tmp_path / "harness"]}, fingerprint.SILENT)

    monkeypatch.setattr(fingerprint, "sources", of_copy)
    return tmp_path / "harness" / "models"


def found(params):
    """Return the fingerprints of the dense model and of a point, by track and model."""
    fingerprint.sources.cache_clear()
    fingerprints = {}
    for track, model in [
        ("digits", "resnet"),
        ("digits", "vit"),
        ("cifar10_cpu", "resnet20"),
        ("cifar10_cpu", "resnet56"),
        ("cifar10_full", "mobilenet"),
    ]:
        trained = Trained(
            timm="x",
            dense="own recipe",
            scratch_epochs=1,
            fine_tune_epochs=1,
            parameters=1,
            test_accuracy=1,
            weights_sha256="w",
        )
        images = Images(train=1, validation=1, test=1, calibration=1)
        stamp = {
            "version": "v1",
            "track": track,
            "dataset": "x",
            "title": "x",
            "sources": {},
            "device": "cpu",
            "seeds": (0,),
            "test_labels": (),
        }
        record = TrackInfo(**stamp, content_hash="c", images=images, models={model: trained})
        point = Point(track, "dense", model, {}, 0)
        dense = fingerprint.dense_fingerprint(params, track, model, "c", "")
        fingerprints[track, model] = (dense, fingerprint.point_fingerprint(params, point, record))
    return fingerprints


CHANGES = [
    (
        "cifar_resnet.py",
        "padding=1, bias=False",
        "padding=1, bias=True",
        {("cifar10_cpu", "resnet20"), ("cifar10_cpu", "resnet56")},
    ),
    ("small.py", '"fc"', '"head.fc"', {("digits", "resnet"), ("cifar10_full", "mobilenet")}),
    ("small.py", "ResNet of basic blocks", "A ResNet of basic blocks", set()),
]


@pytest.mark.parametrize(("file", "before", "after", "stale"), CHANGES)
def test_a_change_of_a_models_file_makes_stale_what_is_made_of_its_models_and_no_more(
    params, copied, file, before, after, stale
):
    first = found(params)
    text = (copied / file).read_text()
    assert before in text
    (copied / file).write_text(text.replace(before, after, 1))
    second = found(params)
    assert {name for name in first if first[name] != second[name]} == stale
    assert all(
        one != other for name in stale for one, other in zip(first[name], second[name], strict=True)
    )
