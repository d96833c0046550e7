"""The one counter: multiply-accumulates of a model that runs, seen at torch's
dispatcher.

Formulas are torch's own (`torch.utils.flop_counter`), halved, and the fused CPU
attention kernel that they miss. Every operator is either counted, known to multiply
nothing (views, element-wise, norms, pooling, data movement), or refused when it touches
a parameter or a large tensor: never silently zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

aten = torch.ops.aten
# elements an image; an unknown operator on less than this and no parameter cannot
# matter
LARGE = 1024

FREE_NAMES = """
    _adaptive_avg_pool2d _assert_async _assert_tensor_metadata _local_scalar_dense _log_softmax _native_batch_norm_legit
    _native_batch_norm_legit_no_training _prelu_kernel _softmax _to_copy _unsafe_index _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa
    adaptive_max_pool2d alias all amax amin any arange argmax argmin argsort avg_pool1d avg_pool2d avg_pool3d bernoulli bincount cat channel_shuffle
    clone col2im constant_pad_nd copy_ count_nonzero cudnn_batch_norm cumsum detach embedding empty empty_like empty_strided equal eye
    fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask fill_ flip floor_divide full full_like gather glu
    grid_sampler_2d hardswish hardswish_ im2col index index_put index_put_ index_select is_same_size isin lift_fresh lift_fresh_copy
    linalg_vector_norm linspace log_sigmoid_forward logsumexp masked_fill masked_fill_ masked_select max max_pool2d_with_indices
    max_pool3d_with_indices mean min mish_ multinomial native_batch_norm native_dropout native_group_norm native_layer_norm new_empty new_full
    new_ones new_zeros nonzero norm normal_ one_hot ones ones_like pixel_shuffle pixel_unshuffle prod rand rand_like randn randn_like randperm
    reflection_pad2d repeat repeat_interleave replication_pad2d resize_ roll scalar_tensor scatter scatter_ scatter_add select_scatter slice_scatter
    sort stack std sum threshold_ topk tril triu unfold uniform_ upsample_bicubic2d upsample_bilinear2d upsample_nearest2d var var_mean where zero_
    zeros zeros_like
""".split()  # noqa: E501
FREE = {getattr(aten, name) for name in FREE_NAMES if hasattr(aten, name)} | {torch.ops.prim.device}

FORMULAS: dict[Any, Any] = dict(flop_registry)
FUSED_ON_CPU = aten._scaled_dot_product_flash_attention_for_cpu


class UnknownOperator(Exception):
    """An operator whose cost is not known touched parameters or a large tensor."""


@dataclass(frozen=True)
class Operator:
    """One call of a counted operator; `weight_bits` is 32 unless the weight is stored
    in fewer.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    macs: int
    effective_macs: int
    weight_bits: int


@dataclass(frozen=True)
class Count:
    """Multiply-accumulates of one image, or of all in a batch. FLOPs = 2 x MACs;
    effective MACs skip zero weights; bit operations = MACs x weight bits x 32.
    """

    operators: tuple[Operator, ...]

    @property
    def macs(self) -> int:
        """Return all multiply-accumulates."""
        return sum(operator.macs for operator in self.operators)

    @property
    def effective_macs(self) -> int:
        """Return the multiply-accumulates by non-zero weights."""
        return sum(operator.effective_macs for operator in self.operators)

    @property
    def bit_operations(self) -> int:
        """Return the sum of MACs x bits of the stored weight x 32 bits of the
        activation.
        """
        return sum(operator.macs * operator.weight_bits * 32 for operator in self.operators)


def count(model: nn.Module, images: Tensor, bits: Mapping[str, int] | None = None) -> Count:
    """Count `model`, in eval mode, on `images` (N, C, H, W), per image.

    bits: stored bits per parameter name where they are not 32. Raises UnknownOperator.
    """
    _, counted = run(model, images, bits or {})
    return Count(tuple(_per_image(operator, len(images)) for operator in counted.operators))


def run(model: nn.Module, images: Tensor, bits: Mapping[str, int]) -> tuple[Tensor, Count]:
    """Return what `model` makes of `images`, and the count of all of them together;
    otherwise as `count`.
    """
    counter = _Counter(model, bits, LARGE * len(images))
    with torch.no_grad(), counter:
        output = model(images)
    return output, Count(tuple(counter.seen))


def _per_image(operator: Operator, images: int) -> Operator:
    if images == 1:
        return operator
    return Operator(
        operator.name,
        operator.shapes,
        operator.macs // images,
        operator.effective_macs // images,
        operator.weight_bits,
    )


class _Counter(TorchDispatchMode):
    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, bits: Mapping[str, int], large: int) -> None:
        super().__init__()
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.bits = {_address(tensor): bits.get(name, 32) for name, tensor in tensors.items()}
        self.large = large
        self.seen: list[Operator] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            return self._branch(func, args)
        packet = func._overloadpacket
        if packet not in FORMULAS and packet not in FREE and packet is not FUSED_ON_CPU:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if packet is FUSED_ON_CPU:
            self._add(
                packet, args, sdpa_flop_count(args[0].shape, args[1].shape, args[2].shape) // 2
            )
        elif packet in FORMULAS:
            self._add(packet, args, FORMULAS[packet](*args, **kwargs, out_val=result) // 2)
        elif not (func.is_view or packet in FREE or torch.Tag.pointwise in func.tags):
            self._refuse_if_it_matters(func, args, kwargs, result)
        return result

    def _branch(self, func: HigherOrderOperator, args: Any) -> Any:
        """Run, and count, the branch that is taken."""
        if func is not torch.ops.higher_order.cond:
            raise UnknownOperator(
                f"the cost of the higher-order operator {func} is unknown: add it in {__name__}"
            )
        predicate, yes, no, operands = args
        with self:
            return (yes if predicate else no)(*operands)

    def _add(self, packet: Any, args: Any, macs: int) -> None:
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        weights = [
            tensor for tensor in tensors if tensor.ndim >= 2 and _address(tensor) in self.bits
        ]
        dense = weights[0] if weights else None
        effective = (
            macs if dense is None else round(macs * int(torch.count_nonzero(dense)) / dense.numel())
        )
        bits = 32 if dense is None else self.bits[_address(dense)]
        self.seen.append(
            Operator(
                str(packet), tuple(tuple(tensor.shape) for tensor in tensors), macs, effective, bits
            )
        )

    def _refuse_if_it_matters(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, Tensor) and (
                tensor.numel() >= self.large or _address(tensor) in self.bits
            ):
                raise UnknownOperator(
                    f"the cost of operator {func} on a tensor of shape {tuple(tensor.shape)} is "
                    "unknown: add its formula (or add it to those that "
                    f"multiply nothing) in {__name__}"
                )


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
