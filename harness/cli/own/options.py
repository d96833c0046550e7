"""What a command may be told of somebody's own model and images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leaderboard.records.errors import UserError

if TYPE_CHECKING:
    from harness.data.timm_dataset import Named
    from harness.trial.asked import AskedModel

Images = Annotated[
    str,
    typer.Option(
        help="a folder of photographs, one folder a class or train/ and val/ (without class "
        "folders, they are compared with dense); or what timm reads, e.g. hfds/owner/name"
    ),
]
Into = Annotated[Path, typer.Option(help="the folder for all that is made")]
Weights = Annotated[str, typer.Option(help="a file, `timm` for timm's own, or hf-hub:owner/name")]
Classes = Annotated[
    Path | None, typer.Option(help="the list of classes where not all have a folder")
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        help="a file whose functions timm's @register_model marks, or package.module:function "
        "(may be given again)",
    ),
]
Args = Annotated[
    list[str] | None,
    typer.Option("--arg", help="an argument of the model, e.g. bn_eps=1e-3 (may be given again)"),
]
ImageSize = Annotated[
    int | None, typer.Option("--img-size", min=1, help="pixels a side, in place of timm's")
]
Mean = Annotated[
    str | None, typer.Option(help="of pixels in [0, 1], in place of timm's, e.g. 0.5,0.5,0.5")
]
Std = Annotated[str | None, typer.Option(help="beside --mean")]
Calibration = Annotated[int, typer.Option(min=1, help="images to calibrate on")]
Epochs = Annotated[
    float, typer.Option(min=0, help="epochs of training, for the budgets that train")
]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="leave out files that are no images")
]
Onnx = Annotated[bool, typer.Option("--onnx", help="write model.onnx beside each model")]


@dataclass(frozen=True)
class ModelText:
    """A model as a command line describes it."""

    name: str
    weights: str
    imports: list[str] | None
    args: list[str] | None
    image_size: int | None
    mean: str | None
    std: str | None

    def read(self) -> AskedModel:
        """Return the model that is asked for; raise UserError where it is not written
        as it must be.
        """
        from harness.trial.asked import AskedModel

        if self.weights == "recipe":
            raise UserError(
                "--weights recipe would be a network of random weights: name a file, timm or "
                "hf-hub:owner/name"
            )
        made: dict[str, Any] = {"args": _pairs(self.args or [])}
        if self.image_size is not None:
            made["image_size"] = self.image_size
        if (self.mean is None) != (self.std is None):
            raise UserError("--mean and --std go together: give both")
        if self.mean is not None and self.std is not None:
            made["normalise"] = {
                "mean": _numbers("--mean", self.mean),
                "std": _numbers("--std", self.std),
            }
        file = Path(self.weights).expanduser()
        weights = str(file.resolve()) if file.is_file() else self.weights
        imports = [
            str(Path(name).expanduser().resolve()) if name.endswith(".py") else name
            for name in self.imports or []
        ]
        return AskedModel(self.name, weights, tuple(imports), made)


def images_named(images: str, classes: Path | None, skip_broken: bool) -> Named:
    """Return the dataset that a command calls `images`, with what it is told; raise
    UserError where that is not written as it must be.
    """
    from harness.data.timm_dataset import named

    found = named(images)
    more: dict[str, Any] = {"skip_broken": skip_broken}
    if classes is not None:
        more["classes"] = str(classes.expanduser().resolve())
    return replace(found, data={**found.data, **more})


def _pairs(texts: Iterable[str]) -> dict[str, Any]:
    import yaml

    from harness.run.methods_named import number_or

    pairs = [text.partition("=") for text in texts]
    if any(not name or not sign for name, sign, _ in pairs):
        raise UserError("--arg is written name=value, e.g. bn_eps=1e-3")
    return {name: number_or(yaml.safe_load(text)) for name, _, text in pairs}


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} is written as numbers with commas, found '{text}'") from None
