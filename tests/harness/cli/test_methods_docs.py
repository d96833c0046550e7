"""The table of methods in the docs."""

from harness.cli import methods_docs
from harness.run import fingerprint
from leaderboard.records.params import load_params
from tests.conftest import ROOT


def test_a_row_says_what_a_method_does_and_declares_and_how_long_its_file_is():
    header, _, row = methods_docs.table(["random_pruning"]).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert [cell.strip() for cell in header.strip("|").split("|")] == list(methods_docs.HEADERS)
    assert cells[:3] == [
        "random_pruning",
        "zero a random share of each layer's weights (unstructured).",
        "pruning",
    ]
    assert cells[4:] == ["calibration", "masked", "32"]


def test_a_page_has_all_that_the_docstring_says_and_what_the_settings_may_be():
    page = methods_docs.page_of("lorc")
    file = methods_docs.read_docstring(ROOT / "methods" / "lorc.py")
    for text in (
        file.reference,
        *file.idea,
        *file.assumed,
        *file.checked,
        *dict(file.arguments).values(),
    ):
        assert text in page
    assert page.startswith("# LoRC, low-rank compensation\n\nRound the weights")
    assert (
        "- `rank` (default 8; ≥ 1): " in page
        and "- `base_bits` (default 4; one of 2, 3, 4, 5, 6, 7, 8, 32): " in page
    )


def test_the_committed_pages_are_what_the_files_say(tmp_path):
    committed = ROOT / "docs" / "methods.md"
    (tmp_path / "methods.md").write_text(committed.read_text())
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "gone.md").write_text("of a method that there is no more")
    methods_docs.update(tmp_path / "methods.md", load_params(ROOT / "params.yaml").methods)
    assert (tmp_path / "methods.md").read_text() == committed.read_text()
    assert {file.name: file.read_text() for file in (tmp_path / "methods").iterdir()} == {
        file.name: file.read_text() for file in (ROOT / "docs" / "methods").iterdir()
    }


def test_empty_lines_comments_and_docstrings_are_no_lines_of_code():
    source = (
        '"""What."""\n\nimport os  # here\n\n\n# why\ndef f():\n    """Do.\n\n    So.\n    """\n  '
        '  return """a\nb"""\n'
    )
    assert methods_docs.lines_of_code(source) == 4


def test_only_what_stands_between_the_markers_of_the_page_is_replaced(tmp_path):
    page = tmp_path / "all.md"
    begin, end = "<!-- methods:begin -->", "<!-- methods:end -->"
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    methods_docs.update(page, ["dense"])
    methods_docs.update(page, ["dense"])
    table = methods_docs.table(["dense"], "all")
    assert "[dense](all/dense.md)" in table
    assert page.read_text() == f"before\n{begin}\n{table}\n{end}\nafter\n"
    assert [file.name for file in (tmp_path / "all").iterdir()] == ["dense.md"]


def test_the_version_of_a_library_decides_the_points_of_those_methods_that_import_it():
    assert (
        "torch-pruning" in fingerprint.libraries_of("depgraph")
        and fingerprint.libraries_of("dense") == fingerprint.libraries()
    )
