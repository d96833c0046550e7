"""Imported by the server that workers are forked from: export, write and read a tiny
program once, and import datasets and models.

torch imports and caches much on its first export (about a second), which every worker
would pay again; so it is with the datasets, which every guard asks what is closed, and
with our models. What is loaded by then is taken out of the garbage collector's sight,
so that a worker does not touch, and thereby copy, all of the server's memory. The
collector also comes less often than by default: reading, exporting and translating
programs make a million short-lived objects each, and it took a sixth of their time.
"""

from __future__ import annotations

import gc
import io

import torch

from harness import data, models

_file = io.BytesIO()
_program = torch.export.export(
    torch.nn.Linear(2, 2).eval(),
    (torch.zeros(2, 2),),
    dynamic_shapes=({0: torch.export.Dim("batch")},),
)
torch.export.save(_program, _file)
torch.export.load(io.BytesIO(_file.getvalue())).module()
data.closed_by_all()
models.register()
gc.collect()
gc.freeze()
gc.set_threshold(50_000, 20, 100)
