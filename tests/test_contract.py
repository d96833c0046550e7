"""The contract test: every method found, on every model of the default track, at the
setting that must change nothing and at the strongest one.

Models have two of each kind of block, which are all alike, for most of the time goes
into tracing them.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import floor
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from harness.data import splits
from harness.point import store
from harness.point.huffman import huffman
from harness.point.method_data import MethodData
from harness.point.weights_file import FORMAT
from harness.run import registry
from methods import Method
from methods.parts.network.layers import prunable
from tests.conftest import model_of, seen_of

MODELS = ["resnet", "mobilenet", "vit", "mixer"]
CASES = [(method, model) for method in registry.names() for model in MODELS]
# methods that give layers different shares of the sparsity asked for
DIVIDING = {
    "Magnitude",
    "Powerpropagation",
    "RigL",
    "ECoFLaP",
    "EvoPressSparsity",
}


# their strongest settings ask for more than half the blocks can give
WHOLE = {
    "block_drop",
    "diffrate",
    "evopress_drop",
    "laptop",
    "layer_collapse",
    "layer_merge",
}


def compressed_by(
    method: Method, model: torch.nn.Module, seen: MethodData, seed: int = 0
) -> torch.nn.Module:
    """Compress a private copy as the worker does."""
    torch.manual_seed(seed)
    return method.compress(copy.deepcopy(model), seen).eval()


def applicable(method: Method, model: torch.nn.Module) -> None:
    """Skip the test, with the method's reason, where the method skips the model; a
    reason is one line.
    """
    reason = method.skip(copy.deepcopy(model))
    if reason is not None:
        assert reason and "\n" not in reason
        pytest.skip(reason)


@pytest.mark.parametrize(("name", "model_name"), CASES)
def test_the_identity_setting_equals_dense(
    name, model_name, make_brief_model, make_brief_data, track_data
):
    method, dense = (
        registry.configure(name, dict(registry.load(name).identity)),
        make_brief_model(model_name),
    )
    applicable(method, dense)
    images = track_data.validation.images[:32]
    with torch.no_grad():
        torch.testing.assert_close(
            compressed_by(method, dense, make_brief_data(model_name))(images),
            dense(images),
            rtol=1e-4,
            atol=1e-4,
        )


@pytest.mark.parametrize(("name", "model_name"), CASES)
def test_the_strongest_setting_keeps_the_contract(
    name, model_name, half, brief, data_folder, track_data, tmp_path
):
    track = half if name in WHOLE else brief
    method, dense = (
        registry.configure(name, dict(registry.load(name).strongest)),
        model_of(track, model_name),
    )
    applicable(method, dense)
    seen = partial(seen_of(track, data_folder), model_name)
    assert_contract_kept(method, dense, seen, track_data.validation.images[:32], tmp_path)


@dataclass(frozen=True)
class Times(Method):
    """Multiply every second row of a prunable layer's weights by 0.0, which leaves the
    sign of what was there.
    """

    family: ClassVar[str] = "pruning"
    paper: ClassVar[str] = "none"
    needs: ClassVar[str] = "data-free"
    realisation: ClassVar[str] = "masked"
    stochastic: ClassVar[bool] = False
    identity: ClassVar[dict[str, object]] = {}
    strongest: ClassVar[dict[str, object]] = {}

    def compress(self, model, data):
        for layer in prunable(model).values():
            layer.weight.data[::2] *= 0.0
        return model


class Assigned(Times):
    """Do the same by assignment."""

    def compress(self, model, data):
        for layer in prunable(model).values():
            layer.weight.data[::2] = 0.0
        return model


@pytest.mark.parametrize("model_name", MODELS)
def test_a_weight_pruned_by_multiplication_takes_no_more_bytes_than_one_set_to_zero(
    model_name, make_brief_model, make_brief_data, track_data, tmp_path
):
    dense, images, written = make_brief_model(model_name), track_data.validation.images[:32], []

    seen = partial(make_brief_data, model_name)
    for method in (Times(), Assigned()):
        folder = tmp_path / type(method).__name__
        folder.mkdir()
        assert_contract_kept(method, dense, seen, images, folder)
        written.append((folder / store.WEIGHTS).read_bytes())
    assert written[0] == written[1]
    left = torch.cat(
        [
            layer.weight.flatten()
            for layer in prunable(Times().compress(copy.deepcopy(dense), seen(0))).values()
        ]
    )
    assert torch.signbit(left[left == 0]).any(), "else this tests nothing"


def assert_contract_kept(
    method: Method,
    dense: torch.nn.Module,
    seen: Callable[[int], MethodData],
    images: torch.Tensor,
    folder: Path,
) -> None:
    """Check what every method owes at every setting; seen: what a method sees of the
    data, by seed.
    """
    before = splits.digest(dense.state_dict())
    compressed = compressed_by(method, dense, seen(0))
    with torch.no_grad():
        output = compressed(images)
    assert splits.digest(dense.state_dict()) == before, "dense was changed"
    assert output.shape == dense(images).shape and torch.isfinite(output).all()
    # what does not depend on the seed comes out again under another one, too
    seed = 0 if method.stochastic else 1
    again = compressed_by(method, dense, seen(seed), seed=seed)
    said = (
        "same seed, other result"
        if method.stochastic
        else "declares stochastic = False, but the seed matters, or it is not the same twice"
    )
    assert splits.digest(again.state_dict()) == splits.digest(compressed.state_dict()), said
    assert_budget_met(method, dense, compressed, seen(0))
    assert_artefact_equals(compressed, output, images, folder)


def assert_budget_met(
    method: Method, dense: torch.nn.Module, compressed: torch.nn.Module, seen: MethodData
) -> None:
    """Check the fields whose names the contract gives a meaning."""
    if hasattr(method, "macs"):
        assert seen.macs(compressed) <= method.macs * seen.macs(dense)
    if hasattr(method, "sparsity"):
        for layer in prunable(compressed).values():
            weight = layer.weight.flatten(1)
            zeros, rows, columns = int((weight == 0).sum()), *weight.shape
            if method.realisation == "masked" and type(method).__name__ not in DIVIDING:
                assert zeros >= rows * floor(method.sparsity * columns)
        weights = [layer.weight for layer in prunable(compressed).values()]
        least = sum(
            weight.shape[0] * floor(method.sparsity * weight[0].numel()) for weight in weights
        )
        assert sum(int((weight == 0).sum()) for weight in weights) >= least
    codes = store.codes_of(compressed)
    if hasattr(method, "bits"):
        assert all(codes[f"{name}.weight"].bits == method.bits for name in prunable(compressed))
    if hasattr(method, "average_bits"):
        stored = [codes.get(f"{name}.weight") for name in prunable(compressed)]
        bits = sum(
            code.bits * code.codes.numel() + 16 * code.scale.numel() + 8 * code.zero.numel()
            for code in stored
        )
        assert bits <= method.average_bits * sum(code.codes.numel() for code in stored)


def assert_artefact_equals(
    compressed: torch.nn.Module, output: torch.Tensor, images: torch.Tensor, folder
) -> None:
    """Check that what is written, read back and run equals the compressed model, and
    that the file is as long as counted.
    """
    codes = store.codes_of(compressed)
    program = store.export(copy.deepcopy(compressed), images[:2])
    store.write(folder, program, codes)
    artefact = store.read(folder)
    with torch.no_grad():
        torch.testing.assert_close(artefact.module(images), output, rtol=1e-3, atol=1e-3)
    content = (folder / store.WEIGHTS).read_bytes()
    header = int.from_bytes(content[:8], "little")
    forms = json.loads(json.loads(content[8 : 8 + header])["__metadata__"][FORMAT])
    assert (
        artefact.bytes
        == len(content)
        == 8
        + header
        + sum(
            counted(tensor, forms.get(name), codes.get(name)) for name, tensor in tensors(program)
        )
    )


def tensors(program: torch.export.ExportedProgram) -> list[tuple[str, torch.Tensor]]:
    """List what the program holds."""
    return [*program.state_dict.items(), *program.constants.items()]


def counted(tensor: torch.Tensor, form: dict | None, codes) -> int:
    """Return the bytes that a tensor must take, from first principles."""
    if form is None:
        return tensor.numel() * tensor.element_size()
    if form["form"] == "mask":
        return -(-tensor.numel() // 8) + int(torch.count_nonzero(tensor)) * tensor.element_size()
    if form["form"] == "codebook":
        coded = sum(part.nbytes for part in huffman(codes.index).values())
        index = coded if form["huffman"] else -(-len(codes.index) * form["bits"] // 8)
        return (
            index
            + 2 * codes.centroids.numel()
            + (0 if codes.projection is None else 2 * codes.projection.numel())
        )
    return -(-tensor.numel() * codes.bits // 8) + codes.scale.numel() * 2 + codes.zero.numel()
