"""How a track trains, what happens to its images, and how they are normalised."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag

from leaderboard.records.params_base import Strict

Share = Annotated[float, Field(ge=0, le=1)]


class ScheduleParams(Strict):
    """See `methods.Schedule`."""

    optimiser: Literal["adamw", "sgd"]
    precision: Literal["fp32", "bf16"]
    epochs: Annotated[float, Field(ge=0)]
    batch: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: Annotated[float, Field(ge=0)]
    warmup: Share
    label_smoothing: Share

    def lasting(self, epochs: float) -> ScheduleParams:
        """Return the schedule stretched or cut to so many epochs."""
        return self.model_copy(update={"epochs": epochs})


class AugmentParams(Strict):
    """What happens to a training image, each drawn anew; see
    `harness.point.augment`.
    """

    # pixels of black border, of which a window of the image's size is cut
    crop: Annotated[int, Field(ge=0)] = 0
    flip: Share = 0.0  # probability
    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    shift: Share = 0.0  # of half the side
    scale: Share = 0.0  # relative
    cutout: Annotated[int, Field(ge=0)] = 0  # side of the square set to the mean, in pixels


class NormaliseParams(Strict):
    """Mean and standard deviation per channel, of pixels in [0, 1]."""

    mean: Annotated[list[float], Field(min_length=1)]
    std: Annotated[list[PositiveFloat], Field(min_length=1)]


def _kind(value: Any) -> str:
    return "one" if isinstance(value, (int, float, str)) else "several"


# said in one word or number, or in several: an error names what was wrong in that alone
Size = Annotated[
    Annotated[PositiveInt, Tag("one")] | Annotated[tuple[PositiveInt, PositiveInt], Tag("several")],
    Discriminator(_kind),
]
Normalise = Annotated[
    Annotated[Literal["train"], Tag("one")] | Annotated[NormaliseParams, Tag("several")],
    Discriminator(_kind),
]


class TransformParams(Strict):
    """How images become what models take; what is not said is each model's own.

    image_size: the side, or height and width. crop: the share of the resized image that
    is kept, its centre. normalise: `train` for mean and deviation of the training
    split.
    """

    image_size: Size | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos"] | None = None
    crop: Annotated[float, Field(gt=0, le=1)] | None = None
    normalise: Normalise | None = None
