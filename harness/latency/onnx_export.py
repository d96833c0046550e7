"""An artefact as an ONNX model, whose integers ONNX Runtime and OpenVINO run with
integer kernels.

torch.onnx translates the program; then what rounds to a fixed grid of 256 points
(`methods.parts.quantization.activations.Static`) becomes QuantizeLinear and
DequantizeLinear, and a layer that reads such a tensor gets its weight as int8 with one
scale per output channel and its bias as int32, as the weights file has them. Everything
else stays float32: no kernel of these runtimes works on weights alone in few bits, so
they are written as the numbers they stand for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass
from onnxscript import opset20, optimizer
from onnxscript.rewriter import MatchResult, pattern, rewrite
from safetensors import safe_open
from torch import Tensor

from harness.point import store
from harness.point.weights_file import FORMAT, Coded, Forms, unpack
from leaderboard.records.errors import one_line

# operators with an integer kernel, and the axis of output channels in their weight
AXES = {"Conv": 0, "Gemm": 0, "MatMul": 1}


OPSET: Any = opset20  # its stubs know no dynamic axes


class NotExported(Exception):
    """The program has no ONNX model: the message says why in one line."""


@dataclass(frozen=True)
class Int8:
    """A weight (rows, columns) as integers and one scale per row: weight = scale *
    integers.
    """

    integers: NDArray[np.int8]
    scale: NDArray[np.float32]

    @property
    def weight(self) -> NDArray[np.float32]:
        """Return the weight as the artefact has it, float32."""
        return self.scale[:, None] * self.integers.astype(np.float32)


def int8_weights(weights: Path) -> list[Int8]:
    """Return the weights of a weights file that are stored in 8 bits on one symmetric
    grid per row.
    """
    found = []
    with safe_open(weights, "pt") as file:
        forms = Forms.validate_json((file.metadata() or {})[FORMAT])
        for name, form in forms.items():
            if isinstance(form, Coded) and form.bits == 8 and form.group >= form.columns:
                zero = file.get_tensor(f"{name}|zero").numpy().astype(np.int16)
                codes = (
                    unpack(file.get_tensor(f"{name}|codes"), 8, form.rows * form.columns)
                    .numpy()
                    .reshape(form.rows, form.columns)
                )
                integers = codes - zero
                scale = file.get_tensor(f"{name}|scale").float().numpy().ravel()
                if np.abs(integers).max(initial=0) <= 127:
                    # of rows of zeros, which any scale gives; a bias needs one that is
                    # not 0
                    scale[scale == 0] = scale.max() or 1.0
                    found.append(Int8(integers.astype(np.int8), scale))
    return found


def to_onnx(folder: Path, image: Tensor) -> bytes:
    """Return the ONNX model of the artefact in `folder` for any batch of images like
    `image` (1, C, H, W); raise NotExported if there is none.
    """
    artefact = store.read(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                artefact.program,
                (image.repeat(2, 1, 1, 1),),
                dynamo=True,
                verbose=False,
                optimize=False,
                custom_translation_table=TRANSLATIONS,
            )
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise NotExported(one_line(str(cause))[:200]) from error
    assert program is not None
    model = program.model
    # what `optimize` does beside would merge grids into convolutions
    optimizer.fold_constants(model)
    model = optimizer.optimize(rewrite(model, [FixedGrid.rule()]))
    integer_layers(model, int8_weights(folder / store.WEIGHTS))
    RemoveUnusedNodesPass()(model)  # the float32 weights that nothing reads any more
    # stack traces, which are half of a small file and name the paths of this machine
    ClearMetadataAndDocStringPass()(model)
    content: bytes = ir.to_proto(model).SerializeToString()
    return content


def sort_stable(
    self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> Any:
    """Translate aten.sort.stable, for which torch.onnx has nothing: TopK puts equal
    values in the order of their indices, too.
    """
    size = OPSET.Gather(OPSET.Shape(self), OPSET.Constant(value_ints=[dim]))
    return OPSET.TopK(self, size, axis=dim, largest=int(descending), sorted=1)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.sort.stable: sort_stable
}


class FixedGrid(pattern.RewriteRuleClassBase):
    """q = clamp(round(x / s) + z, 0, 255), (q - z) s, as a pair of operators that
    runtimes know.
    """

    def pattern(self, op: Any, x: Any, scale: Any, zero: Any, low: Any, top: Any) -> Any:
        """Return what torch.onnx makes of `Static`."""
        return op.Mul(
            op.Sub(op.Min(op.Max(op.Add(op.Round(op.Div(x, scale)), zero), low), top), zero), scale
        )

    def check(  # type: ignore[override]
        self, context: Any, scale: Any, zero: Any, low: Any, top: Any, **_: Any
    ) -> MatchResult:
        """Accept fixed grids of 256 points."""
        found = [constant(value) for value in (scale, zero, low, top)]
        fits = all(value is not None and value.size == 1 for value in found) and [
            float(value) for value in found[2:] if value is not None
        ] == [
            0,
            255,
        ]
        return MatchResult() if fits else MatchResult().fail("not a fixed grid of 256 points")

    def rewrite(self, op: Any, x: Any, scale: Any, zero: Any, **_: Any) -> Any:
        """Return the pair."""
        point = op.Constant(value=ir.tensor(value_of(zero).astype(np.uint8)))
        return op.DequantizeLinear(op.QuantizeLinear(x, scale, point), scale, point)


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """Return what is known of `value` before the model runs, if it is."""
    found = None if value is None else ir.convenience.get_const_tensor(value)
    return None if found is None else found.numpy()


def value_of(value: ir.Value | None) -> NDArray[Any]:
    """Return the constant `value`."""
    found = constant(value)
    assert found is not None
    return found


def integer_layers(model: ir.Model, weights: list[Int8]) -> None:
    """Give every layer of `model` that reads a quantised tensor its weight as int8, if
    it is one of `weights`, and its bias as int32.
    """
    known = {entry.weight.tobytes(): entry for entry in weights}
    for node in list(model.graph):
        axis, reads = (
            AXES.get(node.op_type),
            node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None,
        )
        if (
            axis is None
            or reads is None
            or reads.op_type != "DequantizeLinear"
            or constant(node.inputs[1]) is None
        ):
            continue
        if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0):
            continue  # torch.onnx writes Linear with transB
        weight = value_of(node.inputs[1])
        entry = known.get(np.ascontiguousarray(weight.T if axis else weight).tobytes())
        if entry is None:
            continue
        integers = entry.integers.T if axis else entry.integers.reshape(weight.shape)
        _replace(model.graph, node, 1, integers, entry.scale, axis)
        if len(node.inputs) > 2:
            step = value_of(reads.inputs[1]) * entry.scale
            bias = np.rint(value_of(node.inputs[2]) / step).clip(-(2**31), 2**31 - 1)
            _replace(model.graph, node, 2, bias.astype(np.int32), step, 0)


def _replace(
    graph: ir.Graph,
    node: ir.Node,
    index: int,
    integers: NDArray[Any],
    scale: NDArray[np.float32],
    axis: int,
) -> None:
    """Let input `index` of `node` be integers times scale."""
    name = f"{node.outputs[0].name}|{index}"
    tensors = {"integers": ir.tensor(np.ascontiguousarray(integers)), "scale": ir.tensor(scale)}
    parts = [
        ir.Value(
            name=f"{name}|{part}",
            const_value=tensor,
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
        )
        for part, tensor in tensors.items()
    ]
    for part in parts:
        graph.register_initializer(part)
    product = ir.node(
        "DequantizeLinear",
        parts,
        attributes={"axis": axis},
        outputs=[ir.Value(name=f"{name}|float")],
    )
    graph.insert_before(node, product)
    node.replace_input_with(index, product.outputs[0])
