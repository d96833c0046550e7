"""What the stages of DVC watch beside their own files."""

from harness.code import ROOT, documented, of_chains, shared


def test_methods_of_their_own_are_not_shared_and_only_those_in_a_chain_count_for_chains():
    assert not [name for name in shared() if name.startswith("methods/") and not name.startswith("methods/_")]
    assert of_chains(["magnitude__rtn", "wanda__rtn"]).keys() == {
        "harness/point/chain.py",
        "methods/magnitude.py",
        "methods/rtn.py",
        "methods/wanda.py",
    }
    assert of_chains(["outside__rtn"]).keys() == {"harness/point/chain.py", "methods/rtn.py"}, "a method of another package has no file here"


def test_what_methods_say_of_themselves_is_known_without_importing_them():
    said = documented()
    assert said["wanda"].startswith("Wanda: zero, in each output row")
    assert set(said) == {path.stem for path in (ROOT / "methods").glob("[!_]*.py")}
    assert all(text for text in said.values())
