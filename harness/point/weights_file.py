"""The weights file: every tensor of a model in its cheapest lossless form, in one
safetensors file, which is what the tables count.

Forms, named in the file's metadata: plain; `mask` = one bit per entry and the non-zero
values; `codes` = integers at their bit width with float16 scales and uint8 zero points
per group (see `methods.Codes`); `codebook` = float16 centroids and the indices into
them (see `methods.Codebook`), at their bit width or Huffman-coded, whichever is
shorter. A zero is stored without its sign, which `w *= mask` leaves and no layer's
output tells.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from torch import Tensor

from harness.point.huffman import huffman, unhuffman
from methods import Codebook, Codes

FORMAT = "shrinkmark.v1"  # names the forms in the file's metadata, and which forms there are
SIGNED_ZEROS = {  # float types that have a -0.0, and the integers whose smallest has its bits
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float8_e4m3fn: torch.int8,
    torch.float8_e5m2: torch.int8,
}
# bytes that two more entries cost in the file's header; a mask must save more than that
HEADER = 160

Shape = list[Annotated[int, Field(ge=0)]]


class Masked(BaseModel):
    """A float tensor stored as bitmask and non-zero values."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    form: Literal["mask"]
    shape: Shape


class Coded(BaseModel):
    """A float32 tensor stored as integer codes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    form: Literal["codes"]
    shape: Shape
    rows: int
    columns: int
    bits: Annotated[int, Field(ge=1, le=8)]
    group: Annotated[int, Field(ge=1)]


class Indexed(BaseModel):
    """A float32 tensor stored as indices into a codebook."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    form: Literal["codebook"]
    shape: Shape
    count: Annotated[int, Field(ge=1)]
    bits: Annotated[int, Field(ge=1, le=16)]
    huffman: bool


Forms = TypeAdapter(dict[str, Annotated[Masked | Coded | Indexed, Field(discriminator="form")]])


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack non-negative integer `codes` below 2**bits, bits <= 16, into ceil(n * bits /
    8) bytes, lowest bit first.
    """
    planes = (
        codes.flatten().numpy().astype(np.uint16)[:, None] >> np.arange(bits, dtype=np.uint16)
    ) & 1
    return torch.from_numpy(np.packbits(planes.astype(np.uint8).ravel(), bitorder="little"))


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return the `count` codes that `pack` packed, int64; raise ValueError if `packed`
    is too short.
    """
    if packed.numel() != -(-count * bits // 8):
        raise ValueError(f"{packed.numel()} bytes cannot hold {count} codes of {bits} bits")
    planes = np.unpackbits(packed.numpy(), count=count * bits, bitorder="little").reshape(
        count, bits
    )
    return torch.from_numpy(
        (planes.astype(np.uint16) << np.arange(bits, dtype=np.uint16)).sum(1, dtype=np.int64)
    )


def without_signed_zeros(tensor: Tensor) -> Tensor:
    """Return `tensor` with 0.0 for every -0.0 and all other bits as they are: itself if
    it has none.
    """
    if tensor.dtype not in SIGNED_ZEROS:
        return tensor
    bits = tensor.detach().view(SIGNED_ZEROS[tensor.dtype])
    negative = bits == torch.iinfo(bits.dtype).min
    return bits.masked_fill(negative, 0).view(tensor.dtype) if negative.any() else tensor


def encode(tensors: dict[str, Tensor], codes: dict[str, Codes | Codebook]) -> bytes:
    """Return the weights file of `tensors`; raise ValueError if a weight differs from
    what its codes decode to.
    """
    entries: dict[str, Tensor] = {}
    forms: dict[str, Masked | Coded | Indexed] = {}
    for name, tensor in tensors.items():
        tensor = without_signed_zeros(tensor.detach()).contiguous()
        if name in codes:
            if not torch.equal(codes[name].decode(tensor.shape), tensor):
                raise ValueError(
                    f"the codes of {name} do not decode to its weight: the weight was changed "
                    "after store_as_codes()"
                )
            forms[name], parts = _stored(codes[name], tensor.shape)
        elif _mask_pays(tensor):
            forms[name], parts = _masked(tensor)
        else:
            parts = {"": tensor}
        entries |= {
            f"{name}|{part}" if part else name: without_signed_zeros(value).contiguous()
            for part, value in parts.items()
        }
    text = json.dumps(
        {name: form.model_dump() for name, form in forms.items()},
        sort_keys=True,
        separators=(",", ":"),
    )
    return safetensors.torch.save(entries, metadata={FORMAT: text})


def _stored(
    codes: Codes | Codebook, shape: torch.Size
) -> tuple[Coded | Indexed, dict[str, Tensor]]:
    return _coded(codes, shape) if isinstance(codes, Codes) else _indexed(codes, shape)


def _coded(codes: Codes, shape: torch.Size) -> tuple[Coded, dict[str, Tensor]]:
    rows, columns = codes.codes.shape
    form = Coded(
        form="codes",
        shape=list(shape),
        rows=rows,
        columns=columns,
        bits=codes.bits,
        group=codes.group,
    )
    return form, {"codes": pack(codes.codes, codes.bits), "scale": codes.scale, "zero": codes.zero}


def _indexed(codes: Codebook, shape: torch.Size) -> tuple[Indexed, dict[str, Tensor]]:
    bits = max(1, (len(codes.centroids) - 1).bit_length())
    packed, coded = {"index": pack(codes.index, bits)}, huffman(codes.index)
    shorter = sum(part.nbytes for part in coded.values()) + HEADER < packed["index"].nbytes
    form = Indexed(
        form="codebook", shape=list(shape), count=len(codes.index), bits=bits, huffman=shorter
    )
    tables = {"centroids": codes.centroids} | (
        {} if codes.projection is None else {"projection": codes.projection}
    )
    return form, tables | (coded if shorter else packed)


def _raw(tensor: Tensor) -> Tensor:
    return tensor.flatten().view(
        {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    )


def _mask_pays(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.element_size() == 1:
        return False
    stored = int(torch.count_nonzero(_raw(tensor)))
    return (
        -(-tensor.numel() // 8) + stored * tensor.element_size() + HEADER
        < tensor.numel() * tensor.element_size()
    )


def _masked(tensor: Tensor) -> tuple[Masked, dict[str, Tensor]]:
    kept = _raw(tensor) != 0
    return Masked(form="mask", shape=list(tensor.shape)), {
        "mask": pack(kept.to(torch.uint8), 1),
        "values": tensor.flatten()[kept],
    }


def decode(content: bytes) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return tensors and stored bits by name from a weights file; raise ValueError if
    it is truncated, foreign or inconsistent.
    """
    try:
        entries = safetensors.torch.load(content)
        length = int.from_bytes(content[:8], "little")
        forms = Forms.validate_json(json.loads(content[8 : 8 + length])["__metadata__"][FORMAT])
        coded = {
            name: without_signed_zeros(_read(entries, name, form)) for name, form in forms.items()
        }
    except (
        safetensors.SafetensorError,
        ArithmeticError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            f"not a weights file of shrinkmark, or damaged ({' '.join(str(error).split())[:120]})"
        ) from error
    plain = {name: tensor for name, tensor in entries.items() if "|" not in name}
    return {**plain, **coded}, {
        name: form.bits for name, form in forms.items() if isinstance(form, Coded)
    }


def _read(entries: dict[str, Tensor], name: str, form: Masked | Coded | Indexed) -> Tensor:
    shape, parts = (
        torch.Size(form.shape),
        {
            key.partition("|")[2]: value
            for key, value in entries.items()
            if key.startswith(f"{name}|")
        },
    )
    if isinstance(form, Masked):
        kept = unpack(parts["mask"], 1, shape.numel()).bool()
        tensor = torch.zeros(shape.numel(), dtype=parts["values"].dtype)
        tensor[kept] = parts["values"]
        return tensor.view(shape)
    if isinstance(form, Indexed):
        index = (
            unhuffman(parts, form.count)
            if form.huffman
            else unpack(parts["index"], form.bits, form.count)
        )
        columns = parts.get("projection", parts["centroids"]).shape[1]
        if len(parts["centroids"]) > form.count or form.count * columns != shape.numel():
            raise ValueError(f"the codebook of {name} does not fit its shape {form.shape}")
        return Codebook(index, parts["centroids"], parts.get("projection")).decode(shape)
    if form.group > form.columns or not parts["scale"].shape == parts["zero"].shape == (
        form.rows,
        -(-form.columns // form.group),
    ):
        raise ValueError(f"scales and zero points of {name} do not fit its groups")
    codes = (
        unpack(parts["codes"], form.bits, form.rows * form.columns)
        .view(form.rows, form.columns)
        .to(torch.uint8)
    )
    return Codes(codes, parts["scale"], parts["zero"], form.bits, form.group).decode(shape)
