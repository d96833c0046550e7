"""Bad names on the command line, and bad method files."""

from benchmarks.testbed.tiny_project import PARAMS
from tests.bad_input.edits import Case, Damage, nothing, params, text

RTN = {"settings": [{"bits": 4}]}
NAMES = [  # command line, what its line says
    ("train digit", "unknown track 'digit': did you mean 'digits'?"),
    ("train ../digits", "unknown track '../digits'"),
    ("compress digit rtn", "unknown track 'digit'"),
    ("compress digits rnt", "unknown method in params.yaml 'rnt': did you mean 'rtn'?"),
    ("compress digits wanda", "unknown method in params.yaml 'wanda'"),
    ("compress digits ../rtn", "unknown method in params.yaml '../rtn'"),
    ("sweep digit", "unknown track 'digit'"),
    ("measure digit cpu", "digit"),
    ("measure digits gpu", "unknown hardware 'gpu'"),
    ("run digit", "unknown track 'digit'"),
    ("run digits --method rtn", "name a folder for it with --into FOLDER"),
    (
        "run digits --method rnt --into out",
        "unknown method in params.yaml 'rnt': did you mean 'rtn'?",
    ),
    ("run digits --model mixr --into out", "unknown model of digits 'mixr': did you mean 'mixer'?"),
    ("export digit rtn x", "unknown track 'digit'"),
    ("export digits rnt x", "unknown method in params.yaml 'rnt'"),
    (
        "export digits rtn mixer_bits=5",
        "unknown point of rtn with an artefact here 'mixer_bits=5': did you mean "
        "'mixer_bits=4_seed=0'?",
    ),
    ("export digits rtn ../../data", "artefact"),
    ("export digits rtn mixer_bits=4_seed=0 --into artefacts", "cannot write artefacts"),
    ("new rtn", "there is a method or a test called 'rtn' already"),
    ("new RTN", "cannot name a method: use lower-case letters"),
    ("new my-method", "cannot name a method"),
    ("new ../method", "cannot name a method"),
    ("new 2bits", "cannot name a method"),
    ("new a__b", "'__' stands between the methods of a chain"),
    ("macs mixer_smal", "unknown timm model 'mixer_smal'"),
    ("methods --page nowhere.md", "nowhere.md"),
    ("methods --page params.yaml", "lacks the lines <!-- methods:begin -->"),
    ("check params --params nowhere.yaml", "nowhere.yaml not found"),
    ("tables digit", "unknown track 'digit': did you mean 'digits'?"),
    ("tables --version v2", "unknown version 'v2': did you mean 'v1'?"),
    ("tables --version ../v1", "unknown version '../v1'"),
    ("tables --results nowhere", "results folder nowhere not found"),
    ("tables --page nowhere.md", "nowhere.md"),
    ("tables --page params.yaml", "lacks the lines <!-- digest:begin -->"),
    ("show --track digit", "unknown track 'digit'"),
    ("show --hardware gpu", "unknown hardware 'gpu'"),
    ("show --version v9", "unknown version 'v9'"),
    ("show --results params.yaml", "results folder params.yaml not found"),
]
HEAD = """from dataclasses import dataclass
from typing import Any, ClassVar
from methods import Method

class {bases}:
    family: ClassVar[str] = "f"
    paper: ClassVar[str] = "-"
    needs: ClassVar[str] = "data-free"
    realisation: ClassVar[str] = "masked"
    stochastic: ClassVar[bool] = False
    identity: ClassVar[dict[str, object]] = {{}}
    strongest: ClassVar[dict[str, object]] = {{}}
"""
WHOLE = (
    HEAD.format(bases="Broken(Method)")
    + "    def compress(self, model, data):\n        return model\n"
)
METHODS = [  # what stands in methods/broken.py, what the line says
    ("nothing", "", "must hold exactly one class derived from Method, found 0"),
    ("no Python", "class Broken(:\n", "method 'broken' cannot be imported: SyntaxError"),
    ("Python 2", "print 'x'\n", "method 'broken' cannot be imported: SyntaxError"),
    ("a NUL byte", "x = 1\0\n", "method 'broken' cannot be imported"),
    ("a class of another base", HEAD.format(bases="Broken"), "found 0"),
    ("two methods", WHOLE + "class Other(Broken):\n    pass\n", "found 2: keep one"),
    ("no compress()", HEAD.format(bases="Broken(Method)"), "method 'broken' lacks compress()"),
    (
        "no family",
        WHOLE.replace('    family: ClassVar[str] = "f"\n', ""),
        "method 'broken' lacks family",
    ),
    (
        "an import of what is not installed",
        "import a_package_that_is_not_there\n",
        "ModuleNotFoundError",
    ),
    (
        "an import of a part that is not there",
        "from methods._nothing import x\n",
        "method 'broken' cannot be imported: ModuleNotFoundError",
    ),
    ("an error at import", "1 / 0\n", "method 'broken' cannot be imported: ZeroDivisionError"),
    (
        "an error of several lines",
        "raise RuntimeError('one\\ntwo')\n",
        "method 'broken' cannot be imported: RuntimeError: one two",
    ),
    (
        "an exit at import",
        "raise SystemExit(0)\n",
        "method 'broken' cannot be imported: SystemExit",
    ),
    (
        "a method that is no dataclass and takes a setting",
        WHOLE,
        "unknown setting of broken 'bits'",
    ),
]


def broken(source: str) -> Damage:
    """Write methods/broken.py and name it in params.yaml."""

    def damage(root):
        text("methods/broken.py", source)(root)
        params("methods", {**PARAMS["methods"], "broken": RTN})(root)

    return damage


CASES = [Case(command, nothing, command, said) for command, said in NAMES]
CASES += [
    Case(f"a method's file with {name}", broken(source), "check params", said)
    for name, source, said in METHODS
]
