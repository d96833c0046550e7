"""What the text of a program (models/model.json in a .pt2) may say.

torch.export.load lets sympy evaluate every shape in it as Python, writes names and
guards into the code of a module that it then runs, and looks operators up by dotted
name. So a text is only accepted if each of its words is one that torch writes for a
model of one batch of images in and one tensor out. Of where the model's code lay, and
what it was called, a text says nothing: `harness.point.store` writes none of it, and
what says it is refused.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from torch.utils._pytree import tree_structure, treespec_dumps

ARITHMETIC = "add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem"
OUTSIDE = "from_file|save|warn|_print"  # operators of aten that read or write files, or print
ATEN = rf"aten\.(?!({OUTSIDE})\.)(_?[a-z]\w*|__(and|or|xor)__)\.[A-Za-z]\w*"
TARGET = (
    rf"torch\.ops\.({ATEN}|higher_order\.cond)|_operator\.({ARITHMETIC})|"
    r"torch\.sym_(int|float|max|min|not|ite)"
)
SYMBOL, INTEGER = r"Symbol\('[a-z]+\d+'(, [a-z]+=(True|False))*\)", r"Integer\(-?\d{1,18}\)"
FUNCTION = (
    "Add|Mul|FloorDiv|PythonMod|Mod|Max|Min|Equality|Unequality|StrictLessThan|LessThan|"
    "StrictGreaterThan|GreaterThan|And|Or|Not"
)
EXPRESSION = rf"({SYMBOL}|{INTEGER}|({FUNCTION})\(|, |\)){{1,200}}"
WORD = r"[\w.-]*"  # no call, no string and no space can be made of it
# stands for every stack trace: where a node has none at all, torch.onnx looks up its
# own, which takes a third of its time
NO_TRACE = "-"
NEVER = "(?!)"
RULES: dict[str, re.Pattern[str]] = {
    key: re.compile(rule)
    for key, rule in {
        "expr_str": EXPRESSION,
        "target": TARGET,
        "as_operator": TARGET,
        "guards_code": NEVER,  # a batch of any size needs no guard
        "in_spec": re.escape(treespec_dumps(tree_structure(((0,), {})))),
        "out_spec": re.escape(treespec_dumps(tree_structure(0))),
        "as_string": r"[\w ,.>-]*",  # of an operator: "tanh", "bij,bjk->bik"
        "torch_version": r"[\w.+]*",
        "stack_trace": NO_TRACE,
        "nn_module_stack": NEVER,
        "source_fn_stack": NEVER,
        "torch_fn": NEVER,
        "from_node": NEVER,
        "custom": NEVER,
    }.items()
}
OTHER = re.compile(WORD)


def refuse_code(text: bytes) -> None:
    """Raise ValueError if the JSON `text` of a program holds a word that torch would
    not write there, and might run.
    """
    _refuse("", json.loads(text.decode()))


def _refuse(key: str, value: Any) -> None:
    """Look through `value`, which stands under `key`; the entries of a list stand under
    the key of the list.
    """
    if isinstance(value, dict):
        for name, part in value.items():
            if not OTHER.fullmatch(name):
                raise ValueError(
                    f"its text has the name {name[:60]!r}, which torch would not write"
                )
            _refuse(name, part)
    elif isinstance(value, list):
        for part in value:
            _refuse(key, part)
    elif isinstance(value, str) and not _is_of_torch(key, value):
        raise ValueError(f"its text has {key} {value[:60]!r}, which torch would not write")


@lru_cache(maxsize=4096)  # a program says the same few things thousands of times
def _is_of_torch(key: str, word: str) -> bool:
    return RULES.get(key, OTHER).fullmatch(word) is not None
