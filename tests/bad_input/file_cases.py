"""Damaged records, predictions, latency, tables, artefacts, checkpoints and data."""

import numpy as np
from safetensors.numpy import save

from tests.bad_input.edits import (
    DROP,
    LAUGHS,
    Case,
    cut,
    field,
    folder,
    gone,
    header,
    params,
    raw,
    replaced,
    text,
)

RECORDS = "results/v1/digits"
TRACK, RTN, PREDICTIONS, LATENCY = (
    f"{RECORDS}/track.json",
    f"{RECORDS}/points/rtn.json",
    f"{RECORDS}/predictions/rtn.safetensors",
    f"{RECORDS}/latency/cpu/f00d.json",
)
COSTS = f"{RECORDS}/costs/f00d.json"
DENSE, TABLE = f"{RECORDS}/points/dense.json", "results/v1/digits/tables/cpu.csv"
POINT = "artefacts/digits/points/rtn/mixer_bits=4_seed=0"
WEIGHTS, PROGRAM = f"{POINT}/weights.safetensors", f"{POINT}/program.pt2"
TEST = "artefacts/digits/data/8x8-bilinear-1-center-train/test.safetensors"
ID = "mixer_bits=4_seed=0"
FIRST = ("points", 0)
RUN = ("benchmarks", 0)
BUILD, SHOW, RESULTS, COMPRESS = "tables", "show", "check results", "compress digits rtn"
EXPORT = f"export digits rtn {ID}"
DEEP = "[" * 100_000

READ = [  # of the leaderboard: what is damaged, how, what the line says
    ("track.json is gone", gone(TRACK), "holds no <track>/track.json"),
    ("track.json is a folder", folder(TRACK), "cannot read"),
    ("track.json is cut", cut(TRACK, 0.5), "track.json is not valid JSON"),
    ("track.json is empty", text(TRACK, ""), "track.json is not valid JSON"),
    ("track.json is a list", text(TRACK, "[]"), "track.json is not a file of results"),
    ("track.json nests too deep", text(TRACK, DEEP), "track.json is not valid JSON"),
    ("track.json is not UTF-8", raw(TRACK, b'{"version": "\xff"}'), "track.json is not valid JSON"),
    ("track.json without models", field(TRACK, "models", DROP), "models: Field required"),
    ("track.json with a label fewer", field(TRACK, "test_labels", [1]), "test labels"),
    (
        "track.json with a negative label",
        field(TRACK, "test_labels", 0, -1),
        "test_labels.0: Input should be greater",
    ),
    ("track.json of another version", field(TRACK, "version", "v7"), "versions are never mixed"),
    ("track.json of another track", field(TRACK, "track", "cifar10"), "track 'cifar10'"),
    (
        "track.json with a model of no parameters",
        field(TRACK, "models", "mixer", "parameters", 0),
        "models.mixer.parameters",
    ),
    (
        "track.json with an infinite accuracy",
        replaced(TRACK, b'"test_accuracy": 0', b'"test_accuracy": Infinity, "x": 0'),
        "test_accuracy",
    ),
    ("records are cut", cut(RTN, 0.9), "rtn.json is not valid JSON"),
    ("records are binary", raw(RTN, bytes(range(256))), "rtn.json is not valid JSON"),
    ("records of other data", field(RTN, "content_hash", "x"), "contents are never mixed"),
    ("records of another method", field(RTN, "method", "name", "gptq"), "holds the method 'gptq'"),
    ("records without a method", field(RTN, "method", DROP), "method: Field required"),
    (
        "records whose points are a mapping",
        field(RTN, "points", {}),
        "points: Input should be a valid",
    ),
    ("a record of an unknown status", field(RTN, *FIRST, "status", "fine"), "points.0"),
    ("a record without a status", field(RTN, *FIRST, "status", DROP), "points.0"),
    (
        "a record without bytes",
        field(RTN, *FIRST, "bytes", DROP),
        "points.0.ok.bytes: Field required",
    ),
    (
        "a record of no bytes",
        field(RTN, *FIRST, "bytes", 0),
        "points.0.ok.bytes: Input should be greater than or equal to 1",
    ),
    (
        "a record of negative MACs",
        field(RTN, *FIRST, "macs", -1),
        "points.0.ok.macs: Input should be greater",
    ),
    (
        "a record of an accuracy above one",
        field(RTN, *FIRST, "accuracy", 1.5),
        "points.0.ok.accuracy: Input should be less",
    ),
    (
        "a record of a NaN",
        field(RTN, *FIRST, "effective_macs", float("nan")),
        "points.0.ok.effective_macs",
    ),
    ("a record of a huge number", field(RTN, *FIRST, "macs", 10**400), "points.0.ok.macs"),
    (
        "a record of more hits than images",
        field(RTN, *FIRST, "correct", 10**6),
        "says 1000000 correct",
    ),
    ("a record of other images", field(RTN, *FIRST, "images", 31), "test images"),
    ("a record twice", field(RTN, "points", 1, "id", ID), "twice"),
    (
        "a record with lines in its id",
        field(RTN, *FIRST, "id", "a\nb"),
        "lacks the predictions of point 'a b'",
    ),
    ("a record whose setting is a list", field(RTN, *FIRST, "setting", [4]), "points.0.ok.setting"),
    ("a record whose work is a number", field(RTN, *FIRST, "work", 1), "points.0.ok.work"),
    (
        "a record of half an image drawn",
        field(RTN, *FIRST, "work", "images", 0.5),
        "points.0.ok.work.images",
    ),
    ("dense is gone", gone(DENSE), "no measured point of 'dense'"),
    ("dense failed", field(DENSE, *FIRST, "status", "failed"), "no measured point of 'dense'"),
    ("predictions are gone", gone(PREDICTIONS), "rtn.safetensors cannot be read"),
    ("predictions are cut", cut(PREDICTIONS, 0.9), "rtn.safetensors cannot be read"),
    ("predictions are empty", raw(PREDICTIONS, b""), "rtn.safetensors cannot be read"),
    (
        "predictions whose header is larger than memory",
        header(PREDICTIONS, 2**62),
        "rtn.safetensors cannot be read",
    ),
    (
        "predictions whose header is larger than they are",
        header(PREDICTIONS, 10**6),
        "rtn.safetensors cannot be read",
    ),
    (
        "predictions of other points",
        raw(PREDICTIONS, save({"x": np.zeros(32, np.uint16)})),
        "lacks the predictions of point",
    ),
    (
        "predictions of a type that NumPy lacks",
        replaced(PREDICTIONS, b'"U16"', b'"Q16"'),
        "rtn.safetensors cannot be read",
    ),
    (
        "predictions in two dimensions",
        raw(PREDICTIONS, save({ID: np.zeros((2, 16), np.uint16)})),
        "has predictions (2, 16)",
    ),
    (
        "predictions without their ranks",
        replaced(PREDICTIONS, b"|rank", b"|runk"),
        "lacks the rank of the predictions of point",
    ),
    ("costs are cut", cut(COSTS, 0.7), "f00d.json is not valid JSON"),
    ("costs are a list", text(COSTS, "[]"), "f00d.json is not a file of results"),
    ("costs of another version", field(COSTS, "version", "v7"), "versions are never mixed"),
    ("costs of another track", field(COSTS, "track", "cifar10"), "track 'cifar10'"),
    ("costs without a machine", field(COSTS, "machine", DROP), "machine: Field required"),
    (
        "costs of negative seconds",
        field(COSTS, "points", "rtn", ID, "seconds", -1),
        f"points.rtn.{ID}.seconds: Input should be greater",
    ),
    (
        "costs of infinite memory",
        field(COSTS, "points", "rtn", ID, "peak_mib", float("inf")),
        f"points.rtn.{ID}.peak_mib",
    ),
    ("costs that are a folder", folder(COSTS), "cannot read"),
    (
        "predictions that are no safetensors",
        raw(PREDICTIONS, b"\x80\x04." * 40),
        "rtn.safetensors cannot be read",
    ),
    ("latency is cut", cut(LATENCY, 0.7), "f00d.json is not valid JSON"),
    ("latency is a number", text(LATENCY, "7"), "f00d.json is not a file of results"),
    (
        "latency without a machine",
        field(LATENCY, "machine_info", {}),
        "machine_info.shrinkmark: Field required",
    ),
    ("latency of no rounds", field(LATENCY, *RUN, "stats", "data", []), "benchmarks.0.stats.data"),
    (
        "latency of negative seconds",
        field(LATENCY, *RUN, "stats", "data", 0, -1.0),
        "benchmarks.0.stats.data.0: Input should be greater than 0",
    ),
    (
        "latency of zero seconds of dense",
        field(LATENCY, *RUN, "extra_info", "dense", 0, 0),
        "benchmarks.0.extra_info.dense.0",
    ),
    (
        "latency of infinite seconds",
        field(LATENCY, *RUN, "stats", "data", 0, float("inf")),
        "benchmarks.0.stats.data.0",
    ),
    (
        "latency that is not interleaved",
        field(LATENCY, *RUN, "extra_info", "dense", [0.001]),
        "5 rounds and 1 of dense",
    ),
    (
        "latency of batch zero",
        field(LATENCY, *RUN, "extra_info", "batch", 0),
        "benchmarks.0.extra_info.batch",
    ),
    (
        "latency without an A/A control",
        field(LATENCY, "benchmarks", 0, DROP),
        "no A/A control at batch 1",
    ),
    (
        "latency that agrees on no image",
        field(LATENCY, *RUN, "extra_info", "agreement", {"same": 0, "images": 0}),
        "agreement.images",
    ),
    (
        "latency in place of another that is not named",
        field(LATENCY, "same_program", [{"method": "rtn", "id": "x"}]),
        "same_program.0.timed: Field required",
    ),
    ("latency that is a folder", folder(LATENCY), "cannot read"),
    ("params.yaml is a folder", folder("params.yaml"), "params.yaml"),
    (
        "params.yaml has a list of tracks",
        params("tracks", ["digits"]),
        "params.yaml does not validate: tracks",
    ),
    (
        "params.yaml is a billion laughs",
        text(
            "params.yaml", f"{LAUGHS}version: v1\nrun: {{workers: 1, gibibytes: 4}}\ntracks: *h\n"
        ),
        "params.yaml does not validate: tracks",
    ),
    (
        "params.yaml has no version",
        params("version", DROP),
        "params.yaml does not validate: version",
    ),
    ("the page has no markers", text("docs/results.md", "# Tiny\n"), "lacks the lines"),
    ("the page is not UTF-8", raw("docs/results.md", b"\xff"), "results.md"),
    ("the page is a folder", folder("docs/results.md"), "results.md"),
]
SHOWN = [
    ("the table is empty", text(TABLE, ""), "is not a table of this leaderboard"),
    (
        "the table lacks columns",
        text(TABLE, "model,method\nmixer,rtn\n"),
        "is not a table of this leaderboard",
    ),
    ("the table is cut in a row", cut(TABLE, 0.97), "shrinkmark tables"),
    (
        "the table has words for numbers",
        replaced(TABLE, b",32,", b",many,"),
        "where a number belongs",
    ),
    ("the table is not UTF-8", raw(TABLE, b"\xff\xfe"), "cpu.csv"),
    ("the table is a folder", folder(TABLE), "cpu.csv"),
    ("the table is gone", gone(TABLE), "holds no tables"),
]
CHECKED = [
    ("track.json is cut", cut(TRACK, 0.5), "track.json is not valid JSON"),
    ("track.json is a list", text(TRACK, "[]"), "track.json is not a file of results"),
    ("track.json is a folder", folder(TRACK), "track.json"),
    ("track.json nests too deep", text(TRACK, DEEP), "track.json is not valid JSON"),
    (
        "track.json without models",
        field(TRACK, "models", DROP),
        "track.json is not a file of results: models: Field required",
    ),
    ("records are gone", gone(RTN), "rtn.json: No such file"),
    ("records are a list", text(RTN, "[]"), "rtn.json is not a file of results"),
    ("records without points", field(RTN, "points", DROP), "points: Field required"),
    (
        "a record without its fingerprint",
        field(RTN, *FIRST, "fingerprint", DROP),
        "1 points were not made by this code and params",
    ),
    (
        "a record of other code",
        field(RTN, *FIRST, "fingerprint", "x"),
        "1 points were not made by this code and params",
    ),
    (
        "a record of more hits",
        field(RTN, *FIRST, "correct", 33),
        "differs from its stored predictions",
    ),
    (
        "records of another version",
        field(RTN, "version", "v7"),
        "results are of version v7, params.yaml says v1",
    ),
    (
        "records of no method",
        text(f"{RECORDS}/points/gptq.json", "{}"),
        "gptq.json belongs to no method of params.yaml",
    ),
    (
        "records of no track",
        text("results/v1/digit/track.json", "{}"),
        "digit: no track of params.yaml",
    ),
    ("predictions are cut", cut(PREDICTIONS, 0.9), "digits rtn: predictions "),
    ("latency is gone", gone(LATENCY), "no latency of hardware 'cpu'"),
]
STAGES = [
    (
        COMPRESS,
        "track.json is gone",
        gone(TRACK),
        "track.json: No such file or directory; run `dvc repro`",
    ),
    (COMPRESS, "track.json is cut", cut(TRACK, 0.5), "track.json is not valid JSON"),
    (COMPRESS, "track.json is a list", text(TRACK, "[]"), "track.json is not a file of results"),
    (COMPRESS, "track.json is a folder", folder(TRACK), "track.json"),
    (
        COMPRESS,
        "track.json of another version",
        field(TRACK, "version", "v7"),
        "version v7, params.yaml says v1",
    ),
    (
        COMPRESS,
        "track.json without a hash of its data",
        field(TRACK, "content_hash", DROP),
        "track.json",
    ),
    (COMPRESS, "track.json without the model", field(TRACK, "models", {}), "mixer"),
    (COMPRESS, "costs are cut", cut(COSTS, 0.7), "f00d.json is not valid JSON"),
    (
        COMPRESS,
        "costs of negative seconds",
        field(COSTS, "points", "rtn", ID, "seconds", -1),
        f"points.rtn.{ID}.seconds: Input should be greater",
    ),
    ("measure digits cpu", "records are gone", gone(RTN), "rtn.json: No such file"),
    (
        "measure digits cpu",
        "records without points",
        field(RTN, "points", DROP),
        "rtn.json is not a file of results: points",
    ),
    ("measure digits cpu", "the test split is cut", cut(TEST, 0.5), "test.safetensors"),
    (
        "measure digits cpu",
        "the test split is gone",
        gone(TEST),
        "test.safetensors cannot be read (No such file",
    ),
    ("measure digits cpu", "a program is cut", cut(PROGRAM, 0.5), "artefact"),
    (EXPORT, "the program is gone", gone(PROGRAM), "delete"),
    (EXPORT, "the program is cut", cut(PROGRAM, 0.5), "cannot be read"),
    (EXPORT, "the program is no zip", raw(PROGRAM, b"program"), "cannot be read"),
    (EXPORT, "the program is a folder", folder(PROGRAM), "cannot be read"),
    (
        EXPORT,
        "the program runs code when it is read",
        replaced(PROGRAM, b"Symbol('s77',", b"print('s77') "),
        "cannot be read",
    ),
    (EXPORT, "the weights are gone", gone(WEIGHTS), "cannot be read"),
    (
        EXPORT,
        "the weights are cut",
        cut(WEIGHTS, 0.9),
        "not a weights file of shrinkmark, or damaged",
    ),
    (
        EXPORT,
        "the weights are foreign",
        raw(WEIGHTS, save({"x": np.zeros(3, np.float32)})),
        "not a weights file of shrinkmark",
    ),
    (
        EXPORT,
        "the weights' header is larger than memory",
        header(WEIGHTS, 2**62),
        "not a weights file of shrinkmark",
    ),
    (
        EXPORT,
        "the weights claim another type",
        replaced(WEIGHTS, b'"dtype":"F16"', b'"dtype":"I16"'),
        "artefact",
    ),
    (
        EXPORT,
        "a bias claims another type",
        replaced(WEIGHTS, b'"dtype":"F32"', b'"dtype":"I32"'),
        "artefact",
    ),
    (EXPORT, "the test split is cut", cut(TEST, 0.5), "test.safetensors cannot be read"),
    (
        EXPORT,
        "the test split lacks its images",
        replaced(TEST, b'"images"', b'"imagos"'),
        "test.safetensors cannot be read (KeyError 'images')",
    ),
    (
        "new scale",
        "params.yaml has its methods on one line",
        replaced("params.yaml", b"methods:\n", b"methods: # all\n"),
        "has no line 'methods:'",
    ),
]
CASES = [Case(f"{name}, build", damage, BUILD, said) for name, damage, said in READ]
CASES += [Case(f"{name}, show", damage, SHOW, said) for name, damage, said in SHOWN]
CASES += [Case(f"{name}, check", damage, RESULTS, said) for name, damage, said in CHECKED]
CASES += [
    Case(f"{name}, {command.split()[1]}", damage, command, said)
    for command, name, damage, said in STAGES
]
