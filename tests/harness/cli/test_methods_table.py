"""The table of methods in the docs."""

from harness.cli import methods_table
from harness.run import fingerprint


def test_a_row_says_what_a_method_declares_what_it_was_checked_against_and_how_long_its_file_is():
    header, _, row = methods_table.table(["random_pruning"]).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert [cell.strip() for cell in header.strip("|").split("|")] == list(methods_table.HEADERS)
    assert cells[:2] == ["random_pruning", "pruning"] and cells[3:5] == ["calibration", "masked"]
    assert (
        cells[5] == "exact counts and the expected overlap 0.5 of two masks at s = 0.5."
        and cells[6] == "33"
    )


def test_empty_lines_comments_and_docstrings_are_no_lines_of_code():
    source = (
        '"""What."""\n\nimport os  # here\n\n\n# why\ndef f():\n    """Do.\n\n    So.\n    """\n  '
        '  return """a\nb"""\n'
    )
    assert methods_table.lines_of_code(source) == 4


def test_only_what_stands_between_the_markers_of_the_readme_is_replaced(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{methods_table.BEGIN}\nold\n{methods_table.END}\nafter\n")
    methods_table.update(readme, ["dense"])
    methods_table.update(readme, ["dense"])
    assert readme.read_text() == (
        f"before\n{methods_table.BEGIN}\n{methods_table.table(['dense'])}\n{methods_table.END}\n"
        "after\n"
    )


def test_the_version_of_a_library_decides_the_points_of_those_methods_that_import_it():
    assert (
        "torch-pruning" in fingerprint.libraries_of("depgraph")
        and fingerprint.libraries_of("dense") == fingerprint.libraries()
    )
