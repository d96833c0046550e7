"""The artefact of a point: a torch.export program and the file of its weights, from which it is evaluated.

`program.pt2` is complete and runs with torch alone. `weights.safetensors` (see `harness.point.weights_file`) holds the same tensors. Reading takes the graph
from the program and every tensor from the weights file, so that what is evaluated is what was counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from harness.point.archive import refuse_pickles
from harness.point.weights_file import decode, encode
from leaderboard.records.errors import UserError
from methods import Codebook, Codes
from methods.parts.network.batchnorm import fold_batchnorms

PROGRAM, WEIGHTS = "program.pt2", "weights.safetensors"


@dataclass(frozen=True)
class Artefact:
    """A point read back from disk: the module that runs, stored bits per coded parameter, and the length of the weights file."""

    module: nn.Module
    bits: dict[str, int]
    bytes: int
    parameters: int
    program: torch.export.ExportedProgram

    @property
    def branches(self) -> bool:
        """Say whether what the program computes depends on the image, as in early exits."""
        return any(node.target is torch.ops.higher_order.cond for node in self.program.graph.nodes)

    def on(self, device: torch.device) -> nn.Module:
        """Return the module on `device`; `module` itself stays on the CPU."""
        return self.module if device.type == "cpu" else move_to_device_pass(self.program, str(device)).module()


def codes_of(model: nn.Module) -> dict[str, Codes | Codebook]:
    """Return the codes that methods left beside weights, by parameter name, on the CPU."""
    found = {f"{name}.weight": getattr(module, "weight_codes", None) for name, module in model.named_modules()}
    return {name: _on_cpu(codes) for name, codes in found.items() if isinstance(codes, (Codes, Codebook))}


def _on_cpu(codes: Codes | Codebook) -> Codes | Codebook:
    moved: dict[str, Any] = {name: value.cpu() for name, value in vars(codes).items() if isinstance(value, Tensor)}
    return replace(codes, **moved)


def export(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """Return `model` (eval mode) as a program for any batch size, its foldable BatchNorms folded, as for deployment; `images` needs two or more."""
    model = fold_batchnorms(model, images[:1])
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def write(folder: Path, program: torch.export.ExportedProgram, codes: dict[str, Codes | Codebook]) -> None:
    """Write the artefact into the existing, empty `folder`."""
    (folder / WEIGHTS).write_bytes(encode(_tensors(program), codes))
    torch.export.save(program, folder / PROGRAM)


def _tensors(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    constants = {name: value for name, value in program.constants.items() if isinstance(value, Tensor)}
    return {**program.state_dict, **constants}


def read(folder: Path) -> Artefact:
    """Read the artefact back; raise UserError if it is missing, truncated or foreign."""
    try:
        content = (folder / WEIGHTS).read_bytes()
        tensors, bits = decode(content)
        refuse_pickles(folder / PROGRAM)
        program = torch.export.load(folder / PROGRAM)
    except (OSError, ValueError, RuntimeError, BadZipFile) as error:
        raise UserError(f"artefact {folder.name} cannot be read: {' '.join(str(error).split())[:160]}: delete {folder} and run again") from error
    if set(tensors) != set(_tensors(program)):
        raise UserError(f"artefact {folder.name}: weights file and program disagree on tensor names: delete {folder} and run again")
    for name, tensor in tensors.items():
        home = program.state_dict if name in program.state_dict else program.constants
        home[name] = nn.Parameter(tensor, requires_grad=False) if isinstance(home[name], nn.Parameter) else tensor
    parameters = sum(tensor.numel() for name, tensor in tensors.items() if name in program.state_dict)
    return Artefact(program.module(), bits, len(content), parameters, program)
