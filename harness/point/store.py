"""The artefact of a point: a torch.export program and the file of its weights, from
which it is evaluated.

`program.pt2` is complete and runs with torch alone; equal programs are equal files, for
it says nothing of the code that it was made of. `weights.safetensors` (see
`harness.point.weights_file`) holds the same tensors. Reading takes the graph from the
program and every tensor from the weights file, so that what is evaluated is what was
counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from harness.point.archive import TENSORS, refuse_pickles
from harness.point.program_text import NO_TRACE
from harness.point.weights_file import decode, encode, without_signed_zeros
from leaderboard.records.errors import BrokenContract, UserError, one_line
from methods import Codebook, Codes
from methods.parts.network.batchnorm import fold_batchnorms

PROGRAM, WEIGHTS = "program.pt2", "weights.safetensors"
GRAPH = "graph.zip"  # the program without tensors, in place of it where bytes count
# what torch writes of a node beside what it does
ORIGINS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")


@dataclass(frozen=True)
class Weights:
    """A weights file read back: its tensors, stored bits per coded parameter, and its
    length.
    """

    tensors: dict[str, Tensor]
    bits: dict[str, int]
    bytes: int


@dataclass(frozen=True)
class Artefact:
    """A point read back from disk: the module that runs, stored bits per coded
    parameter, and the length of the weights file.
    """

    module: nn.Module
    bits: dict[str, int]
    bytes: int
    parameters: int
    program: torch.export.ExportedProgram

    @property
    def branches(self) -> bool:
        """Say whether what the program computes depends on the image, as in early
        exits.
        """
        return any(node.target is torch.ops.higher_order.cond for node in self.program.graph.nodes)

    def on(self, device: torch.device) -> nn.Module:
        """Return the module on `device`; `module` itself stays on the CPU."""
        return (
            self.module
            if device.type == "cpu"
            else move_to_device_pass(self.program, str(device)).module()
        )


def codes_of(model: nn.Module) -> dict[str, Codes | Codebook]:
    """Return the codes that methods left beside weights, by parameter name, on the
    CPU.
    """
    found = {
        f"{name}.weight": getattr(module, "weight_codes", None)
        for name, module in model.named_modules()
    }
    return {
        name: _on_cpu(codes)
        for name, codes in found.items()
        if isinstance(codes, (Codes, Codebook))
    }


def _on_cpu(codes: Codes | Codebook) -> Codes | Codebook:
    moved: dict[str, Any] = {
        name: value.cpu() for name, value in vars(codes).items() if isinstance(value, Tensor)
    }
    return replace(codes, **moved)


def export(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """Return `model` (eval mode) as a program for any batch size, its foldable
    BatchNorms folded, as for deployment; `images` needs two or more.

    Raises BrokenContract if a shape depends on the images themselves, and with it the
    work: a program that is not seen to branch must do the same for every image.
    """
    model = fold_batchnorms(model, images[:1])
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    program = torch.export.export(
        model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    for node in _nodes(program):
        found = node.meta.get("val")
        if isinstance(found, Tensor) and free_unbacked_symbols(found.shape):
            raise BrokenContract(
                f"the shape of what {node.target} returns depends on the image: work may depend "
                "on the image only by torch.cond"
            )
    return _without_origins(program)


def _nodes(program: torch.export.ExportedProgram) -> Iterator[torch.fx.Node]:
    """Yield every node of `program`, those in branches too."""
    for part in program.graph_module.modules():
        assert isinstance(part, torch.fx.GraphModule)
        yield from part.graph.nodes


def _without_origins(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Take from `program`, in place, what it does not compute with: where each node
    comes from, in branches too, and the images that it was traced with.
    """
    program.graph_module.meta.pop("custom", None)
    for node in _nodes(program):
        for origin in ORIGINS:
            node.meta.pop(origin, None)
        node.meta["stack_trace"] = NO_TRACE
    program.example_inputs = (
        tuple(torch.zeros_like(image) for image in program.example_inputs[0]),
        {},
    )
    return program


def write(
    folder: Path, program: torch.export.ExportedProgram, codes: dict[str, Codes | Codebook]
) -> None:
    """Write the artefact into the existing, empty `folder`; -0.0 becomes 0.0 in the
    tensors of `program`, so that both files agree in every bit.
    """
    _put(
        program, {name: without_signed_zeros(tensor) for name, tensor in _tensors(program).items()}
    )
    (folder / WEIGHTS).write_bytes(encode(_tensors(program), codes))
    torch.export.save(program, folder / PROGRAM)


def _tensors(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    constants = {
        name: value for name, value in program.constants.items() if isinstance(value, Tensor)
    }
    return {**program.state_dict, **constants}


def _put(program: torch.export.ExportedProgram, tensors: dict[str, Tensor]) -> None:
    """Let `tensors` take the place of those of `program` that have their names."""
    for name, tensor in tensors.items():
        home = program.state_dict if name in program.state_dict else program.constants
        home[name] = (
            nn.Parameter(tensor, requires_grad=False)
            if isinstance(home[name], nn.Parameter)
            else tensor
        )


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Raise UserError for what reading an artefact raises where a file of it is
    missing, truncated or foreign.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, BadZipFile) as error:
        raise UserError(
            f"artefact {folder.name} cannot be read: {one_line(str(error))[:160]}: delete "
            f"{folder} and run again"
        ) from error


def read_weights(folder: Path) -> Weights:
    """Read the weights file of an artefact alone; raise UserError if it is missing,
    truncated or foreign.
    """
    with _reading(folder):
        content = (folder / WEIGHTS).read_bytes()
        return Weights(*decode(content), len(content))


def write_graph(artefact: Path, folder: Path) -> None:
    """Write the program of an artefact without its tensors, which its weights file
    holds, into `folder`: their bytes are zeros, and all is compressed.
    """
    with (
        ZipFile(artefact / PROGRAM) as program,
        ZipFile(folder / GRAPH, "w", ZIP_DEFLATED) as graph,
    ):
        for entry in program.infolist():
            content = program.read(entry)
            held = TENSORS.fullmatch(entry.filename.partition("/")[2].removeprefix("data/"))
            graph.writestr(
                ZipInfo(entry.filename), bytes(len(content)) if held else content, ZIP_DEFLATED
            )


def _program(folder: Path) -> BytesIO:
    """Return the program of an artefact, or what its graph was made of, with zeros in
    place of tensors.
    """
    if not (folder / GRAPH).exists():
        return BytesIO((folder / PROGRAM).read_bytes())
    whole = BytesIO()
    with ZipFile(folder / GRAPH) as graph, ZipFile(whole, "w", ZIP_STORED) as program:
        for entry in graph.infolist():
            program.writestr(ZipInfo(entry.filename), graph.read(entry))
    return whole


def read(folder: Path) -> Artefact:
    """Read the artefact back; raise UserError if it is missing, truncated or
    foreign.
    """
    weights = read_weights(folder)
    with _reading(folder):
        found = _program(folder)
        refuse_pickles(found)
        found.seek(0)
        program = torch.export.load(found)
    if set(weights.tensors) != set(_tensors(program)):
        raise UserError(
            f"artefact {folder.name}: weights file and program disagree on tensor names: delete "
            f"{folder} and run again"
        )
    _put(program, weights.tensors)
    parameters = sum(
        tensor.numel() for name, tensor in weights.tensors.items() if name in program.state_dict
    )
    return Artefact(program.module(), weights.bits, weights.bytes, parameters, program)
