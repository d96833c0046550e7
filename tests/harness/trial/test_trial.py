"""`shrinkmark try`: somebody's own checkpoint on their own folder of photographs, from the command line to a model that runs."""

import json

import numpy as np
import pytest

from harness.cli.lock import alone
from harness.data.image_folder import ImageFolder
from harness.run.paths import Paths
from tests.harness.trial.conftest import command


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
    assert "photographs on cpu: latency stands" in again.stdout.splitlines()
    later = ("--method", "gptq:bits=4", "--calibration", "8", "--max-drop", "5")
    more = command("-m", "shrinkmark", "try", "resnet10t", *where(own), *later, cwd=own)
    assert (
        more.returncode == 0
        and "1 run, 8 stood" in more.stdout
        and "photographs on cpu: latency measured, 0 failed" in more.stdout
        and "smallest within 5 points" in more.stdout
    )
    other = command(*asked(own, "--calibration", "9"), cwd=own)
    assert other.returncode == 2 and other.stderr.count("\n") == 1
    assert "holds another trial" in other.stderr


@pytest.mark.slow
def test_one_method_at_one_setting_is_compressed_without_a_table_and_a_trial_goes_on_from_it(own):
    images = ("--images", own / "photographs", "--weights", own / "mine.pt", "--into", own / "one")
    rest = ("--calibration", "8", "--onnx")
    small = ("compress", "resnet10t", *images, "--method", "gptq", "--set", "bits=4", *rest)
    done = command("-m", "shrinkmark", *small, cwd=own)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("resnet10t_bits=4_seed=0: accuracy 100.00 % (dense 100.00 %)")
    folder = own / "one" / "models" / "gptq-bits=4"
    assert {path.name for path in folder.iterdir()} == {
        "about.json", "graph.zip", "load.py", "model.onnx", "weights.safetensors",
    }  # fmt: skip
    assert not (own / "one" / "site").exists()

    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(folder / "model.onnx")
    (taken,) = session.get_inputs()
    (logits,) = session.run(None, {taken.name: np.zeros((1, 3, 176, 176), np.float32)})
    assert logits.shape == (1, 3)

    other = ("compress", "resnet10t", *images, "--method", "rtn", "--set", "bits=8", *rest)
    done = command("-m", "shrinkmark", *other, cwd=own)
    assert done.returncode == 0 and "models" in done.stdout, done.stderr
    assert (own / "one" / "models" / "rtn-bits=8").is_dir() and folder.is_dir()
    spelt = ("compress", "resnet10t", *images, "--method", "rtn", "--set", "bits=8.0", *rest)
    done = command("-m", "shrinkmark", *spelt, "--json", cwd=own)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["point"]["id"] == "resnet10t_bits=8_seed=0"
    skipped = ("compress", "resnet10t", *images, "--method", "tome", "--set", "r=4", *rest)
    done = command("-m", "shrinkmark", *skipped, cwd=own)
    assert done.returncode == 1 and "tome skipped: not a vision transformer" in done.stderr


@pytest.mark.slow
def test_photographs_without_labels_are_compared_with_dense_and_it_says_so(own):
    (own / "flat").mkdir()
    for file in (own / "photographs").glob("*/*.png"):
        (own / "flat" / f"{file.parent.name}{file.name}").write_bytes(file.read_bytes())
    images = ImageFolder(str(own / "flat")).found()
    images.files.paths[images.test[3]].write_bytes(b"no image")
    (own / "three.txt").write_text("blue\ngreen\nred\n")
    asks = ("--images", own / "flat", "--weights", own / "mine.pt", "--calibration", "8")
    methods = ("--method", "rtn:bits=8", "--method", "rtn:bits=2", "--classes", own / "three.txt")
    into = ("--into", own / "without")
    broken = command("-m", "shrinkmark", "try", "resnet10t", *asks, *methods, *into, cwd=own)
    assert broken.returncode == 2 and ".png is no image or is cut off" in broken.stderr
    skip = (*methods, "--skip-broken", "--into", own / "without2")
    done = command("-m", "shrinkmark", "try", "resnet10t", *asks, *skip, cwd=own)
    assert done.returncode == 0, done.stderr
    home = own / "without2" / "results" / "v3" / "flat"
    track = json.loads((home / "track.json").read_text())
    count = track["images"]["test"]
    assert count == len(images.test) - 1 and track["images"]["calibration"] == 8
    note = "the images have no labels: accuracy is agreement with what dense answers"
    assert note in track["notes"] and note in (home / "tables" / "cpu.md").read_text()

    text = done.stdout.partition("smallest within")[0]
    assert f"Without labels: agreement with dense's answers on {count} images" in text
    found = {line.split()[1]: line.split() for line in text.splitlines() if line.startswith("rtn")}
    near, far = (found[setting] for setting in ("bits=8", "bits=2"))
    kl = [float(row[6]) for row in (near, far)]
    assert 0 <= kl[0] < 0.01 < kl[1], found
    flips = [float(row[5]) for row in (near, far)]
    assert flips[0] == 0 and flips[1] == pytest.approx(100 - float(far[2]), abs=0.11)


@pytest.mark.slow
def test_a_dry_run_says_what_would_run_and_writes_nothing(own):
    done = command(*asked(own, "--into", own / "dry", "--dry-run"), cwd=own)
    assert done.returncode == 0, done.stderr
    assert "wanda: resnet10t_sparsity=0.5_bn_passes=0_seed=0" in done.stdout
    assert "8 points, 8 calibration and 27 test images: about 0 minutes" in done.stdout
    assert not (own / "dry").exists()


@pytest.mark.slow
def test_images_may_be_what_timm_reads_by_a_name(own, tmp_path):
    asks = [
        part if part != own / "photographs" else "torch/image_folder:root=photographs"
        for part in asked(own, "--into", tmp_path / "out", "--dry-run")
    ]
    done = command(*asks, cwd=own)
    assert done.returncode == 0, done.stderr
    assert "8 points, 8 calibration and 27 test images" in done.stdout


BAD = [
    (("--images", "nowhere"), "no folder of images"),
    (("--weights", "nowhere.pt"), "nowhere.pt"),
    (("--weights", "hf-hub:nobody/nothing-at-all"), "cannot be had ("),
    (("--method", "rnt"), "did you mean 'rtn'"),
    (("--method", "rtn:bits"), "a setting is written field=value"),
    (("--method", "rtn:bits=40"), "impossible"),
    (("--method", "rtn bits 4"), "is not written as name or name:field=value"),
    (("--budget", "calibraton"), "did you mean 'calibration'"),
    (("--calibration", "5000"), "calibration asks for 5000 images but train has"),
    (("--classes", "gone.txt"), "no list of classes"),
    (("--device", "gpu"), "device: Input should be 'cpu' or 'cuda', found 'gpu'"),
    (("--params", "gone.yaml"), "gone.yaml not found"),
    (("--images", "photographs/red"), "list the model's classes with --classes"),
    (("--images", "photographs/red", "--method", "taylor"), "method 'taylor' needs labels"),
    (("--arg", "bn_eps"), "--arg is written name=value"),
    (("--arg", "no_such=1"), "timm cannot create 'resnet10t'"),
    (("--mean", "0.5,0.5,0.5"), "--mean and --std go together"),
    (("--mean", "a,b,c", "--std", "1,1,1"), "--mean is written as numbers"),
    (("--mean", "0.5", "--std", "1"), "normalise names 1 means"),
    (("--import", "gone.py"), "there is no such file"),
    (("--weights", "recipe"), "would be a network of random weights"),
    (("--into", "photographs/out"), "lies in the folder of images"),
    (("--images", "hfds/some/where"), "needs the package datasets: pip install datasets"),
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


OWN_MODELS = """
import timm
from timm.models import register_model

import my_parts


@register_model
def my_resnet(pretrained=False, **options):
    return timm.create_model("resnet10t", **{key: options[key] for key in ("num_classes",)})


def as_tuple(num_classes=3):
    return my_parts.Pair(num_classes)
"""
OWN_PARTS = """
from torch import nn


class Pair(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(3, classes)

    def forward(self, images):
        return self.layer(images.mean((2, 3))), images
"""


@pytest.fixture(scope="module")
def imported(own):
    """A file of models of one's own, and what it imports."""
    (own / "my_models.py").write_text(OWN_MODELS)
    (own / "my_parts.py").write_text(OWN_PARTS)
    return own / "my_models.py"


@pytest.mark.slow
def test_an_architecture_of_one_s_own_is_imported_and_what_it_imports_decides_its_points(
    own, imported
):
    more = ("--import", imported, "--img-size", "64", "--into", own / "imported")
    asks = [part if part != "resnet10t" else "my_resnet" for part in asked(own, *more)]
    done = command(*asks, cwd=own)
    assert done.returncode == 0, done.stderr
    assert "my_resnet" in done.stdout and "8 run, 0 stood" in done.stdout
    again = command(*asks, cwd=own)
    assert again.returncode == 0 and " 0 run, " in again.stdout
    (own / "my_parts.py").write_text(OWN_PARTS + "# another\n")
    changed = command(*asks, cwd=own)
    assert changed.returncode == 0 and ", 0 stood" in changed.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("my_models:as_tuple", (), "the model is no classifier"),
        ("resnet10t", ("--arg", "features_only=true"), "the model is no classifier"),
        ("my_resnt", ("--import", "my_models.py"), "did you mean 'my_resnet'"),
        ("my_models:no_such", (), "the module has no such function"),
    ],
)
def test_a_model_that_is_no_classifier_or_is_not_there_is_one_line(
    own, imported, model, options, said, tmp_path
):
    more = ("--into", tmp_path / "out", "--weights", "mine.pt", *options)
    asks = [part if part != "resnet10t" else model for part in asked(own, *more)]
    done = command(*asks, cwd=own)
    assert done.returncode == 2, done.stdout + done.stderr
    line = done.stderr.split("error: ")[-1]
    assert said in line and line.count("\n") == 1 and "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_commands_in_one_folder_do_not_get_in_each_others_way(own, tmp_path):
    paths = Paths(tmp_path / "out", "v3")
    with alone(paths, "photographs"):
        done = command(*asked(own, "--into", paths.root), cwd=own)
    assert done.returncode == 2 and not paths.root.exists()
    assert "another command works on track 'photographs' in out: wait until" in done.stderr
