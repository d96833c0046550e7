"""params.yaml as typed, validated values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from leaderboard.records.errors import UserError, describe, unknown
from leaderboard.records.hardware_profiles import HardwareParams
from leaderboard.records.method_settings import MethodPlans
from leaderboard.records.recipes import AugmentParams, NormaliseParams, ScheduleParams
from leaderboard.records.strict import JOIN, Name, Strict
from leaderboard.records.yaml_files import OnceLoader


class ModelParams(Strict):
    """A timm model: its name, its arguments, and the arguments that `slim` scales with the multiple each is rounded to.

    pretrained: dense is timm's reference weights instead of a run of the track's recipe. scratch, fine_tune: its own recipe in place of the track's.
    """

    timm: str
    args: dict[str, Any] = Field(default_factory=dict)
    narrow: dict[str, PositiveInt] = Field(default_factory=dict)
    pretrained: bool = False
    scratch: ScheduleParams | None = None
    fine_tune: ScheduleParams | None = None


class TrackParams(Strict):
    """A dataset with its models and recipes, and where and how long its points run."""

    dataset: str
    image_size: PositiveInt
    first: PositiveInt | None = None  # only so many images of each split, for a rehearsal
    calibration: PositiveInt
    normalise: NormaliseParams | None = None  # of train where not given
    augment: AugmentParams
    device: Literal["cpu", "cuda"]  # of training and compressing; latency has its own
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]  # a stochastic method runs every seed, any other the first
    seconds: PositiveFloat  # time limit of one point
    scratch: ScheduleParams
    fine_tune: ScheduleParams
    models: dict[Name, ModelParams]

    def scratch_of(self, model: str) -> ScheduleParams:
        """Return the recipe by which the model is trained from scratch."""
        return self.models[model].scratch or self.scratch

    def training_for(self, epochs: float | None) -> TrackParams:
        """Return the track with so many epochs from scratch, for each model; None leaves it as it is."""
        if epochs is None:
            return self
        models = {name: model.model_copy(update={"scratch": model.scratch.lasting(epochs)}) for name, model in self.models.items() if model.scratch}
        return self.model_copy(update={"scratch": self.scratch.lasting(epochs), "models": self.models | models})

    def fine_tune_of(self, model: str) -> ScheduleParams:
        """Return the recipe by which the model is fine-tuned."""
        return self.models[model].fine_tune or self.fine_tune


class RunParams(Strict):
    """How points are run; none of it decides a result."""

    workers: PositiveInt
    gibibytes: PositiveFloat


class Params(Strict):
    """The whole experiment."""

    version: Annotated[str, Field(pattern=r"^v[0-9]+(\.[0-9]+)?$")]
    run: RunParams
    tracks: dict[Name, TrackParams]
    methods: dict[Name, MethodPlans]
    chains: dict[Name, MethodPlans] = Field(default_factory=dict)  # first__second, see harness/point/chain.py
    hardware: dict[Name, HardwareParams] = Field(default_factory=dict)
    hardware_on_request: dict[Name, HardwareParams] = Field(default_factory=dict)

    @property
    def profiles(self) -> dict[str, HardwareParams]:
        """Return all hardware profiles, those first that `make repro` measures."""
        return self.hardware | self.hardware_on_request

    @property
    def plans(self) -> dict[str, MethodPlans]:
        """Return methods and chains: all that becomes rows, in the order in which they are run and shown."""
        return self.methods | self.chains

    @model_validator(mode="after")
    def _chains_are_named_after_their_methods(self) -> Self:
        for name in self.methods:
            if JOIN in name:
                raise ValueError(f"method {name} is the name of a chain: put it under `chains`")
        for name in self.chains:
            steps = name.split(JOIN)
            if len(steps) < 2 or len(set(steps)) < len(steps) or "" in steps:
                raise ValueError(f"chain {name} is not named after different methods: write first{JOIN}second")
        return self

    @model_validator(mode="after")
    def _plans_name_tracks_and_models(self) -> Self:
        for name, method in self.plans.items():
            for track, plan in method.tracks.items():
                if track not in self.tracks:
                    raise ValueError(str(unknown(f"track of method {name}", track, self.tracks)))
                strange = next((model for model in plan.models or [] if model not in self.tracks[track].models), None)
                if strange is not None:
                    raise ValueError(str(unknown(f"model of method {name} on {track}", strange, self.tracks[track].models)))
        return self

    def track(self, name: str) -> TrackParams:
        """Return the track, or raise UserError with the nearest name."""
        if name not in self.tracks:
            raise unknown("track", name, self.tracks)
        return self.tracks[name]

    def method(self, name: str) -> MethodPlans:
        """Return the settings of a method or chain, or raise UserError with the nearest name."""
        if name not in self.plans:
            raise unknown("method in params.yaml", name, self.plans)
        return self.plans[name]

    def track_of(self, track: str, method: str) -> TrackParams:
        """Return the track as the points of `method` run on it."""
        return self.track(track).training_for(self.method(method).on(track).scratch_epochs)

    def profile(self, name: str) -> HardwareParams:
        """Return the hardware profile, or raise UserError with the nearest name."""
        if name not in self.profiles:
            raise unknown("hardware", name, self.profiles)
        return self.profiles[name]


def load_params(path: Path) -> Params:
    """Read and validate params.yaml; raise UserError naming the key that is wrong."""
    try:
        content = yaml.load(path.read_text(), OnceLoader)
    except FileNotFoundError:
        raise UserError(f"{path} not found: run this in the folder that holds params.yaml") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path} does not validate: {describe(error)}") from None
