"""`shrinkmark try`: somebody's own checkpoint on their own folder of photographs, from the command line to a model that runs."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from harness.trial.asked import Asked, added, experiment, methods_of
from leaderboard.records.errors import UserError
from leaderboard.records.params import load_params
from tests.conftest import ROOT

CLASSES = ("blue", "green", "red")
SIDE = 64


def command(*arguments, cwd):
    """Run a command in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cwd / "cache")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with 90 photographs of three classes, and the checkpoint of a small ResNet trained on some of them."""
    home, draw = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    pixels, labels = [], []
    for label, name in enumerate(CLASSES):
        (home / "photographs" / name).mkdir(parents=True)
        for number in range(30):
            image = draw.integers(0, 120, (SIDE, SIDE, 3), dtype=np.uint8)
            image[..., 2 - label] += 60
            Image.fromarray(image).save(home / "photographs" / name / f"{number}.png")
            pixels.append(image)
            labels.append(label)
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3)
    mean, std = (torch.tensor(model.default_cfg[name])[:, None, None] for name in ("mean", "std"))
    images = (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255 - mean) / std
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(12):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(images), torch.tensor(labels)).backward()
        optimiser.step()
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}},
        home / "mine.pt",
    )
    return home


def where(own):
    return ("--images", own / "photographs", "--weights", own / "mine.pt", "--into", own / "out")


def asked(own, *options):
    images = where(own)
    methods = (
        "--method",
        "rtn:bits=8",
        "--method",
        "wanda:sparsity=0.5,bn_passes=0",
        "--method",
        "tome",
    )
    return (
        "-m",
        "shrinkmark",
        "try",
        "resnet10t",
        *images,
        *methods,
        "--calibration",
        "8",
        *options,
    )


@pytest.mark.slow
def test_a_checkpoint_of_one_s_own_goes_from_a_folder_of_photographs_to_models_that_run(own):
    done = command(*asked(own), cwd=own)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any("rtn" in line and "bits=8" in line for line in lines)
    assert "smallest within 1 points:" in lines and "fastest within 1 points:" in lines
    out = own / "out"
    track = json.loads((out / "results" / "v3" / "photographs" / "track.json").read_text())
    assert (
        track["models"]["resnet10t"]["dense"] == "weights mine.pt (state_dict; 'module.' stripped)"
    )
    assert track["models"]["resnet10t"]["test_accuracy"] == 1 and track["images"]["test"] == 27
    assert any("stratified by class" in note for note in track["notes"])
    assert (out / "site" / "index.html").is_file()
    assert sorted(path.name for path in (out / "models").iterdir()) == [
        "dense", "rtn-bits=8", "wanda-sparsity=0.5-bn_passes=0",
    ]  # fmt: skip

    small = out / "models" / "rtn-bits=8"
    size = {path.name: path.stat().st_size for path in small.iterdir()}
    assert set(size) == {"about.json", "graph.zip", "load.py", "weights.safetensors"}
    assert size["graph.zip"] < 60_000
    (record,) = json.loads(
        (out / "results" / "v3" / "photographs" / "points" / "rtn.json").read_text()
    )["points"]
    assert size["weights.safetensors"] == record["bytes"]
    shown = command(small / "load.py", own / "photographs" / "red" / "3.png", cwd=own)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0].endswith(" red") and len(shown.stdout.splitlines()) == 3

    again = command(*asked(own), cwd=own)
    assert again.returncode == 0 and "0 run, 8 stood" in again.stdout
    later = ("--method", "gptq:bits=4", "--calibration", "8", "--max-drop", "5")
    more = command("-m", "shrinkmark", "try", "resnet10t", *where(own), *later, cwd=own)
    assert (
        more.returncode == 0
        and "1 run, 8 stood" in more.stdout
        and "smallest within 5 points" in more.stdout
    )
    other = command(*asked(own, "--calibration", "9"), cwd=own)
    assert other.returncode == 2 and other.stderr.count("\n") == 1
    assert "holds another trial" in other.stderr


@pytest.mark.slow
def test_a_dry_run_says_what_would_run_and_writes_nothing(own):
    done = command(*asked(own, "--into", own / "dry", "--dry-run"), cwd=own)
    assert done.returncode == 0, done.stderr
    assert "wanda: resnet10t_sparsity=0.5_bn_passes=0_seed=0" in done.stdout
    assert "8 points, 8 calibration and 27 test images: about 0 minutes" in done.stdout
    assert not (own / "dry").exists()


BAD = [
    (("--images", "nowhere"), "no folder of images"),
    (("--weights", "nowhere.pt"), "nowhere.pt"),
    (("--method", "rnt"), "did you mean 'rtn'"),
    (("--method", "rtn:bits"), "a setting is written field=value"),
    (("--method", "rtn:bits=40"), "impossible"),
    (("--method", "rtn bits 4"), "is not written as name or name:field=value"),
    (("--budget", "calibraton"), "did you mean 'calibration'"),
    (("--calibration", "5000"), "calibration asks for 5000 images but train has"),
    (("--classes", "gone.txt"), "no list of classes"),
    (("--device", "gpu"), "device: Input should be 'cpu' or 'cuda', found 'gpu'"),
    (("--params", "gone.yaml"), "gone.yaml not found"),
    (("--images", "photographs/red"), "accuracy needs labels"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"), BAD, ids=lambda case: " ".join(case) if isinstance(case, tuple) else ""
)
def test_bad_input_is_one_line_and_leaves_no_results(own, options, said, tmp_path):
    done = command(*asked(own, "--into", tmp_path / "out", *options), cwd=own)
    assert done.returncode == 2, done.stdout + done.stderr
    line = done.stderr.split("error: ")[-1]
    assert said in line and line.count("\n") == 1 and "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "results").exists()


@pytest.fixture(scope="module")
def defaults():
    return load_params(ROOT / "params.yaml")


def test_methods_are_those_named_those_of_the_budget_or_the_usual_few(defaults):
    assert methods_of(
        ["gptq:bits=3,percdamp=0.1", "gptq:bits=4", "rtn"], False, "calibration", defaults
    ) == {
        "gptq": [{"bits": 3, "percdamp": 0.1}, {"bits": 4}],
        "rtn": defaults.methods["rtn"].settings,
    }
    assert methods_of([], False, "calibration", defaults) == {
        name: plan.settings for name, plan in defaults.trial.items()
    }
    every = methods_of([], True, "calibration", defaults)
    assert {"gptq", "rtn", "afm"} <= set(every) and "taylor" not in every and "ecoflap" not in every
    assert {"taylor", "ecoflap"} <= set(methods_of([], False, "fine-tune", defaults))


def test_the_usual_few_are_methods_at_settings_that_there_are(defaults):
    for name, plan in defaults.trial.items():
        for setting in plan.settings:
            text = ",".join(f"{field}={value}" for field, value in setting.items())
            assert methods_of([f"{name}:{text}" if text else name], False, "calibration", defaults)[
                name
            ]


def test_a_trial_is_an_experiment_of_one_track_with_dense_first(defaults, tmp_path):
    what = Asked("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "timm", tmp_path / "My Photos", None, {"rtn": [{"bits": 4}]},
                 "calibration", 16, 0, "cpu", 3, False)  # fmt: skip
    made = experiment(what, defaults)
    assert list(made.tracks) == ["my_photos"] and list(made.methods) == ["dense", "rtn"]
    track = made.track("my_photos")
    assert (
        list(track.models) == ["vit_tiny_patch16_224_augreg_in21k_ft_in1k"]
        and track.fine_tune.epochs == 0
    )
    assert track.data == {"folder": str(tmp_path / "My Photos"), "skip_broken": False}
    assert made.run.workers == 3 and all(
        profile.batches == [1] for profile in made.hardware.values()
    )
    with pytest.raises(
        UserError,
        match="unknown timm model 'vit_tny_patch16_224': did you mean 'vit_tiny_patch16_224'",
    ):
        experiment(Asked(**{**vars(what), "model": "vit_tny_patch16_224"}), defaults)
    with pytest.raises(UserError, match="did you mean 'labels'"):
        methods_of([], False, "label", defaults)


def test_what_is_tried_later_is_added_to_what_was_tried(defaults, tmp_path):
    def tried(methods):
        what = ("resnet10t", "timm", tmp_path, None, methods, "calibration", 16, 0, "cpu", 1, False)
        return experiment(Asked(*what), defaults)

    first = tried({"rtn": [{"bits": 4}], "wanda": [{"sparsity": 0.5}]})
    both = added(tried({"gptq": [{"bits": 4}], "rtn": [{"bits": 8}, {"bits": 4}]}), first)
    assert {name: plan.settings for name, plan in both.methods.items()} == {
        "dense": [{}], "rtn": [{"bits": 4}, {"bits": 8}], "wanda": [{"sparsity": 0.5}], "gptq": [{"bits": 4}],
    }  # fmt: skip
    assert added(first, first) == first
