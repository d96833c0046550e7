"""How much faster integers are: `int8_static` on timm models at 224 pixels, through our
artefacts and their ONNX models, against the same model in fp32.

`python benchmarks/int8_speed.py [MODEL ...]` needs no data: weights and images are
random, which changes neither operators nor shapes. Each runtime runs fp32 and int8 in
turn, one image at a time on one thread; the ratio is the median over rounds of (mean of
fp32 just before and after) / int8, with its bootstrap interval. Beside it: which
operators of the optimised graph are not integer ones.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import argparse
import tempfile
from collections import Counter
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import onnx
import onnxruntime
import timm
import torch
from tabulate import tabulate

from harness.latency.benchmark import seconds_of, warm
from harness.latency.clock import cpu_seconds
from harness.latency.machine import fingerprint
from harness.latency.onnx_export import to_onnx
from harness.latency.runtimes import load
from harness.point import store
from leaderboard.records.params import HardwareParams
from leaderboard.records.statistics import median, paired_ratios
from methods import Data
from methods.int8_static import Int8Static

MODELS = ("resnet18", "mobilenetv2_100", "vit_tiny_patch16_224")
RUNTIMES = ("onnxruntime", "openvino")


def profile_of(runtime: str) -> HardwareParams:
    """Return a profile of one thread."""
    return HardwareParams.model_validate(
        {
            "device": "cpu",
            "runtime": runtime,
            "threads": 1,
            "batches": [1],
            "rounds": 5,
            "warmup_rounds": 1,
        }
    )


def models_of(name: str, folder: Path) -> dict[str, Path]:
    """Write the ONNX models of timm's `name` in fp32 and int8."""
    torch.manual_seed(0)
    dense, images = timm.create_model(name).eval(), torch.randn(16, 3, 224, 224)
    int8 = Int8Static().compress(deepcopy(dense), cast(Data, SimpleNamespace(calibration=images)))
    found = {}
    for kind, model in (("fp32", dense), ("int8", int8)):
        home = folder / kind
        home.mkdir()
        codes = store.codes_of(model)
        store.write(home, store.export(model, images[:2]), codes)
        found[kind] = home / "model.onnx"
        found[kind].write_bytes(to_onnx(home, images[:1]))
    return found


def left_float(model: Path) -> str:
    """Return the operators of ONNX Runtime's optimised graph that compute in floats,
    with how often they stand in it.
    """
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(model.with_suffix(".optimised.onnx"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    heavy = (
        "Conv",
        "FusedConv",
        "MatMul",
        "FusedMatMul",
        "Gemm",
        "LayerNormalization",
        "Softmax",
        "BiasGelu",
        "Gelu",
        "Add",
    )
    return ", ".join(f"{found[kind]} {kind}" for kind in heavy if found[kind])


def row(name: str, runtime: str, models: dict[str, Path], rounds: int) -> list[object]:
    """Time one model in one runtime."""
    image, profile = torch.zeros(1, 3, 224, 224), profile_of(runtime)
    runs = {kind: load(profile, path)(image) for kind, path in models.items()}
    for run in runs.values():
        warm(run, image, cpu_seconds)
    seconds = np.array(
        [
            seconds_of(runs["fp32" if turn % 2 == 0 else "int8"], image, cpu_seconds)
            for turn in range(2 * rounds + 1)
        ]
    )
    speed = median(paired_ratios(seconds[::2], seconds[1::2]))
    times = [f"{1000 * np.median(part):.2f}" for part in (seconds[::2], seconds[1::2])]
    return [
        name,
        runtime,
        *times,
        f"{speed.value:.2f} [{speed.low:.2f}, {speed.high:.2f}]",
        left_float(models["int8"]) if runtime == "onnxruntime" else "",
    ]


def main() -> None:
    """Print a row for each model and runtime."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models",
        nargs="*",
        default=MODELS,
        metavar="MODEL",
        help=f"timm names, by default {', '.join(MODELS)}",
    )
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as temporary:
            models = models_of(name, Path(temporary))
            rows += [row(name, runtime, models, arguments.rounds) for runtime in RUNTIMES]
    about = [fingerprint(profile_of(runtime)) for runtime in RUNTIMES]
    print(
        f"{about[0]['cpu']}, one thread, torch {about[0]['torch']}, "
        f"{', '.join(machine['runtime'] for machine in about)}"
    )
    print(
        tabulate(
            rows, headers=["model", "runtime", "fp32 ms", "int8 ms", "fp32 / int8", "floats left"]
        )
    )


if __name__ == "__main__":
    main()
