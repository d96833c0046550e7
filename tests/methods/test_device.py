"""Methods follow the device of the model and the data they are given: emulated in CPU
memory, so that no GPU is needed.

`second_device()` marks storages as lying on a device that torch calls `xpu:0`, and
raises where a real one would: an operator that is given tensors of both places
(0-dimensional CPU tensors in element-wise operators, CPU indices in x[index] and copies
are allowed, as on CUDA), a CPU generator that draws on the device, numpy() of a device
tensor. What it does not emulate: kernels (which operators exist on a device, what they
round to), streams, memory.
"""

from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, fields
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from harness.run import registry
from leaderboard.records.params import TrackParams
from methods import Codes, Data, Method, Schedule
from methods.parts.pruning.masks import zero
from tests.conftest import model_of, seen_of

CPU, DEVICE = torch.device("cpu"), torch.device("xpu", 0)
INDEXED = {
    torch.ops.aten.index,
    torch.ops.aten.index_put,
    torch.ops.aten.index_put_,
    torch.ops.aten._index_put_impl_,
    torch.ops.aten._unsafe_index,
}
# methods whose strongest setting needs all blocks of the track's models
# their strongest setting needs all blocks of the track's models
OF_MANY_BLOCKS = {
    "block_drop",
    "diffrate",
    "evopress_drop",
    "laptop",
    "layer_collapse",
    "layer_merge",
}
CASES = [(method, model) for method in registry.names() for model in ("resnet", "vit")]


def lies_on(tensor: Tensor) -> bool:
    """Say whether `tensor` lies on the emulated device."""
    return getattr(tensor.untyped_storage(), "on_device", False)


def tensors(*values: object) -> list[Tensor]:
    """List the tensors among `values`, and in tuples and lists among them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += tensors(*value)
    return found


def place(results: list[Tensor], given: list[Tensor], device: torch.device) -> None:
    """Put those of `results` that are no views of what was `given` on `device`."""
    known = {tensor.untyped_storage()._cdata for tensor in given}
    for tensor in results:
        if tensor.untyped_storage()._cdata not in known:
            tensor.untyped_storage().on_device = device == DEVICE


class Operators(TorchDispatchMode):
    """Refuse operators that mix the device with the CPU; what the others make of
    tensors on the device lies there, too.
    """

    # whether the function under way is one of the device; then so are the tensors that
    # it makes out of nothing
    inside = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tensors(args, *kwargs.values())
        ours = any(map(lies_on, given))
        if ours and not all(map(lies_on, given)) and func is not torch.ops.aten.copy_.default:
            refuse_mix(func, args, kwargs)
        result = func(*args, **kwargs)
        if ours or (self.inside and not given):
            refuse_generator(func, args, kwargs)
            place(tensors(result), given, DEVICE)
        return result


def refuse_mix(func, args: tuple, kwargs: dict) -> None:
    """Raise as CUDA does if `func`, which is given tensors of the device and of the
    CPU, does not take both.
    """
    if func._overloadpacket in INDEXED and lies_on(args[0]):
        args = (args[0], *args[2:])
    scalars = torch.Tag.pointwise in func.tags or func._overloadpacket in INDEXED
    written = [
        arg
        for arg, of in zip(args, func._schema.arguments, strict=False)
        if of.alias_info is not None and of.alias_info.is_write
    ]
    foreign = [
        tensor
        for tensor in tensors(args, *kwargs.values())
        if not lies_on(tensor) and (tensor.ndim or not scalars)
    ]
    if foreign or not all(map(lies_on, tensors(written))):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")


def refuse_generator(func, args: tuple, kwargs: dict) -> None:
    """Raise as CUDA does if `func` draws on the device from a CPU generator."""
    if any(isinstance(leaf, torch.Generator) for leaf in (*args, *kwargs.values())):
        raise RuntimeError(f"{func}: expected a generator of the device, found one of the CPU")


class Functions(TorchFunctionMode):
    """Show the device as `tensor.device`, and understand it where Python names it:
    `device=`, `to()`, `cpu()`.
    """

    def __init__(self, operators: Operators) -> None:
        super().__init__()
        self.operators = operators

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tensors(args, *kwargs.values())
        ours = any(map(lies_on, given))
        if func is torch._C._nn._parse_to:  # reads the arguments of nn.Module.to()
            return func(*args, **kwargs)
        if func == Tensor.device.__get__:
            return DEVICE if ours else func(*args)
        if func in (Tensor.numpy, Tensor.__array__) and ours:
            raise TypeError("cannot convert a tensor of the device to numpy: use cpu() first")
        target = asked_for(func, args, kwargs)
        self.operators.inside = ours if target is None else target == DEVICE
        try:
            result = func(
                *map(renamed, args), **{key: renamed(value) for key, value in kwargs.items()}
            )
        finally:
            self.operators.inside = False
        if target is not None and target.type != "meta":
            return moved(result, given, target)
        if func is Tensor.__deepcopy__ and ours:  # copies storages, which is no operator
            place([result], given, DEVICE)
        return result


def asked_for(func, args: tuple, kwargs: dict) -> torch.device | None:
    """Return the device that a call asks for, if it does."""
    if func is Tensor.cpu:
        return CPU
    if func in (Tensor.to, Tensor.type_as) and isinstance(
        args[1] if len(args) > 1 else None, Tensor
    ):
        return DEVICE if lies_on(args[1]) else CPU
    named = [
        arg
        for arg in args
        if isinstance(arg, torch.device) or (func is Tensor.to and isinstance(arg, str))
    ]
    named += [kwargs["device"]] if kwargs.get("device") is not None else []
    return torch.device(named[0]) if named else None


def renamed(value: object) -> object:
    """Return the CPU for the device, and anything else as it is."""
    return CPU if isinstance(value, torch.device) and value == DEVICE else value


def moved(result: object, given: list[Tensor], device: torch.device) -> object:
    """Return `result` on `device`: itself if new or there already, else a copy, as from
    one memory to another.
    """
    place(tensors(result), given, device)
    if not isinstance(result, Tensor) or lies_on(result) == (device == DEVICE):
        return result
    copy = result.clone()
    place([copy], [], device)
    return copy


@contextmanager
def second_device():
    """Emulate the device for what runs inside."""
    with Operators() as operators, Functions(operators):
        yield


class OnDevice(Data):
    """What a method sees of a track, moved to the device as the harness does."""

    def __init__(self, data: Data) -> None:
        self.data, self.scratch, self.fine_tune, self.image_shape = (
            data,
            data.scratch,
            data.fine_tune,
            data.image_shape,
        )

    calibration = property(lambda self: self.data.calibration.to(DEVICE))
    train = property(lambda self: on_device(self.data.train))
    validation = property(lambda self: on_device(self.data.validation))

    def batches(self, schedule: Schedule):
        return (
            (images.to(DEVICE), labels.to(DEVICE)) for images, labels in self.data.batches(schedule)
        )

    def steps(self, schedule: Schedule) -> int:
        return self.data.steps(schedule)

    def macs(self, model: nn.Module) -> int:
        return self.data.macs(deepcopy(model).cpu())

    def narrower(self, width: float) -> nn.Module:
        return self.data.narrower(width).to(DEVICE)

    def generator(self, name: str) -> torch.Generator:
        return self.data.generator(name)


def on_device(parts):
    """Return the dataclass `parts` with its tensors on the device."""
    return type(parts)(*(getattr(parts, field.name).to(DEVICE) for field in fields(parts)))


def stored(model: nn.Module) -> dict[str, Tensor]:
    """Return all tensors that a point stores: the state, and codes where a method left
    them.
    """
    codes = {
        name: module.weight_codes
        for name, module in model.named_modules()
        if hasattr(module, "weight_codes")
    }
    coded = {
        f"{name}.{part}": value
        for name, parts in codes.items()
        for part, value in vars(parts).items()
        if isinstance(value, Tensor)
    }
    return {**model.state_dict(), **coded}


def shortened(track: TrackParams, fewer: bool) -> TrackParams:
    """Return `track` with a short budget and, if `fewer`, models of fewer blocks: the
    emulation takes its time for every operator.
    """
    args = {"resnet": {"layers": [1, 1, 1, 1]}, "vit": {"depth": 3}}
    models = (
        {
            name: model.model_copy(update={"args": model.args | args.get(name, {})})
            for name, model in track.models.items()
        }
        if fewer
        else track.models
    )
    brief = track.fine_tune.model_copy(update={"epochs": 0.25})
    return track.model_copy(
        update={"models": models, "scratch": brief, "fine_tune": brief, "calibration": 32}
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "model_name"), CASES)
def test_a_method_stays_on_the_device_of_its_model_and_gives_what_it_gives_on_the_cpu(
    name, model_name, track, data_folder
):
    method, short = (
        registry.configure(name, dict(registry.load(name).strongest)),
        shortened(track, name not in OF_MANY_BLOCKS),
    )
    model = model_of(short, model_name)
    if reason := method.skip(deepcopy(model)):
        pytest.skip(reason)
    seen = seen_of(short, data_folder)
    torch.manual_seed(0)
    expected = stored(method.compress(deepcopy(model), seen(model_name)))
    torch.manual_seed(0)
    with second_device():
        found = stored(method.compress(model.to(DEVICE), OnDevice(seen(model_name))))
    assert not [key for key, tensor in found.items() if not lies_on(tensor)]
    assert found.keys() == expected.keys() and all(
        torch.equal(found[key], tensor) for key, tensor in expected.items()
    )


@dataclass(frozen=True)
class Careless(Method):
    """Zero the smaller half of each weight by a mask that is made on the CPU, whatever
    the weight's device.
    """

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        for layer in model.children():
            mask = torch.zeros(layer.weight.numel(), dtype=torch.bool)
            mask[layer.weight.flatten().abs().argsort()[: len(mask) // 2].tolist()] = True
            zero(layer, {"": mask.view_as(layer.weight)})
        return model


def test_a_method_that_masks_with_a_mask_on_the_cpu_is_caught():
    model = nn.Sequential(nn.Linear(4, 4))
    Careless().compress(deepcopy(model), SimpleNamespace())
    with second_device(), pytest.raises(RuntimeError, match=r"masked_fill_.*same device"):
        Careless().compress(model.to(DEVICE), SimpleNamespace())


MISTAKES = {
    "a sum on the CPU": lambda x: torch.zeros(4).add_(x.sum(0)),
    "a scalar on the CPU as the place of a sum": lambda x: torch.zeros(()).add_(x.sum()),
    "an element of a sum on the CPU": lambda x: torch.zeros(4)[1].add_(x.sum()),
    "index_select by an index on the CPU": lambda x: x.index_select(0, torch.arange(2)),
    "gather by an index on the CPU": lambda x: x.gather(0, torch.zeros(1, 4, dtype=torch.int64)),
    "an index on the device into the CPU": lambda x: torch.zeros(4)[x[0].argsort()],
    "values of the CPU put at an index": lambda x: x.index_put_(
        (torch.arange(2),), torch.ones(2, 4)
    ),
    "scalars of both places stacked": lambda x: torch.stack([x.sum(), torch.tensor(0.0)]),
    "a product with a copy on the CPU": lambda x: x @ x.cpu().T,
    "a product with a copy named on the CPU": lambda x: x.T @ x.to("cpu"),
    "an empty_like elsewhere": lambda x: x + torch.empty_like(x, device="cpu").zero_(),
    "a layer made on the CPU": lambda x: nn.Linear(4, 4)(x),
    "an activation made on the CPU": lambda x: nn.PReLU(1)(x),
    "a CPU generator on the device": lambda x: torch.randn(
        4, generator=torch.Generator(), device=x.device
    ),
    "a CPU generator in place": lambda x: x.normal_(generator=torch.Generator()),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_that_cuda_refuses_are_refused_by_the_emulation(mistake):
    with second_device():
        x = torch.ones(4, 4, device=DEVICE)
        with pytest.raises(RuntimeError, match="device"):
            mistake(x)


def test_numpy_of_a_tensor_on_the_device_is_refused():
    with second_device(), pytest.raises(TypeError, match="use cpu"):
        torch.ones(4).to(DEVICE).numpy()


ALLOWED = {
    "a scalar of the CPU": lambda x: x * torch.tensor(2.0),
    "an index on the CPU": lambda x: x[torch.arange(2)],
    "a mask on the CPU, in brackets": lambda x: x[torch.ones(4, 4, dtype=torch.bool)],
    "a list as index": lambda x: x[[0, 1]],
    "new_zeros": lambda x: x + x.new_zeros(4),
    "zeros on its device": lambda x: x + torch.zeros(4, device=x.device),
    "drawn on the CPU, then moved": lambda x: (
        x + torch.randn(4, 4, generator=torch.Generator()).to(x.device)
    ),
    "a layer made on its device": lambda x: nn.Linear(4, 4, device=x.device)(x),
    "a layer moved to its device": lambda x: nn.Linear(4, 4).to(x.device)(x),
    "a copy of a model with buffers": lambda x: deepcopy(nn.BatchNorm1d(4, device=x.device))(x),
    "a slice filled from the CPU": lambda x: x.clone()[:2].copy_(torch.ones(2, 4)),
    "a norm by autograd": lambda x: torch.autograd.grad(
        (y := x.clone().requires_grad_()).norm(), y
    )[0],
}


@pytest.mark.parametrize("use", ALLOWED.values(), ids=ALLOWED)
def test_what_cuda_allows_passes_and_lies_on_the_device(use):
    with second_device():
        assert use(torch.ones(4, 4, device=DEVICE)).device == DEVICE


def test_a_copy_to_the_cpu_lies_there_and_leaves_the_original_on_the_device():
    with second_device():
        x = torch.ones(4, device=DEVICE)
        copy = x.cpu()
        assert (copy.device, x.device, torch.zeros(4).copy_(x).device, copy.numpy().sum()) == (
            CPU,
            DEVICE,
            CPU,
            4,
        )


def test_codes_made_on_the_device_lie_there():
    with second_device():
        codes = Codes(
            *(
                torch.ones(2, 4, device=DEVICE, dtype=dtype)
                for dtype in (torch.uint8, torch.float16, torch.uint8)
            ),
            8,
            4,
        )
        assert codes.decode(torch.Size([2, 4])).device == DEVICE
