"""What a latency run sees beside time: whether the runtime computes the artefact, and
the memory of a call.
"""

import pytest
import torch

from harness.latency import memory, onnx_files, runtimes
from harness.latency.benchmark import AGREEMENT, Differs, agreement, warm
from harness.latency.memory import peak_mib
from harness.latency.plan import TimedPoint, program_of
from harness.point import predictions, store

CLASSES = 4


def runtime_of(predicted):
    """Return a program that predicts `predicted`, whose images hold their own index."""
    return lambda _images: (
        lambda images: torch.nn.functional.one_hot(
            torch.tensor(predicted)[images.flatten().long()], CLASSES
        ).float()
    )


@pytest.fixture
def folder(tmp_path):
    """A folder with the predictions of 540 images."""
    classes = torch.arange(540) % CLASSES
    predictions.write(
        tmp_path,
        predictions.predictions(torch.nn.functional.one_hot(classes, CLASSES).float(), classes),
    )
    return tmp_path


def images():
    return torch.arange(540.0).view(-1, 1, 1, 1)


def test_agreement_is_counted_on_whole_parts_of_the_test_images(folder):
    predicted = [index % CLASSES for index in range(540)]
    predicted[3] = 0
    assert agreement(runtime_of(predicted), images(), folder) == {"same": 499, "images": 500}


def test_a_runtime_that_predicts_something_else_is_refused_with_the_count(folder):
    predicted = [index % CLASSES for index in range(540)]
    wrong = int((1 - AGREEMENT) * 500) + 1
    predicted[:wrong] = [(index + 1) % CLASSES for index in range(wrong)]
    with pytest.raises(
        Differs, match=f"the artefact's class for {500 - wrong} of 500 test images only"
    ):
        agreement(runtime_of(predicted), images(), folder)


def test_the_peak_of_a_call_is_what_it_touches():
    def call():
        torch.ones(16 * 2**20)  # 64 MiB

    assert 60 < peak_mib(call, "cpu") < 80 and peak_mib(lambda: None, "cpu") < 1


def test_where_the_peak_cannot_be_reset_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "REFERENCES", tmp_path / "missing" / "clear_refs")
    assert peak_mib(lambda: None, "cpu") is None


def test_warming_ends_when_the_median_of_five_calls_stands_still():
    calls, now = [], [0.0]

    def run(_images):
        calls.append(1)
        # the first block is slow, the two after it alike
        now[0] += 10.0 if len(calls) <= 5 else 1.0

    warm(run, torch.zeros(1), lambda: now[0])
    assert len(calls) == 15


def test_a_model_is_exported_once_and_again_when_the_artefact_changes(small, tmp_path, monkeypatch):
    params, paths = small
    done = []

    def write(params, track, todo):
        for export in todo:
            export.file.write_text("model")
            done.append(export.folder.name)
        return {}

    monkeypatch.setattr(onnx_files, "_run", write)
    here = type(paths)(tmp_path, paths.version)
    folder = tmp_path / "point"
    folder.mkdir()
    for name in ("program.pt2", "weights.safetensors"):
        (folder / name).write_text(name)
    first = onnx_files.exported(params, here, "digits", {folder: "mobilenet"})
    assert (
        done == ["point"]
        and onnx_files.exported(params, here, "digits", {folder: "mobilenet"}) == first
        and done == ["point"]
    )
    (folder / "weights.safetensors").write_text("other")
    second = onnx_files.exported(params, here, "digits", {folder: "mobilenet"})
    assert done == ["point", "point"] and not first[folder].exists() and second[folder].exists()


class Layer(torch.nn.Module):
    """A layer; whatever its class is named and its lines say, only what it does makes
    its program.
    """

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, images):
        return self.layer(images.flatten(1))


class OtherWords(Layer):
    """The same, in other lines of another class that speak of
    torch.ops.higher_order.cond and of torch.ops.aten.round.default.
    """

    def forward(self, images):
        flat = images.flatten(1)  # torch.ops.higher_order.cond, torch.ops.aten.round.default
        return self.layer(flat)


class RoundsInABranch(Layer):
    def forward(self, images):
        return torch.cond(
            images.sum() > 0,
            lambda x: x.flatten(1).round(),
            lambda x: x.flatten(1) @ self.layer.weight,
            (images,),
        )


class Rounds(Layer):
    def forward(self, images):
        return super().forward(images.round())


def test_equal_programs_are_timed_once_whatever_their_source_and_what_depends_on_images_or_weights_each(
    tmp_path,
):
    found = {}
    for model in (Layer, OtherWords, Rounds, RoundsInABranch):
        folder = tmp_path / model.__name__
        folder.mkdir()
        store.write(folder, store.export(model().eval(), torch.ones(2, 1, 2, 2)), {})
        found[model] = TimedPoint("m", "p", "model", {}, 0, "f", folder, folder)
    torch_only, onnx = runtimes.named("eager"), runtimes.named("onnxruntime")
    assert (
        program_of(found[Layer], torch_only)
        == program_of(found[OtherWords], torch_only)
        != program_of(found[Rounds], torch_only)
    )
    assert program_of(found[Layer], onnx) == program_of(found[OtherWords], onnx)
    assert program_of(found[Rounds], onnx) == str(found[Rounds].folder)
    assert {program_of(found[RoundsInABranch], one) for one in (torch_only, onnx)} == {
        str(found[RoundsInABranch].folder)
    }
