"""One method for each way to misbehave as it runs."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from methods import Method


def module(name):
    """Import a module by names made up as the program runs, which no rule on its text can see: what comes of it is for the run to catch."""
    hidden = [f"__{word}__" for word in ("globals", "builtins", "import")]
    return getattr(module, hidden[0])[hidden[1]][hidden[2]](name)


@dataclass(frozen=True)
class Misbehaves(Method):
    """Carry what every method must declare."""

    family: ClassVar[str] = "outside"
    paper: ClassVar[str] = "-"
    needs: ClassVar[str] = "data-free"
    realisation: ClassVar[str] = "structural"
    stochastic: ClassVar[bool] = False
    identity: ClassVar[dict[str, object]] = {}
    strongest: ClassVar[dict[str, object]] = {}


class Raises(Misbehaves):
    def compress(self, model, data):
        raise RuntimeError("the spectrum\nof this model is empty")


class WrongShape(Misbehaves):
    def compress(self, model, data):
        return nn.Sequential(model, nn.Linear(10, 7))


class ReturnsNan(Misbehaves):
    def compress(self, model, data):
        next(model.parameters()).data.fill_(float("nan"))
        return model


class NoModule(Misbehaves):
    def compress(self, model, data):
        return model.state_dict()


class ChangesDense(Misbehaves):
    def compress(self, model, data):
        for other in module("gc").get_objects():
            if type(other) is type(model) and other is not model:
                for parameter in other.parameters():
                    parameter.data.zero_()
        return model


class Halved(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x) * (0.5 if torch.compiler.is_exporting() else 1.0)


class OtherWhenExported(Misbehaves):
    def compress(self, model, data):
        return Halved(model)


class NeverReturns(Misbehaves):
    def compress(self, model, data):
        while True:
            pass


class EatsMemory(Misbehaves):
    def compress(self, model, data):
        return model, [torch.ones(2**28) for _ in range(64)]


class AsksForMore(Misbehaves):
    def compress(self, model, data):
        assert len(data.train.labels)
        return model


@dataclass(frozen=True)
class FailsWhileThere(Misbehaves):
    """Fails as long as there is something at `path`."""

    path: str = "/"

    def compress(self, model, data):
        if module("os").path.exists(self.path):
            raise RuntimeError("it is still there")
        return model


class Crashes(Misbehaves):
    def compress(self, model, data):
        module("os")._exit(9)


class Segfaults(Misbehaves):
    def compress(self, model, data):
        module("ctypes").string_at(0)


class SearchesMemory(Misbehaves):
    """Looks for the 540 test images or labels of digits among all objects and on the stack."""

    def compress(self, model, data):
        held = list(module("gc").get_objects())
        frame = getattr(module("sys"), "_get" + "frame")()
        while frame is not None:
            held += getattr(frame, "f_" + "locals").values()
            frame = getattr(frame, "f_" + "back")
        found = [
            value
            for value in held
            if isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == 540
        ]
        if found:
            raise RuntimeError("the test split lies in memory")
        return model


class ReadsTheTestSplit(Misbehaves):
    """Reads the file of the test split by every way it knows, the dataset, and its parent's memory; says what worked."""

    def compress(self, model, data):
        frame = getattr(module("sys"), "_get" + "frame")()
        while "job" not in (names := getattr(frame, "f_" + "locals")):
            frame = getattr(frame, "f_" + "back")
        os, socket = module("os"), module("socket")
        file, kept = names["job"].data / "test.safetensors", names["job"].folder / "kept"
        learn = getattr(module("sklearn"), "_" + "_path_" + "_")[0]
        ways = {
            "open": lambda: file.read_bytes(),
            "a library in Rust": lambda: module("safetensors.torch").torch.load_file(str(file)),
            "a child process": lambda: module("subprocess").check_output(["cat", str(file)]),
            "a link": lambda: (os.link(file, kept), kept.read_bytes(), kept.unlink()),
            "another name": lambda: (
                os.rename(file, kept),
                kept.read_bytes(),
                os.rename(kept, file),
            ),
            "the dataset": lambda: os.open(f"{learn}/datasets/data/digits.csv.gz", os.O_RDONLY),
            "memory": lambda: os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY),
            "the network": lambda: socket.socket().bind(("127.0.0.1", 0)),
            "a signal": lambda: os.kill(os.getppid(), 0),
        }
        worked = [name for name, way in ways.items() if self.works(way)]
        if worked:
            raise RuntimeError(f"worked: {', '.join(worked)}")
        return model

    @staticmethod
    def works(way):
        try:
            way()
        except Exception:
            return False
        return True
