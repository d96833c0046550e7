"""How a track trains, what happens to its images, and how they are normalised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

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
