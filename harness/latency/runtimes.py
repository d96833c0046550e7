"""What runs an artefact when it is timed: PyTorch eagerly, by replaying a CUDA graph or with 2:4 sparse weights, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cpuinfo
import torch
from torch import Tensor, nn

from harness.latency import semi_structured
from harness.point import store
from leaderboard.records.params import HardwareParams

Runner = Callable[[Tensor], Tensor]  # images (N, C, H, W) on the profile's device -> logits (N, classes)
Program = Callable[[Tensor], Runner]  # images like those to come -> what runs batches of their size


def missing(profile: HardwareParams) -> str | None:
    """Say in one line what this machine lacks to serve `profile`, or None if it can."""
    if profile.onnx and (lacking := not_installed("onnxscript", profile.runtime)) is not None:
        return lacking
    if profile.device == "cuda" and not torch.cuda.is_available():
        return "torch finds no CUDA device here"
    if profile.match.lower() not in processor(profile.device).lower():
        return f"the profile is for '{profile.match}', this machine has '{processor(profile.device)}'"
    cores = len(os.sched_getaffinity(0))
    return f"it asks for {profile.threads} threads, this machine has {cores} cores" if profile.threads > cores else None


def not_installed(*packages: str) -> str | None:
    """Say in one line which of `packages` are not installed, or None if all are."""
    absent = [name for name in packages if find_spec(name) is None]
    return f"{' and '.join(absent)} not installed: pip install -e '.[runtimes]'" if absent else None


def processor(device: str) -> str:
    """Return the name of the processor, or of the GPU if `device` is cuda."""
    return torch.cuda.get_device_name() if device == "cuda" else str(cpuinfo.get_cpu_info().get("brand_raw", "unknown"))


def load(profile: HardwareParams, artefact: Path) -> Program:
    """Return what `profile` runs: `artefact` is the folder of a point, or the file of its ONNX model for a runtime that takes one."""
    return LOADERS[profile.runtime](profile, artefact)


def _eager(profile: HardwareParams, folder: Path) -> Program:
    return _called(profile, store.read(folder).on(torch.device(profile.device)))


def _semi_structured(profile: HardwareParams, folder: Path) -> Program:
    return _called(profile, semi_structured.with_sparse_weights(store.read(folder).on(torch.device(profile.device))))


def _called(profile: HardwareParams, module: nn.Module) -> Program:
    def run(images: Tensor) -> Tensor:
        with torch.autocast(profile.device, torch.bfloat16):
            logits: Tensor = module(images)
        return logits

    return lambda _images: run if profile.precision == "bf16" else module


def _cuda_graph(profile: HardwareParams, folder: Path) -> Program:
    eager = _eager(profile, folder)
    return lambda images: _replayed(eager(images), images)


def _replayed(eager: Runner, images: Tensor) -> Runner:
    """Return `eager` captured as a CUDA graph for batches of the size of `images`."""
    place = images.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # warm up aside, as torch asks for
        for _ in range(3):
            eager(place)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = eager(place)

    def run(images: Tensor) -> Tensor:
        place.copy_(images)
        graph.replay()
        return logits

    return run


def _onnxruntime(profile: HardwareParams, model: Path) -> Program:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = profile.threads, 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.numpy()})[0])

    return lambda _images: run


def _openvino(profile: HardwareParams, path: Path) -> Program:
    import openvino

    core = openvino.Core()
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": profile.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }

    def compiled(images: Tensor) -> Runner:
        model = core.read_model(path)
        model.reshape(list(images.shape))  # a model of fixed shape is faster
        run = core.compile_model(model, "CPU", settings)
        return lambda batch: torch.from_numpy(run(batch.numpy())[0])

    return compiled


LOADERS: dict[str, Callable[[HardwareParams, Path], Program]] = {
    "eager": _eager,
    "cuda_graph": _cuda_graph,
    "semi_structured": _semi_structured,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
