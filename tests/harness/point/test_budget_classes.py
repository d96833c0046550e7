"""What a budget class may use of a track: asking for more is refused, and a point's
fingerprint knows of that and of nothing else.
"""

from dataclasses import replace

import pytest
import torch

from harness.data import splits
from harness.point.method_data import CLASSES, MethodData
from harness.point.worker import Job, untrained
from harness.run import fingerprint, registry
from harness.run.points import Point
from leaderboard.records.errors import BrokenContract
from leaderboard.records.params import Params
from leaderboard.records.schema import Images, TrackInfo, Trained
from methods import Schedule

BRIEF = Schedule("adamw", "fp32", 0.1, 64, 0.003, 0.05, 0.15, 0.1)
ASKED = {  # what is asked for, the least class that may, how
    "image_shape": ("data-free", lambda data: data.image_shape),
    "generator": ("data-free", lambda data: data.generator("x")),
    "macs": ("data-free", lambda data: data.macs(torch.nn.Flatten())),
    "steps": ("data-free", lambda data: data.steps(BRIEF)),
    "calibration": ("calibration", lambda data: data.calibration),
    "train": ("labels", lambda data: data.train),
    "validation": ("labels", lambda data: data.validation),
    "fine_tune": ("fine-tune", lambda data: data.fine_tune),
    "batches": ("fine-tune", lambda data: next(data.batches(BRIEF))),
    "scratch": ("scratch", lambda data: data.scratch),
    "narrower": ("scratch", lambda data: data.narrower(0.5)),
}


@pytest.mark.parametrize("needs", CLASSES)
@pytest.mark.parametrize("what", ASKED)
def test_a_method_may_use_what_its_class_has_and_is_refused_the_rest(
    what, needs, track, data_folder
):
    least, ask = ASKED[what]
    data = MethodData(splits.Learn.read(data_folder, torch.device("cpu")), track, "mixer", 0, needs)
    if CLASSES.index(needs) >= CLASSES.index(least):
        assert ask(data) is not None
        return
    with pytest.raises(BrokenContract) as refused:
        ask(data)
    assert (
        str(refused.value)
        == f'the method says needs = "{needs}" and asks for data.{what}: say needs = "{least}"'
        and data.images_seen == 0
    )


def test_the_table_above_names_all_that_a_method_sees():
    public = {
        name
        for name in {*vars(MethodData), *MethodData.__annotations__, "image_shape"}
        if not name.startswith("_")
    }
    assert public - {"images_seen"} == set(ASKED)


ALL, TRAINS, SCRATCH = (
    frozenset(CLASSES),
    frozenset({"fine-tune", "scratch"}),
    frozenset({"scratch"}),
)
LONGER = {"epochs": 77}
CHANGED = [  # where in params, what is put there, of which classes it changes the points
    ("tracks/digits/scratch", LONGER, SCRATCH),
    ("tracks/digits/models/vit/scratch", LONGER, SCRATCH),
    ("tracks/digits/models/vit/narrow", {"embed_dim": 7}, SCRATCH),
    ("tracks/digits/methods/{method}", {"scratch_epochs": 77.0}, SCRATCH),
    ("tracks/digits/fine_tune", LONGER, TRAINS),
    ("tracks/digits/models/vit/fine_tune", LONGER, TRAINS),
    ("tracks/digits/augment", {"degrees": 3}, TRAINS),
    ("tracks/digits", {"device": "cuda"}, ALL),
    ("tracks/digits", {"image_size": 8}, ALL),
    ("tracks/digits/models/vit", {"crop": 0.5}, ALL),
    ("tracks/digits/models/mixer", {"crop": 0.5}, frozenset()),
    ("tracks/digits/models/vit", {"timm": "mixer_small"}, ALL),
    ("tracks/digits/models/vit/args", {"num_heads": 1}, ALL),
    ("", {"version": "v99"}, ALL),
    ("tracks/digits/models/mixer/scratch", LONGER, frozenset()),  # another model's
    ("tracks/digits/models/mixer/args", {"num_blocks": 1}, frozenset()),
    # what dense is lies in its weights
    ("tracks/digits/models/vit", {"weights": "timm"}, frozenset()),
    ("tracks/digits", {"seconds": 7.0}, frozenset()),
    ("tracks/digits", {"seeds": [0, 77]}, frozenset()),
    ("tracks/digits", {"calibration": 7}, frozenset()),  # what the data are lies in their hash
    ("run", {"workers": 7, "gibibytes": 7.0}, frozenset()),
]


def of_class(needs):
    """Return a method of ours of that budget class."""
    return next(name for name in registry.names() if registry.load(name).needs == needs)


def about(weights="w", content="c"):
    """Return what the train stage might have written."""
    trained = Trained(
        timm="x",
        dense="own recipe",
        scratch_epochs=1,
        fine_tune_epochs=1,
        parameters=1,
        test_accuracy=1,
        weights_sha256=weights,
    )
    named = {
        "version": "v1",
        "track": "digits",
        "dataset": "digits",
        "title": "",
        "sources": {},
        "device": "cpu",
        "seeds": (0,),
        "test_labels": (),
    }
    return TrackInfo(
        **named,
        content_hash=content,
        images=Images(train=1, validation=1, test=1, calibration=1),
        models={"vit": trained},
    )


def changed(params, place, content, method):
    """Return the experiment with `content` put into the mapping at `place`; a model's
    recipe that is not there is that of its track.
    """
    whole = params.model_dump()
    keys, inner = [key.format(method=method) for key in place.split("/") if key], whole
    for key in keys:
        if inner.get(key) is None:
            inner[key] = (
                dict(whole["tracks"]["digits"][key]) if key in ("scratch", "fine_tune") else {}
            )
        inner = inner[key]
    inner |= content
    return Params.model_validate(whole)


@pytest.mark.parametrize("needs", CLASSES)
@pytest.mark.parametrize(
    ("place", "content", "classes"),
    CHANGED,
    ids=[f"{place or 'top'} {content}" for place, content, _ in CHANGED],
)
def test_a_part_of_the_recipe_decides_the_points_of_the_classes_that_use_it_and_no_others(
    params, place, content, classes, needs
):
    point = Point("digits", of_class(needs), "vit", {}, 0)
    other = changed(params, place, content, point.method)
    assert other != params, "else this tests nothing"
    before, after = (
        fingerprint.point_fingerprint(each, point, about()) for each in (params, other)
    )
    assert (before != after) == (needs in classes)


@pytest.mark.parametrize("needs", CLASSES)
def test_setting_seed_dense_weights_and_data_decide_every_point(params, needs):
    method = of_class(needs)
    points = [
        Point("digits", method, "vit", {}, 0),
        Point("digits", method, "vit", {"x": 1}, 0),
        Point("digits", method, "vit", {}, 1),
    ]
    found = [fingerprint.point_fingerprint(params, point, about()) for point in points]
    found += [
        fingerprint.point_fingerprint(params, points[0], one)
        for one in (about(weights="other"), about(content="other"))
    ]
    assert len(set(found)) == 5


def test_methods_that_train_are_skipped_where_the_track_has_no_epochs_for_them(track, tmp_path):
    nothing = track.fine_tune.model_copy(update={"epochs": 0})
    still = track.model_copy(update={"fine_tune": nothing})
    job = Job(still, "m", "vit", {}, 0, tmp_path, tmp_path, tmp_path, 2.0)
    assert untrained(job, "fine-tune") == "the track trains nothing (fine-tune)"
    assert all(
        untrained(job, needs) is None for needs in ("data-free", "calibration", "labels", "scratch")
    )
    assert untrained(replace(job, track=track), "fine-tune") is None
