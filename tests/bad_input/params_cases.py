"""Bad params.yaml: every kind of value that `shrinkmark check params` must refuse by
naming its key.
"""

import yaml

from benchmarks.testbed.tiny_project import PARAMS
from tests.bad_input.edits import DROP, LAUGHS, Case, folder, params, raw, text

CHECK = "check params"
TIMING = ["measure digits cpu", "hardware"]
TRACK, MIXER, CPU = "tracks/digits", "tracks/digits/models/mixer", "hardware/cpu"
VALUES = [  # keys joined by /, the value put there, what the line names
    ("version", 1, "version: Input should be a valid string"),
    ("version", "v1-rc", "version: String should match pattern"),
    ("version", "../../v1", "version: String should match pattern"),
    ("version", DROP, "version: Field required"),
    ("seed", 3, "seed: Extra inputs are not permitted"),
    ("run", DROP, "run: Field required"),
    ("run", "fast", "run: Input should be"),
    ("run/workers", 0, "run.workers: Input should be greater than 0"),
    ("run/workers", 1.5, "run.workers: Input should be a valid integer"),
    ("run/workers", None, "run.workers: Input should be a valid integer"),
    ("run/gibibytes", -1, "run.gibibytes: Input should be greater than 0"),
    ("run/threads", 2, "run.threads: Extra inputs"),
    ("tracks", [], "tracks: Input should be a valid dictionary"),
    ("tracks", None, "tracks: Input should be a valid dictionary"),
    ("tracks/di-gits", PARAMS["tracks"]["digits"], "names are lower-case letters"),
    ("tracks/..", PARAMS["tracks"]["digits"], "names are lower-case letters"),
    (f"{TRACK}/dataset", DROP, "tracks.digits.dataset: Field required"),
    (f"{TRACK}/dataset", ["digits"], "tracks.digits.dataset: Input should be a valid string"),
    (f"{TRACK}/device", "gpu", "tracks.digits.device: Input should be 'cpu' or 'cuda'"),
    (f"{TRACK}/seeds", [], "tracks.digits.seeds: List should have at least 1 item"),
    (f"{TRACK}/seeds", [-1], "tracks.digits.seeds.0: Input should be greater than or equal to 0"),
    (f"{TRACK}/seeds", 0, "tracks.digits.seeds: Input should be a valid list"),
    (f"{TRACK}/seeds", ["zero"], "tracks.digits.seeds.0: Input should be a valid integer"),
    (f"{TRACK}/seconds", 0, "tracks.digits.seconds: Input should be greater than 0"),
    (f"{TRACK}/image_size", 8.5, "tracks.digits.image_size.one: Input should be a valid integer"),
    (f"{TRACK}/first", 0, "tracks.digits.first: Input should be greater than 0"),
    (f"{TRACK}/calibration", "all", "tracks.digits.calibration: Input should be a valid integer"),
    (
        f"{TRACK}/normalise",
        {"mean": [], "std": []},
        "tracks.digits.normalise.several.mean: List should have at least 1 item",
    ),
    (f"{TRACK}/normalise", {"mean": [0.5]}, "tracks.digits.normalise.several.std: Field required"),
    (
        f"{TRACK}/normalise",
        {"mean": [0.5], "std": [0]},
        "tracks.digits.normalise.several.std.0: Input should be greater than 0",
    ),
    (f"{TRACK}/augment", None, "tracks.digits.augment: Input should be"),
    (
        f"{TRACK}/augment",
        {"degrees": 181},
        "tracks.digits.augment.degrees: Input should be less than or equal to 180",
    ),
    (
        f"{TRACK}/augment",
        {"crop": -1},
        "tracks.digits.augment.crop: Input should be greater than or equal to 0",
    ),
    (f"{TRACK}/augment", {"rotate": 3}, "tracks.digits.augment.rotate: Extra inputs"),
    (
        f"{TRACK}/scratch/optimiser",
        "adam",
        "tracks.digits.scratch.optimiser: Input should be 'adamw' or 'sgd'",
    ),
    (
        f"{TRACK}/scratch/precision",
        "fp16",
        "tracks.digits.scratch.precision: Input should be 'fp32' or 'bf16'",
    ),
    (
        f"{TRACK}/scratch/epochs",
        -1,
        "tracks.digits.scratch.epochs: Input should be greater than or equal to 0",
    ),
    (
        f"{TRACK}/scratch/epochs",
        "1e",
        "tracks.digits.scratch.epochs: Input should be a valid number",
    ),
    (f"{TRACK}/scratch/epochs", float("inf"), "tracks.digits.scratch.epochs"),
    (f"{TRACK}/scratch/learning_rate", float("nan"), "tracks.digits.scratch.learning_rate"),
    (f"{TRACK}/seconds", float("inf"), "tracks.digits.seconds"),
    (f"{TRACK}/scratch/batch", 0, "tracks.digits.scratch.batch: Input should be greater than 0"),
    (f"{TRACK}/scratch/learning_rate", DROP, "tracks.digits.scratch.learning_rate: Field required"),
    (f"{TRACK}/fine_tune/warmup", 1.5, "warmup: Input should be less than or equal to 1"),
    (f"{TRACK}/fine_tune/label_smoothing", -0.1, "label_smoothing: Input should be greater"),
    (f"{TRACK}/fine_tune", "scratch", "tracks.digits.fine_tune: Input should be"),
    (f"{TRACK}/models", ["mixer"], "tracks.digits.models: Input should be a valid dictionary"),
    (f"{TRACK}/models/Mixer", {"timm": "mixer_small"}, "names are lower-case letters"),
    (f"{MIXER}/timm", DROP, "tracks.digits.models.mixer.timm: Field required"),
    (f"{MIXER}/args", [], "tracks.digits.models.mixer.args: Input should be a valid dictionary"),
    (
        f"{MIXER}/narrow",
        {"embed_dim": 0},
        "tracks.digits.models.mixer.narrow.embed_dim: Input should be greater than 0",
    ),
    (
        f"{MIXER}/pretrained",
        True,
        "tracks.digits.models.mixer: Value error, there is no `pretrained`: did you mean `weights: "
        "timm`?",
    ),
    (f"{MIXER}/weight", "a.pth", "tracks.digits.models.mixer.weight: Extra inputs"),
    (
        f"{MIXER}/weights",
        True,
        "tracks.digits.models.mixer.weights: Input should be a valid string",
    ),
    (f"{MIXER}/weights", "", "tracks.digits.models.mixer.weights: String should have at least 1"),
    (
        f"{MIXER}/sha256",
        "12fca82",
        "tracks.digits.models.mixer.sha256: String should match pattern",
    ),
    (f"{MIXER}/sha256", 12345678, "tracks.digits.models.mixer.sha256: Input should be a valid str"),
    (f"{MIXER}/sha256", "12fca82f", "`sha256` pins a file of weights: name it by `weights`"),
    (
        f"{MIXER}/scratch",
        {"epochs": 3},
        "tracks.digits.models.mixer.scratch.optimiser: Field required",
    ),
    ("methods", DROP, "methods: Field required"),
    ("methods/rtn", [{"bits": 4}], "methods.rtn: Input should be"),
    ("methods/rtn/settings", [], "methods.rtn.settings: List should have at least 1 item"),
    ("methods/rtn/settings", {"bits": 4}, "methods.rtn.settings: Input should be a valid list"),
    ("methods/rtn/settings", [4], "methods.rtn.settings.0: Input should be a valid dictionary"),
    ("methods/rtn/settings", [{4: 4}], "methods.rtn.settings.0.4"),
    ("methods/rtn/seeds", 0, "methods.rtn.seeds: Input should be greater than 0"),
    (f"{TRACK}/methods", {"rnt": {}}, "unknown method of track digits 'rnt': did you mean 'rtn'?"),
    (
        f"{TRACK}/methods",
        {"rtn": {"models": ["mixr"]}},
        "unknown model of method rtn on digits 'mixr': did you mean 'mixer'?",
    ),
    (
        f"{TRACK}/methods_on",
        ["mixr"],
        "unknown model of methods_on of track digits 'mixr': did you mean 'mixer'?",
    ),
    (f"{TRACK}/methods_on", "mixer", "tracks.digits.methods_on: Input should be a valid list"),
    (
        f"{TRACK}/methods",
        {"rtn": {"scratch_epochs": -1}},
        "tracks.digits.methods.rtn.scratch_epochs: Input should be greater than 0",
    ),
    ("methods/rtn/tracks", {"digits": {}}, "methods.rtn.tracks: Extra inputs are not permitted"),
    ("methods/rtn-2", {"settings": [{}]}, "names are lower-case letters"),
    ("methods/rtn__dense", {"settings": [{}]}, "put it under `chains`"),
    ("chains/rtn", {"settings": [{}]}, "chain rtn is not named after different methods"),
    ("chains/rtn__rtn", {"settings": [{}]}, "chain rtn__rtn is not named after different methods"),
    ("chains/rtn____dense", {"settings": [{}]}, "is not named after different methods"),
    (
        f"{CPU}/runtime",
        "tensorrt",
        "hardware 'cpu': unknown runtime 'tensorrt': known are: cuda_graph, eager, ",
    ),
    (f"{CPU}/runtime", "eagr", "hardware 'cpu': unknown runtime 'eagr': did you mean 'eager'?"),
    (
        f"{CPU}/runtime",
        "../eager",
        "hardware.cpu.runtime: Value error, names are lower-case letters",
    ),
    (f"{CPU}/runtime", ["eager"], "hardware.cpu.runtime: Input should be a valid string"),
    (f"{CPU}/runtime", "cuda_graph", "runtime cuda_graph runs on device cuda"),
    (f"{CPU}/threads", 0, "hardware.cpu.threads: Input should be greater than 0"),
    (f"{CPU}/batches", [], "hardware.cpu.batches: List should have at least 1 item"),
    (f"{CPU}/batches", [0], "hardware.cpu.batches.0: Input should be greater than 0"),
    (f"{CPU}/rounds", 4, "hardware.cpu.rounds: Input should be greater than or equal to 5"),
    (f"{CPU}/match", 7, "hardware.cpu.match: Input should be a valid string"),
    ("hardware/cpu-2", PARAMS["hardware"]["cpu"], "names are lower-case letters"),
    # settings: what only the method's own class can refuse
    (
        "methods/rtn/settings",
        [{"bits": 1}],
        "setting {'bits': 1} of method 'rtn' is impossible: bits: Input should be 2, 3",
    ),
    (
        "methods/rtn/settings",
        [{"bits": 9}],
        "of method 'rtn' is impossible: bits: Input should be 2, 3",
    ),
    (
        "methods/rtn/settings",
        [{"bits": "four"}],
        "of method 'rtn' is impossible: bits: Input should be 2, 3",
    ),
    ("methods/rtn/settings", [{"bit": 4}], "unknown setting of rtn 'bit': did you mean 'bits'?"),
    (
        "methods/magnitude/settings",
        [{"sparsity": 1.0}],
        "of method 'magnitude' is impossible: sparsity",
    ),
    (
        "methods/magnitude/settings",
        [{"sparsity": float("nan")}],
        "of method 'magnitude' is impossible: sparsity",
    ),
    (
        "methods/magnitude/settings",
        [{"sparsity": [0.5]}],
        "of method 'magnitude' is impossible: sparsity",
    ),
    ("methods/dense/settings", [{"sparsity": 0.5}], "unknown setting of dense 'sparsity'"),
    ("methods/rnt", {"settings": [{}]}, "unknown method 'rnt': did you mean 'rtn'?"),
    ("chains/magnitude__rnt", {"settings": [{}]}, "unknown method 'rnt': did you mean 'rtn'?"),
    (
        "chains/magnitude__rtn/settings",
        [{"bits": 4}],
        "unknown step of chain magnitude__rtn 'bits'",
    ),
    (
        "chains/magnitude__rtn/settings",
        [{"rtn": 4}],
        "setting 'rtn' of chain magnitude__rtn names no field: write rtn.FIELD: VALUE",
    ),
    ("chains/magnitude__rtn/settings", [{"rtn.bits": 40}], "of method 'rtn' is impossible: bits"),
]
FILES = [  # what stands in place of the file
    ("a folder", folder("params.yaml"), "params.yaml cannot be read: Is a directory"),
    ("empty", text("params.yaml", ""), "Input should be"),
    ("a list", text("params.yaml", "- a\n- b\n"), "Input should be"),
    ("a word", text("params.yaml", "params"), "Input should be"),
    ("an open bracket", text("params.yaml", "version: ["), "not valid YAML"),
    ("a tab", text("params.yaml", "run:\n\tworkers: 2\n"), "not valid YAML"),
    ("a NUL byte", raw("params.yaml", b"version: v1\0\n"), "not valid YAML"),
    ("bytes of no text", raw("params.yaml", b"\xff\xfe\x00\x01"), "not valid YAML"),
    (
        "a pickle in YAML",
        text("params.yaml", "version: !!python/object/apply:os.system [exit]\n"),
        "not valid YAML",
    ),
    ("an alias of nothing", text("params.yaml", "version: *v\n"), "not valid YAML"),
    ("a mapping as a key", text("params.yaml", "? {a: 1}\n: 2\n"), "params.yaml"),
    (
        "a key twice",
        text("params.yaml", yaml.safe_dump(PARAMS) + "\nversion: v2\n"),
        "version stands twice",
    ),
    ("two documents", text("params.yaml", "version: v1\n---\nversion: v2\n"), "not valid YAML"),
    ("a billion laughs", text("params.yaml", LAUGHS), "version: Field required"),
    ("a name of a thousand letters", params("x" * 1000, 1), "Extra inputs"),
    ("lists in lists", text("params.yaml", "version: " + "[" * 1200), "not valid YAML"),
]
CASES = [
    Case(
        f"{keys} = {str(value)[:40] if value is not DROP else 'nothing'}",
        params(keys, value),
        CHECK,
        said,
    )
    for keys, value, said in VALUES
]
CASES += [
    Case(
        f"{command}: no such runtime",
        params(f"{CPU}/runtime", "eagr"),
        command,
        "hardware 'cpu': unknown runtime 'eagr'",
    )
    for command in TIMING
]
CASES += [Case(f"params.yaml is {name}", damage, CHECK, said) for name, damage, said in FILES]
