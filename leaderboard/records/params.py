"""params.yaml as typed, validated values."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, model_validator

from leaderboard.records.errors import UserError, unknown
from leaderboard.records.hardware_profiles import HardwareParams
from leaderboard.records.method_settings import MethodPlan, Plan, TrackPlan
from leaderboard.records.params_base import JOIN, Name, Strict
from leaderboard.records.recipes import AugmentParams, ScheduleParams, TransformParams
from leaderboard.records.schema import DENSE
from leaderboard.records.yaml_loader import read_yaml, validated

# what `weights` of a model says unless it names a file
RECIPE, TIMM, HUB = "recipe", "timm", "hf-hub:"
Version = Annotated[str, Field(pattern=r"^v[0-9]+(\.[0-9]+)?$")]


class ModelParams(TransformParams):
    """A timm model: its name, its arguments, and the arguments that `slim` scales with
    the multiple each is rounded to.

    weights: where dense comes from: a run of the track's `recipe`, `timm`'s own tag,
    `hf-hub:owner/name`, or a file, absolute or from the data folder on. sha256: the
    first digits of what is loaded. scratch, fine_tune, and how its images are made: its
    own in place of the track's.
    """

    timm: str
    args: dict[str, Any] = Field(default_factory=dict)
    narrow: dict[str, PositiveInt] = Field(default_factory=dict)
    weights: Annotated[str, Field(min_length=1)] = RECIPE
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{8,64})?$")] = ""
    scratch: ScheduleParams | None = None
    fine_tune: ScheduleParams | None = None

    @property
    def trained(self) -> bool:
        """Say whether the track's recipe trains dense."""
        return self.weights == RECIPE

    @property
    def fetched(self) -> bool:
        """Say whether the weights come from a network where they are not here yet."""
        return self.weights == TIMM or self.weights.startswith(HUB)

    @model_validator(mode="before")
    @classmethod
    def _pretrained_is_called_weights(cls, content: Any) -> Any:
        if isinstance(content, dict) and "pretrained" in content:
            raise ValueError("there is no `pretrained`: did you mean `weights: timm`?")
        return content

    @model_validator(mode="after")
    def _a_recipe_has_no_file(self) -> Self:
        if self.sha256 and self.trained:
            raise ValueError("`sha256` pins a file of weights: name it by `weights`")
        return self


class TrackParams(TransformParams):
    """A dataset with its models and recipes, and where and how long its points run; a
    recipe without epochs means that nothing is trained.
    """

    dataset: str
    data: dict[str, Any] = Field(default_factory=dict)  # what the dataset is told
    first: PositiveInt | None = None  # only so many images of each split, for a rehearsal
    calibration: PositiveInt
    augment: AugmentParams
    device: Literal["cpu", "cuda"]  # of training and compressing; latency has its own
    # a stochastic method runs every seed, any other the first
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    seconds: PositiveFloat  # time limit of one point
    scratch: ScheduleParams
    fine_tune: ScheduleParams
    models: dict[Name, ModelParams]
    # files (my_models.py) and functions (package.module:function) that tell timm of models
    imports: list[str] = Field(default_factory=list)
    # the models of a method that names none: by default all, as dense always runs
    methods_on: list[Name] | None = None
    # what it runs otherwise than params.yaml says, methods and chains
    methods: dict[Name, TrackPlan] = Field(default_factory=dict)

    def scratch_of(self, model: str) -> ScheduleParams:
        """Return the recipe by which the model is trained from scratch."""
        return self.models[model].scratch or self.scratch

    def training_for(self, epochs: float | None) -> TrackParams:
        """Return the track with so many epochs from scratch, for each model; None
        leaves it as it is.
        """
        if epochs is None:
            return self
        models = {
            name: model.model_copy(update={"scratch": model.scratch.lasting(epochs)})
            for name, model in self.models.items()
            if model.scratch
        }
        return self.model_copy(
            update={"scratch": self.scratch.lasting(epochs), "models": self.models | models}
        )

    def fine_tune_of(self, model: str) -> ScheduleParams:
        """Return the recipe by which the model is fine-tuned."""
        return self.models[model].fine_tune or self.fine_tune


class RunParams(Strict):
    """How points are run; none of it decides a result."""

    workers: PositiveInt
    gibibytes: PositiveFloat


class Params(Strict):
    """The whole experiment.

    shown_first: the tracks whose results are shown before those of the others. One that
    there is not is passed over, since a bundle carries one track alone; `shrinkmark
    check params` refuses it.
    """

    version: Version
    shown_first: list[Name] = Field(default_factory=list)
    run: RunParams
    tracks: dict[Name, TrackParams]
    methods: dict[Name, MethodPlan]
    # first__second, see harness/point/chain.py
    chains: dict[Name, MethodPlan] = Field(default_factory=dict)
    # what `shrinkmark try` runs where no method is named
    trial: dict[Name, MethodPlan] = Field(default_factory=dict)
    hardware: dict[Name, HardwareParams] = Field(default_factory=dict)
    hardware_on_request: dict[Name, HardwareParams] = Field(default_factory=dict)

    @property
    def shown(self) -> list[str]:
        """Return all tracks in the order in which their results are shown."""
        first = [name for name in self.shown_first if name in self.tracks]
        return list(dict.fromkeys([*first, *self.tracks]))

    @property
    def profiles(self) -> dict[str, HardwareParams]:
        """Return all hardware profiles, those first that `make repro` measures."""
        return self.hardware | self.hardware_on_request

    @property
    def plans(self) -> dict[str, MethodPlan]:
        """Return methods and chains: all that becomes rows, in the order in which they
        are run and shown.
        """
        return self.methods | self.chains

    @model_validator(mode="after")
    def _chains_are_named_after_their_methods(self) -> Self:
        for name in self.methods:
            if JOIN in name:
                raise ValueError(f"method {name} is the name of a chain: put it under `chains`")
        for name in self.chains:
            steps = name.split(JOIN)
            if len(steps) < 2 or len(set(steps)) < len(steps) or "" in steps:
                raise ValueError(
                    f"chain {name} is not named after different methods: write first{JOIN}second"
                )
        return self

    @model_validator(mode="after")
    def _tracks_name_methods_and_models(self) -> Self:
        for name, track in self.tracks.items():
            for method, plan in track.methods.items():
                if method not in self.plans:
                    raise ValueError(str(unknown(f"method of track {name}", method, self.plans)))
                _known(f"model of method {method} on {name}", plan.models or [], track.models)
            _known(f"model of methods_on of track {name}", track.methods_on or [], track.models)
        return self

    def track(self, name: str) -> TrackParams:
        """Return the track, or raise UserError with the nearest name."""
        if name not in self.tracks:
            raise unknown("track", name, self.tracks)
        return self.tracks[name]

    def method(self, name: str) -> MethodPlan:
        """Return the settings of a method or chain, or raise UserError with the nearest
        name.
        """
        if name not in self.plans:
            raise unknown("method in params.yaml", name, self.plans)
        return self.plans[name]

    def plan(self, track: str, method: str) -> Plan:
        """Return what `track` runs of a method or chain; raise UserError with the
        nearest name.
        """
        about = self.track(track)
        plan = self.method(method).on(about.methods.get(method, TrackPlan()))
        if plan.models is None and method != DENSE:
            plan = plan.model_copy(update={"models": about.methods_on})
        return plan

    def track_of(self, track: str, method: str) -> TrackParams:
        """Return the track as the points of `method` run on it."""
        return self.track(track).training_for(self.plan(track, method).scratch_epochs)

    def profile(self, name: str) -> HardwareParams:
        """Return the hardware profile, or raise UserError with the nearest name."""
        if name not in self.profiles:
            raise unknown("hardware", name, self.profiles)
        return self.profiles[name]


def _known(kind: str, names: Sequence[str], models: Collection[str]) -> None:
    for name in names:
        if name not in models:
            raise ValueError(str(unknown(kind, name, models)))


def load_params(path: Path) -> Params:
    """Read and validate params.yaml and the files tracks/<name>/track.yaml beside it;
    raise UserError naming the file and the key that is wrong.
    """
    content = read_yaml(path)
    if isinstance(content, dict) and isinstance(content.get("tracks"), dict):
        content = {**content, "tracks": _with_files(path, content["tracks"])}
    return validated(path, Params, content)


def _with_files(path: Path, tracks: dict[str, Any]) -> dict[str, Any]:
    """Return the tracks of params.yaml and those of files, each put upon its base."""
    files = {
        file.parent.name: file for file in sorted((path.parent / "tracks").glob("*/track.yaml"))
    }
    own = {name: read_yaml(file) for name, file in files.items()}
    for name, file in files.items():
        if name in tracks:
            raise UserError(f"{file}: track '{name}' stands in {path.name} too: keep one")
        if not isinstance(own[name], dict):
            raise UserError(
                f"{file} does not validate: the top level: a mapping is wanted, found "
                f"{own[name]!r:.60}"
            )
    found = {
        name: content if name not in files else _upon_base(name, own, tracks, files)
        for name, content in {**tracks, **own}.items()
    }
    for name, file in files.items():
        validated(file, TrackParams, found[name])
    return found


def _upon_base(
    name: str, own: dict[str, Any], tracks: dict[str, Any], files: dict[str, Path]
) -> dict[str, Any]:
    """Return a track of a file with what it lacks from its base, which may have one
    itself; a key that it has replaces the base's whole.
    """
    chain = [name]
    while (base := own.get(chain[-1], {}).get("base")) is not None:
        if not isinstance(base, str) or base not in {**tracks, **own}:
            raise UserError(
                f"{files[chain[-1]]}: base: {unknown('track', str(base), {**tracks, **own})}"
            )
        if base in chain:
            raise UserError(
                f"{files[name]}: base: {' → '.join([*chain, base])} is a circle: name a track "
                "that stands for itself"
            )
        chain.append(base)
    merged: dict[str, Any] = {}
    for track in reversed(chain):
        merged |= {**tracks, **own}[track]
    return {key: value for key, value in merged.items() if key != "base"}


def read_version(path: Path) -> str:
    """Return the version that a params.yaml of any form names, such as that of another
    revision.
    """
    return validated(path, _Version, read_yaml(path)).version


class _Version(BaseModel):
    version: Version
