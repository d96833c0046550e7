"""A program's text is refused wherever torch might run it, and accepted where torch
wrote it.
"""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.point import store
from harness.point.program_text import refuse_code
from leaderboard.records.errors import UserError
from tests.conftest import ROOT
from tests.harness.point.test_store import rewritten

RUN = "__import__('pathlib').Path('ran').touch()"


class Exits(torch.nn.Module):
    """Branches on what it sees, as methods with early exits do, and folds tokens into
    the batch.
    """

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(16, 16), torch.nn.Parameter(torch.randn(16, 16))

    def forward(self, x):
        x = self.first(x.flatten(1))
        x = torch.cond(x[0, 0] > 0, lambda x: x @ self.second, lambda x: x.clone(), (x,))
        return torch.nn.functional.gelu(x.reshape(x.shape[0] * 4, 4), approximate="tanh").view(
            -1, 16
        )


@pytest.fixture(scope="module")
def text():
    """The text of a program for any batch size that branches."""
    program = store.export(Exits().eval(), torch.randn(2, 1, 4, 4))
    with ZipFile(_saved(program)) as archive:
        return archive.read(
            next(name for name in archive.namelist() if name.endswith("models/model.json"))
        )


def _saved(program):
    file = io.BytesIO()
    torch.export.save(program, file)
    return file


def leaves(value, path=()):
    """Yield the path of every string in a JSON value."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, (*path, key))


def put(value, path, new):
    """Put `new` at `path` of a JSON value."""
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


def signature(text):
    (found,) = [
        entry["signature"]
        for entry in text["graph_module"]["module_call_graph"]
        if entry["signature"]
    ]
    return found


def in_a_shape(text):
    path = next(path for path in leaves(text) if path[-1] == "expr_str")
    put(text, path, f"[{RUN}, Symbol('s77', positive=True, integer=True)][1]")


def in_a_guard(text):
    text["guards_code"] = [f"{RUN} or True"]


def in_the_name_of_the_input(text):
    name = f"x={RUN}"
    text["graph_module"]["graph"]["inputs"][0]["as_tensor"]["name"] = name
    values = text["graph_module"]["graph"]["tensor_values"]
    values[name] = values[
        text["graph_module"]["signature"]["input_specs"][-1]["user_input"]["arg"]["as_tensor"][
            "name"
        ]
    ]


def in_the_names_of_the_arguments(text):
    signature(text)["forward_arg_names"] = [f"x={RUN}"]


def in_the_shape_of_the_arguments(text):
    content = json.loads(signature(text)["in_spec"])
    content[1]["children_spec"][1] |= {
        "context": json.dumps([RUN]),
        "children_spec": [{"type": None, "context": None, "children_spec": []}],
    }
    signature(text)["in_spec"] = json.dumps(content)


def by_another_module(text):
    signature(text)["out_spec"] = signature(text)["out_spec"].replace(
        "null", '"collections.defaultdict"', 1
    )


def as_an_operator(text):
    text["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"


def as_an_operator_that_writes_files(text):
    text["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.save.default"


def as_an_operator_that_reads_files(text):
    text["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"


def as_an_argument_that_is_an_operator(text):
    text["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {
        "as_operator": "torch.os.system"
    }


def as_the_name_of_a_file(text):
    text["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_string": "/etc/passwd"}


def in_a_shape_of_a_tensor_named_as_notes_are(text):
    shape = {"as_expr": {"expr_str": RUN, "hint": None}}
    text["graph_module"]["graph"]["tensor_values"]["metadata"] = {"sizes": [shape]}


def note(name, value):
    """Return what writes a note on the first node."""

    def hide(text):
        text["graph_module"]["graph"]["nodes"][0]["metadata"][name] = value

    hide.__name__ = f"as_{name}"
    return hide


NOTES = [
    note("stack_trace", 'File "/home/me/model.py", line 1, in forward'),
    note("stack_trace", "model"),
    note("nn_module_stack", "L__self__"),
    note("source_fn_stack", "a"),
    note("torch_fn", "linear_1"),
    note("from_node", "null"),
    note("custom", "a"),
]


def by_a_number_without_end(text):
    path = next(path for path in leaves(text) if path[-1] == "expr_str")
    put(text, path, "Pow(Integer(9), Pow(Integer(9), Integer(99)))")


HOSTILE = [
    in_a_shape,
    in_a_guard,
    in_the_name_of_the_input,
    in_the_names_of_the_arguments,
    in_the_shape_of_the_arguments,
    by_another_module,
    as_an_operator,
    as_an_operator_that_writes_files,
    as_an_operator_that_reads_files,
    as_an_argument_that_is_an_operator,
    as_the_name_of_a_file,
    in_a_shape_of_a_tensor_named_as_notes_are,
    by_a_number_without_end,
    *NOTES,
]


@pytest.mark.parametrize("hide", HOSTILE, ids=lambda hide: hide.__name__)
def test_code_hidden_in_a_program_is_refused(text, hide):
    content = json.loads(text)
    hide(content)
    with pytest.raises(ValueError, match="which torch would not write"):
        refuse_code(json.dumps(content).encode())


def test_an_artefact_whose_shapes_run_code_is_refused_before_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.write(tmp_path, store.export(Exits().eval(), torch.randn(2, 1, 4, 4)), {})

    def change(entries):
        (name,) = [name for name in entries if name.endswith("models/model.json")]
        content = json.loads(entries[name])
        in_a_shape(content)
        entries[name] = json.dumps(content).encode()

    rewritten(tmp_path / store.PROGRAM, change)
    with pytest.raises(UserError, match=r"expr_str .* which torch would not write"):
        store.read(tmp_path)
    assert not (tmp_path / "ran").exists()
    torch.export.load(tmp_path / store.PROGRAM)
    assert (tmp_path / "ran").exists(), (
        "torch itself does not look: if this fails, harness/point/program_text.py is no longer "
        "needed"
    )


def test_a_program_that_branches_and_folds_its_batch_is_accepted(tmp_path):
    model, images = Exits().eval(), torch.randn(5, 1, 4, 4)
    store.write(tmp_path, store.export(model, images[:2]), {})
    torch.testing.assert_close(store.read(tmp_path).module(images), model(images))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_code_put_in_place_of_any_word_is_refused(text, data):
    content = json.loads(text)
    put(
        content,
        data.draw(st.sampled_from(list(leaves(content)))),
        data.draw(st.sampled_from([RUN, f"x={RUN}", "lambda: 0", "a;b", "f('x')", "\n"])),
    )
    with pytest.raises(ValueError, match="which torch would not write"):
        refuse_code(json.dumps(content).encode())


@given(st.from_regex(re.compile(r"[a-zA-Z_(\[{\"'.,: 0-9\])}]+"), fullmatch=True))
def test_an_expression_is_accepted_only_if_it_calls_nothing_but_sympys_arithmetic(expression):
    try:
        refuse_code(json.dumps({"expr_str": expression}).encode())
    except ValueError:
        return
    assert set(re.findall(r"([A-Za-z_]\w*)\(", expression)) <= {
        "Symbol",
        "Integer",
        "Add",
        "Mul",
        "Mod",
        "Max",
        "Min",
        "And",
        "Or",
        "Not",
    }


@pytest.mark.parametrize("text", [b"", b"[", b"\xff", b'"\\ud800"', b"[" * 100_000, b"{" * 9])
def test_a_text_that_is_no_json_is_refused(text):
    with pytest.raises((ValueError, RecursionError)):
        refuse_code(text)


EXPORTS = """
import sys
from pathlib import Path

import torch
from exits import Early

from harness.models import build
from harness.point import store
from leaderboard.records.params import load_params

root, target, before = sys.argv[1:]
models = load_params(Path(root) / "params.yaml").tracks["digits"].models
images = torch.ones(2, 1, 16, 16)
for _ in range(int(before)):  # other work in the same process
    store.export(build.build(models["mixer"], 1, 10).eval(), images)
torch.manual_seed(0)
exits, vit = Early(), build.build(models["vit"], 1, 10)
for name, model, images in (("exits", exits, torch.randn(2, 1, 4, 4) + int(before)), ("vit", vit, images)):
    folder = Path(target) / name
    folder.mkdir()
    store.write(folder, store.export(model.eval(), images), {})
"""
EARLY = """
import torch


class Early(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)

    def forward(self, x):
        x = self.first(x.flatten(1))
        return torch.cond(x[0, 0] > 0, lambda x: x @ self.second.weight, lambda x: x.clone(), (x,))
"""


def exported(home, before, seed):
    """Export two models in a process of its own that works in the folder `home`; return
    the bytes of their programs.
    """
    (home / "target").mkdir(parents=True)
    (home / "exits.py").write_text("\n" * before + EARLY)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(home)]),
        "PYTHONHASHSEED": str(seed),
    }
    subprocess.run(
        [sys.executable, "-c", EXPORTS, str(ROOT), str(home / "target"), str(before)],
        cwd=home,
        env=environment,
        check=True,
    )
    return [(home / "target" / name / store.PROGRAM).read_bytes() for name in ("exits", "vit")]


@pytest.mark.slow
def test_equal_programs_are_equal_files_that_name_no_file_wherever_they_were_made(tmp_path):
    programs = exported(tmp_path / "here", 0, 1)
    assert programs == exported(tmp_path / "far" / "away", 1, 2)
    paths = [
        str(tmp_path),
        str(ROOT),
        str(Path(torch.__file__).parents[1]),
        "site-packages",
        ".py",
        "eval_with_key",
        "forward",
        "Early",
        "Linear",
    ]
    for program in programs:
        with ZipFile(io.BytesIO(program)) as archive:
            content = b"".join(
                archive.read(entry) for entry in archive.namelist() if "/weight_" not in entry
            )
        assert not [
            path for path in paths if path.encode() in content.replace(b"forward_arg_names", b"")
        ]


def test_a_program_keeps_none_of_the_images_that_it_was_traced_with():
    program = store.export(Exits().eval(), torch.randn(5, 1, 4, 4)[:2])
    ((images,), _) = torch.export.load(io.BytesIO(_saved(program).getvalue())).example_inputs
    assert images.shape == (2, 1, 4, 4) and not images.any()
