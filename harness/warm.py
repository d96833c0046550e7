"""Imported by the server that workers are forked from: export, write and read a tiny program once.

torch imports and caches much on its first export (about a second), which every worker would pay again.
"""

from __future__ import annotations

import io

import torch

_file = io.BytesIO()
_program = torch.export.export(torch.nn.Linear(2, 2).eval(), (torch.zeros(2, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
torch.export.save(_program, _file)
torch.export.load(io.BytesIO(_file.getvalue())).module()
