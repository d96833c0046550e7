"""Hashes of code: what makes a stage run again, and what does not."""

import pytest

from harness.code import ROOT, code_hash, documented, of_chains, shared

SOURCE = '''"""What it is."""


def f(x):
    """Double x."""
    return 2 * x
'''


def hashed(folder, name, source):
    (folder / name).write_text(source)
    return code_hash(folder / name)


@pytest.mark.parametrize("changed", [SOURCE.replace("Double", "Twice"), SOURCE.replace("is.", "was."), SOURCE + "# a comment\n", "\n" + SOURCE])
def test_words_and_layout_do_not_count(tmp_path, changed):
    assert hashed(tmp_path, "a.py", changed) == hashed(tmp_path, "b.py", SOURCE)


def test_code_counts(tmp_path):
    assert hashed(tmp_path, "a.py", SOURCE.replace("2 * x", "3 * x")) != hashed(tmp_path, "b.py", SOURCE)


def test_methods_of_their_own_are_not_shared_and_only_those_in_a_chain_count_for_chains():
    assert not [name for name in shared() if name.startswith("methods/") and not name.startswith("methods/_")]
    assert of_chains(["magnitude__rtn", "wanda__rtn"]).keys() == {"harness/chain.py", "methods/magnitude.py", "methods/rtn.py", "methods/wanda.py"}
    assert of_chains(["outside__rtn"]).keys() == {"harness/chain.py", "methods/rtn.py"}, "a method of another package has no file here"


def test_what_methods_say_of_themselves_is_known_without_importing_them():
    said = documented()
    assert said["wanda"].startswith("Wanda: zero, in each output row")
    assert set(said) == {path.stem for path in (ROOT / "methods").glob("[!_]*.py")}
    assert all(text for text in said.values())
