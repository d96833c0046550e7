"""The files of results as the harness writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeFloat

LARGEST = 2**63 - 1  # what arrays and tables can hold
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
DENSE = "dense"  # the method that every ratio refers to
# how `dense` of a model that was not trained here begins, now and formerly
FOREIGN = ("weights ", "reference weights ")
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# what is known of a point that was run elsewhere
Label = Literal["reproduced", "within tolerance", "self-reported", "contradicted"]
WEAKEST_FIRST: tuple[Label, ...] = (
    "contradicted",
    "self-reported",
    "within tolerance",
    "reproduced",
)


class Frozen(BaseModel):
    """A frozen mapping of finite numbers; keys it does not know are for other
    readers.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Stamp(Frozen):
    """What every file of results begins with."""

    version: str
    track: str


class Images(Frozen):
    """How many images each split holds."""

    train: Count
    validation: Count
    test: Positive
    calibration: Count


class Trained(Frozen):
    """A dense model, where it came from, and the epochs that a method may train what is
    made from it.
    """

    timm: str
    dense: str
    scratch_epochs: NonNegativeFloat
    fine_tune_epochs: NonNegativeFloat
    parameters: Positive
    validation_accuracy: float | None = None
    test_accuracy: float
    source_sha256: str = ""  # of the file that dense was loaded from, if it was
    weights_sha256: str = ""
    fingerprint: str = ""  # of all that decides it

    @property
    def from_reference(self) -> bool:
        """Say whether dense is somebody else's weights and not our training."""
        return self.dense.startswith(FOREIGN)

    @property
    def trains(self) -> bool:
        """Say whether a method may train what is made from it."""
        return bool(self.fine_tune_epochs or self.scratch_epochs)

    @property
    def budget(self) -> str:
        """Return the epochs that a method may train what is made from it."""
        if not self.trains:
            return "none, nothing is trained: methods that train are skipped"
        return f"{self.fine_tune_epochs:g} of fine-tuning, {self.scratch_epochs:g} from scratch"


class TrackInfo(Stamp):
    """track.json."""

    dataset: str
    title: str
    content_hash: str
    sources: dict[str, str]  # sha256 by name of the array that was loaded
    device: str  # where compressing ran
    seeds: tuple[int, ...]
    images: Images
    test_labels: tuple[Count, ...]
    notes: tuple[str, ...] = ()  # what was decided about the data, for captions
    models: dict[str, Trained]


class MethodInfo(Frozen):
    """Who a method is."""

    name: str
    family: str
    paper: str = ""
    needs: str
    realisation: str
    stochastic: bool = False
    scratch_epochs: NonNegativeFloat | None = None  # in place of the track's


class Work(Frozen):
    """What a method used, the same on every machine: images drawn, steps of an
    optimiser taken.
    """

    images: Count
    steps: Count


class RecordedPoint(Frozen):
    """One method on one model at one setting and seed."""

    id: str
    model: str
    setting: dict[str, JsonValue]
    seed: int
    fingerprint: str = ""  # of all that decides it


class Measured(RecordedPoint):
    """A point with all its numbers; `correct` of `images` test images."""

    status: Literal["ok"]
    reason: str | None = None
    accuracy: Annotated[float, Field(ge=0, le=1)]
    correct: Count
    images: Positive
    bytes: Positive
    parameters: Count
    macs: Count
    effective_macs: NonNegativeFloat
    bit_operations: NonNegativeFloat
    work: Work


class Unmeasured(RecordedPoint):
    """A point without numbers, and why."""

    status: Literal["skipped", "failed"]
    reason: str | None = None


AnyPoint = Annotated[Measured | Unmeasured, Field(discriminator="status")]


class Origin(Frozen):
    """Where results from elsewhere came from: the sha256 of the bundle, what is known
    of each measured point, and our dense weights at the time.
    """

    bundle: Sha256
    labels: dict[str, Label] = {}  # by the point's id
    dense: dict[str, str] = {}  # weights_sha256 by model


class MethodPoints(Stamp):
    """points/<method>.json."""

    content_hash: str
    method: MethodInfo
    points: tuple[AnyPoint, ...]
    origin: Origin | None = None  # of results that were not made here


class Maker(Frozen):
    """The machine on which points were made; `instructions`: the widest that its
    processor lent to torch, by which training takes other paths.
    """

    cpu: str
    cores: Positive
    instructions: str
    torch: str
    python: str
    system: str
    fingerprint: str


class Spent(Frozen):
    """What making and evaluating a point took: seconds of the method, of writing and of
    evaluating its artefact, and MiB of memory at the method's peak.
    """

    fingerprint: str  # of the point
    seconds: NonNegativeFloat
    peak_mib: NonNegativeFloat
    export: NonNegativeFloat
    evaluate: NonNegativeFloat

    @property
    def whole(self) -> float:
        """Return all its seconds."""
        return self.seconds + self.export + self.evaluate


class TrainedIn(Frozen):
    """What training a dense model took."""

    fingerprint: str  # of the dense model
    seconds: NonNegativeFloat


class CostsFile(Stamp):
    """costs/<fingerprint of the machine>.json: what no two runs share."""

    machine: Maker
    dense: dict[str, TrainedIn] = {}  # by model
    points: dict[str, dict[str, Spent]] = {}  # by method and id
    origin: Origin | None = None  # of what was not made here
