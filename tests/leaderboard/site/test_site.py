"""The static site as files: what is written where, and what of results may stand in
it.
"""

import inspect
import json
import re
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from harness.cli.command import app
from leaderboard.records.errors import UserError
from leaderboard.records.outline import read_outline
from leaderboard.site.archive import REVISION, read_archive
from leaderboard.site.data import asked_table, page_table
from leaderboard.site.docstrings import Docstring, arxiv, parsed
from leaderboard.site.names import page_name
from leaderboard.site.site import as_script
from leaderboard.tables.build import track_tables
from leaderboard.tables.ranking.losses import control_losses, mild_losses
from leaderboard.tables.table import record
from tests.conftest import ROOT


def build(results, *options):
    """Write the site of `results` beside them and return how the command ended."""
    files = [
        "--results",
        str(results.root),
        "--params",
        str(results.params),
        "--methods",
        str(methods(results)),
    ]
    return CliRunner().invoke(app, ["site", *files, "--into", str(site(results)), *options])


def site(results):
    return results.root.parent / "site"


def methods(results):
    return results.root.parent / "methods"


def rows_of(results, method):
    rows = track_tables(results.root, "v1", "digits", read_outline(results.params))[0].rows
    return [row for row in rows if row.method.name == method], rows


def test_every_track_hardware_method_and_model_has_a_page(filled):
    filled.write_latency("cpu_ort")
    outcome = build(filled)
    assert (
        outcome.exit_code == 0
        and outcome.stdout.strip() == (site(filled) / "index.html").as_posix()
    )
    found = {path.relative_to(site(filled)).as_posix() for path in site(filled).rglob("*.html")}
    methods = {f"methods/{name}.html" for name in ("dense", "wanda", "rtn", "l1_channels")}
    assert (
        found
        == {
            "index.html",
            "digits/cpu.html",
            "digits/cpu_ort.html",
            "models/digits_resnet.html",
            "models/digits_vit.html",
        }
        | methods
    )


def test_the_track_shown_first_leads_the_front_page_and_says_what_its_split_can_show(filled):
    filled.write_params("digits", "photos", first=["photos"])
    filled.write_dense_alone("photos")
    build(filled)
    page = (site(filled) / "index.html").read_text()
    for part in ("<h3>{}</h3>", '">{} on cpu</option>', 'cpu.html">{}</a>', "make repro TRACK={}"):
        places = [page.index(part.format(track)) for track in ("photos", "digits")]
        assert places == sorted(places)
    said = "one of 200 test images is 0.50 points"
    assert page.count(said) == 2 and "Calibrated on 10 images." in page
    assert said in (site(filled) / "photos" / "cpu.html").read_text()
    assert "Nothing is trained" not in page
    filled.write_track("photos", models={"resnet": {"scratch_epochs": 0, "fine_tune_epochs": 0}})
    build(filled)
    assert (site(filled) / "index.html").read_text().count("Nothing is trained") == 1
    page = (site(filled) / "models" / "photos_resnet.html").read_text()
    assert "budget in epochs: none, nothing is trained" in page


def test_a_method_without_any_number_on_a_track_says_why_and_draws_nothing(filled, lost_point):
    lost = lost_point("s-r", "skipped", "the track trains nothing (scratch)", setting={"macs": 0.5})
    filled.write_method("slim", [lost], needs="scratch")
    build(filled)
    page = (site(filled) / "methods" / "slim.html").read_text()
    assert "skipped, the track trains nothing (scratch)</li>" in page
    assert "Known losses" not in page and 'class="explorer"' not in page
    assert "Known losses" in (site(filled) / "methods" / "wanda.html").read_text()


def test_every_link_of_a_page_leads_to_a_file_and_nothing_is_loaded_from_elsewhere(filled):
    build(filled)
    for path in site(filled).rglob("*.html"):
        links = re.findall(r'(?:href|src)="([^"]*)"', path.read_text())
        assert links and all(
            (path.parent / link.partition("#")[0]).is_file()
            for link in links
            if not link.startswith(("#", "data:", "https://arxiv.org/"))
        )
        assert not re.findall(
            r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', path.read_text()
        )


def test_the_same_results_give_the_same_site_and_what_is_stale_goes(filled):
    build(filled)
    first = {path: path.read_bytes() for path in site(filled).rglob("*") if path.is_file()}
    (site(filled) / "methods" / "gone.html").write_text("stale")
    assert build(filled).exit_code == 0
    assert {path: path.read_bytes() for path in site(filled).rglob("*") if path.is_file()} == first


def test_a_folder_that_is_not_a_site_is_left_alone(filled):
    site(filled).mkdir()
    (site(filled) / "thesis.tex").write_text("years of work")
    outcome = build(filled)
    assert (
        outcome.exit_code == 2
        and "is not a site of this command" in outcome.stderr
        and len(outcome.stderr.splitlines()) == 1
    )
    assert (site(filled) / "thesis.tex").read_text() == "years of work"


def test_results_that_cannot_be_read_leave_the_site_as_it_was(filled):
    build(filled)
    before = (site(filled) / "index.html").read_bytes()
    (filled.folder() / "track.json").write_text("{")
    assert build(filled).exit_code == 2
    assert (site(filled) / "index.html").read_bytes() == before and [
        path.name for path in site(filled).parent.glob(".site*")
    ] == []


def test_text_of_results_is_escaped_everywhere_and_json_cannot_end_its_script(filled, point):
    evil = "</script><script>alert(1)</script>"
    filled.write_method(
        "svd",
        [point("s", range(3), setting={"rank": evil, "share": float("nan")})],
        family=evil,
        paper=evil,
    )
    methods(filled).mkdir()
    (methods(filled) / "svd.py").write_text(
        repr(f"{evil}\n\n{evil}\n\nChecked against:\n    - {evil}")
    )
    assert build(filled).exit_code == 0
    for path in site(filled).rglob("*.html"):
        assert "<script>alert" not in path.read_text() and "NaN," not in path.read_text()
    page = (site(filled) / "methods" / "svd.html").read_text()
    assert "&lt;script&gt;alert(1)" in page and "Checked against" in page


def test_what_a_method_says_of_itself_is_read_from_its_file_and_never_run(filled):
    methods(filled).mkdir()
    (methods(filled) / "rtn.py").write_text('"""RTN: rounds to `nearest`."""\nraise SystemExit\n')
    (methods(filled) / "__init__.py").write_text("no python at all")
    build(filled)
    assert (
        "RTN: rounds to <code>nearest</code>."
        in (site(filled) / "methods" / "rtn.html").read_text()
    )
    assert "RTN: rounds" not in (site(filled) / "methods" / "wanda.html").read_text()
    (methods(filled) / "rtn.py").write_text("def")
    outcome = build(filled)
    assert (
        outcome.exit_code == 2
        and "rtn.py is not Python" in outcome.stderr
        and len(outcome.stderr.splitlines()) == 1
    )


def archive(results):
    """Write tables of version 2 that nothing could parse; return the folder of those of
    digits.
    """
    folder = results.root / "v2" / "tables" / "digits"
    folder.mkdir(parents=True)
    (folder / "cpu.md").write_bytes(b"| <b>\xff |\r\n")
    (folder / "a b#.csv").write_text("one,two\n1\n")
    (folder / "cpu.svg").write_text("<svg/>")
    (results.root / "v2" / "records" / "digits").mkdir(parents=True)
    (results.root / "v2" / "records" / "digits" / "track.json").write_text("{")
    return folder


def test_tables_of_version_2_are_copied_to_the_byte_and_linked_and_not_read(filled):
    folder = archive(filled)
    assert build(filled).exit_code == 0
    page = (site(filled) / "archive.html").read_text()
    links = [link for link in re.findall(r'href="([^"]*)"', page) if link.startswith("archive/")]
    assert {(site(filled) / link).read_bytes() for link in links} == {
        (folder / name).read_bytes() for name in ("cpu.md", "a b#.csv")
    }
    assert len(links) == 2 and "archive/v2/digits/cpu.md" in links and "a b#.csv</a>" in page
    assert (
        "of version v2" in page
        and "not comparable with those of version v1" in page
        and f"revision <code>{REVISION}</code>" in page
    )
    assert (
        'href="archive.html"' in (site(filled) / "index.html").read_text()
        and "regenerated" not in page
    )
    test_every_link_of_a_page_leads_to_a_file_and_nothing_is_loaded_from_elsewhere(filled)


def test_without_tables_of_version_2_there_is_no_archive(filled):
    build(filled)
    assert (
        not list(site(filled).glob("archive*"))
        and "rchive" not in (site(filled) / "index.html").read_text()
    )
    shutil.rmtree(archive(filled))
    build(filled)
    assert (
        not list(site(filled).glob("archive*"))
        and "rchive" not in (site(filled) / "index.html").read_text()
    )


def test_the_committed_tables_of_version_2_are_the_archive_and_their_revision_is_of_that_version():
    archive = read_archive(ROOT / "results")
    assert {file.track for file in archive.files} == {"cifar10_cpu", "digits"} and {
        "cpu.md",
        "cpu.csv",
    } <= {file.name for file in archive.files}
    done = subprocess.run(
        ["git", "-C", str(ROOT), "show", f"{archive.revision}:params.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("this is no checkout with the history")
    assert f"\nversion: {archive.version}\n" in done.stdout


def test_statistics_that_lie_beside_the_tables_are_shown_and_a_broken_one_is_named(filled):
    filled.tables().mkdir(parents=True)
    (filled.tables() / "areas.csv").write_text(
        'needs,method,cost,area\nlabels,"a<b, c",bytes,0.93\n'
    )
    build(filled)
    page = (site(filled) / "digits" / "cpu.html").read_text()
    assert (
        "Area under each method" in page
        and "a&lt;b, c" in page
        and "0.93" in page
        and "Tiers of methods" not in page
    )
    (filled.tables() / "areas.csv").write_text("needs,method\nlabels\n")
    outcome = build(filled)
    assert outcome.exit_code == 2 and "areas.csv" in outcome.stderr


def test_page_data_are_the_values_of_the_csv_and_what_is_no_number_is_missing(filled):
    table = track_tables(filled.root, "v1", "digits", read_outline(filled.params))[0]
    data = json.loads(json.dumps(page_table(table, table.rows, "../").json(), allow_nan=False))
    for row, values in zip(table.rows, data["rows"], strict=True):
        for key, value in zip(data["keys"], values, strict=True):
            text = record(table, row)[key]
            assert value == text or (value is None and text == "") or value == float(text)
    listed = {column["key"] for column in data["columns"]}
    assert {key for key in data["keys"] if not key.endswith(("_low", "_high"))} - listed == {
        "version", "track", "hardware", "fingerprint", "test_images", "significance"
    }  # fmt: skip
    asked = asked_table(table, "")
    assert (
        len(asked.rows) == sum(row.measured is not None for row in table.rows)
        and "verdict_b1" in asked.keys
    )


def test_a_docstring_is_taken_apart_at_its_headings():
    text = """Name: what it
    does.

    Authors, arXiv 2306.11695.

    The idea, in
    words:

        y = W x
        z = A y

    The end: of it.

    Arguments:
        alpha: the share
            of it: all
        beta: more

    Assumed:
        - One
          thing.
        - Another.

    Checked against:
        - An oracle.
    """
    docstring = parsed(inspect.cleandoc(text))
    assert docstring.summary == "Name: what it does."
    assert docstring.reference == "Authors, arXiv 2306.11695."
    assert docstring.idea == ("The idea, in words:", "    y = W x\n    z = A y", "The end: of it.")
    assert docstring.arguments == (("alpha", "the share of it: all"), ("beta", "more"))
    assert docstring.assumed == ("One thing.", "Another.")
    assert docstring.checked == ("An oracle.",)
    assert parsed("Only this.") == Docstring("Only this.")
    assert parsed("") == Docstring()


def test_a_paper_at_arxiv_is_linked():
    assert arxiv("Sun et al., arXiv 2306.11695") == "https://arxiv.org/abs/2306.11695"
    assert arxiv("NeurIPS 2015") == ""


def test_known_losses_are_a_mild_setting_below_dense_and_a_control_that_costs_no_more(
    filled, point
):
    # 26 of 200 images more than dense: significant
    mild = point("s-5", range(30), setting={"share": 0.5}, size=700)
    hard = point("s-1", range(120), setting={"share": 0.1}, size=400)
    filled.write_method("svd", [mild, hard])
    filled.write_method(
        "slim", [point("n", range(6), setting={"macs": 0.3}, size=300, macs=50)], needs="scratch"
    )
    rows, table = rows_of(filled, "svd")
    assert [(loss.model, loss.setting, round(loss.points)) for loss in mild_losses(rows)] == [
        ("resnet", "share=0.5", -13)
    ]
    [loss] = control_losses(rows, table)
    assert (loss.control, loss.needs, loss.rows, loss.setting, round(loss.points)) == (
        "slim",
        "scratch",
        2,
        "share=0.1",
        57,
    )


def test_a_method_that_holds_at_its_mildest_has_no_known_loss_and_a_control_none_to_controls(
    filled, point
):
    rows, table = rows_of(filled, "rtn")  # loses 56 images at 2 bits, none at 8
    assert mild_losses(rows) == () and control_losses(rows, table) == ()
    filled.write_method("slim", [point("n", range(150), setting={"macs": 0.3}, size=900)])
    filled.write_method("random_pruning", [point("p", range(10), size=800)])
    rows, table = rows_of(filled, "slim")
    assert control_losses(rows, table) == ()


def test_page_names_are_plain_short_and_kept_apart():
    assert page_name("magnitude__kmeans_huffman") == "magnitude__kmeans_huffman"
    names = [
        page_name(name)
        for name in ("../../etc/passwd", "a b", "a-b", "ä" * 10_000, "ö" * 10_000, "", "<script>")
    ]
    assert len(set(names)) == len(names) and all(
        re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name) for name in names
    )


def test_another_form_of_the_tables_bundle_is_named():
    assert as_script("var a=1;export{a as b,c$ as default};/*! licence */").endswith(
        "window.DataTable=c$;/*! licence */\n})();\n"
    )
    with pytest.raises(UserError, match="itables"):
        as_script("var a=1;export default a;")
