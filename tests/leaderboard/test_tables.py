"""What stands in a table."""

import csv
import io
import shutil

import pandas as pd
import pytest

from leaderboard.build import track_tables
from leaderboard.experiment import Experiment, read_experiment
from leaderboard.markdown import escape, markdown_text
from leaderboard.tables import csv_text, number


def table_of(results, experiment=None):
    """Return the first table of the track digits."""
    return track_tables(results.root, "v1", "digits", experiment or read_experiment(results.params))[0]


def frame(table):
    """Return a table's CSV indexed by model, method and setting."""
    return pd.read_csv(io.StringIO(csv_text(table)), keep_default_na=False, dtype=str).set_index(["model", "method", "setting"])


@pytest.fixture
def cells(filled):
    """The filled results as text cells."""
    return frame(table_of(filled))


def test_rows_stand_by_model_then_params_order_then_setting(cells):
    names = [("dense", ""), ("wanda", "sparsity=0.5"), ("wanda", "sparsity=0.9"), ("rtn", "bits=8"), ("rtn", "bits=4"), ("rtn", "bits=2")]
    assert list(cells.loc["resnet"].index) == [*names, ("l1_channels", "keep=0.5")]
    assert list(dict.fromkeys(cells.index.get_level_values("model"))) == ["resnet", "vit"]


def test_without_an_order_dense_is_first_and_methods_follow_by_needs(filled):
    table = table_of(filled, Experiment())
    assert list(dict.fromkeys(row.method.name for row in table.rows)) == ["dense", "wanda", "rtn", "l1_channels"]


def test_ratios_are_dense_over_compressed(cells):
    row = cells.loc["resnet", "l1_channels", "keep=0.5"]
    assert (row.compression_ratio, row.theoretical_speedup, row.bit_operations_ratio) == ("2.0000", "2.0000", "2.0000")
    assert (row.macs, row.flops) == ("50", "100")


def test_seeds_are_averaged_and_the_lost_one_is_named(cells):
    row = cells.loc["resnet", "l1_channels", "keep=0.5"]
    assert (row.seeds, row.status, row.reason) == ("2", "2 of 3 seeds", "time limit")
    assert (row.accuracy_percent, row.seed_std_points) == ("98.2500", "0.3536")  # 197 and 196 of 200


def test_difference_and_significance_refer_to_dense(cells):
    assert (cells.loc["resnet", "rtn", "bits=2"].delta_points, cells.loc["resnet", "rtn", "bits=2"].significance) == ("-28.0000", "***")
    assert (cells.loc["resnet", "rtn", "bits=4"].delta_points, cells.loc["resnet", "rtn", "bits=4"].significance) == ("-1.0000", "")
    assert cells.loc["resnet", "dense", ""].delta_points == ""


def test_p_values_are_adjusted_over_the_whole_table(cells):
    adjusted = [float(p) for p in cells.p_adjusted if p]
    assert len(adjusted) == 7
    assert min(adjusted) < 1e-6 < 0.05 < float(cells.loc["resnet", "rtn", "bits=4"].p_adjusted)


def test_speedups_beyond_the_floor_are_ranked_and_others_tie(cells):
    assert cells.loc["resnet", "l1_channels", "keep=0.5"].verdict_b1 == "faster"
    assert float(cells.loc["resnet", "l1_channels", "keep=0.5"].speedup_b1) == pytest.approx(2, abs=0.01)
    assert cells.loc["resnet", "rtn", "bits=4"].verdict_b32 == "slower"
    assert cells.loc["resnet", "rtn", "bits=8"].verdict_b1 == "tie"
    assert float(cells.loc["resnet", "rtn", "bits=4"].p50_ms_b32) == pytest.approx(48, abs=0.2)


def test_masked_rows_make_no_claim_of_speed(cells):
    row = cells.loc["resnet", "wanda", "sparsity=0.5"]
    assert (row.verdict_b1, row.speedup_b1, row.p50_ms_b1, row.theoretical_speedup) == ("masked", "", "", "1.0000")
    assert row.effective_macs == "50"


def test_latency_of_a_masked_row_is_not_shown_even_if_measured(filled):
    filled.time("wanda", "w-r-5", 0.1)
    filled.write_latency()
    assert frame(table_of(filled)).loc["resnet", "wanda", "sparsity=0.5"].speedup_b1 == ""


def test_lost_rows_are_visible_with_their_reason(cells):
    assert tuple(cells.loc["vit", "rtn", "bits=8"][["status", "reason", "accuracy_percent", "seeds"]]) == ("failed", "returned NaN", "", "0")
    assert cells.loc["vit", "wanda", "sparsity=0.5"].status == "skipped"


def test_a_row_whose_seeds_skip_and_fail_has_failed(filled, lost_point):
    seeds = [lost_point("a", "skipped", "no"), lost_point("b", "failed", "boom", seed=1)]
    filled.write_method("svd", seeds)
    row = frame(table_of(filled)).loc["resnet", "svd", ""]
    assert (row.status, row.reason) == ("failed", "boom")


def test_rows_of_a_model_without_dense_have_no_ratios(filled, point):
    filled.write_method("dense", [point("d-r", range(4))])
    filled.benchmarks = [b for b in filled.benchmarks if b["extra_info"]["id"] != "d-v"]
    filled.write_latency()
    row = frame(table_of(filled)).loc["vit", "l1_channels", "keep=0.5"]
    assert (row.status, row.compression_ratio, row.delta_points, row.best) == ("ok", "", "", "")


def test_a_hardware_without_latency_still_has_its_table(filled):
    shutil.rmtree(filled.folder() / "latency")
    table = table_of(filled)
    row = frame(table).loc["resnet", "rtn", "bits=4"]
    assert table.name == "digits-cpu"
    assert (row.verdict_b1, row.p50_ms_b32, row.fingerprint) == ("not measured", "", "")
    assert "no latency was measured" in markdown_text(table)


def test_results_without_any_hardware_have_one_table(filled):
    shutil.rmtree(filled.folder() / "latency")
    assert table_of(filled, Experiment()).name == "digits-unmeasured"


def test_every_hardware_measured_has_a_table(filled):
    filled.write_latency("laptop")
    tables = track_tables(filled.root, "v1", "digits", read_experiment(filled.params))
    assert [table.name for table in tables] == ["digits-cpu", "digits-laptop"]


def test_the_same_results_give_the_same_bytes(filled):
    assert csv_text(table_of(filled)) == csv_text(table_of(filled))
    assert markdown_text(table_of(filled)) == markdown_text(table_of(filled))


def test_hostile_text_is_inert_and_on_one_line(filled):
    page = markdown_text(table_of(filled))
    assert "<script>" not in page and "<CPU>" not in page
    line = next(line for line in page.splitlines() if "script" in line)
    assert "no Linear &#124; here &lt;script&gt;" in line
    header = next(line for line in page.splitlines() if line.startswith("| method"))
    assert line.count("|") == header.count("|")


def test_hostile_text_keeps_the_csv_one_line_a_row(filled):
    text = csv_text(table_of(filled))
    assert len(list(csv.reader(io.StringIO(text)))) == len(text.splitlines()) == 13


@pytest.mark.parametrize("text", ["a|b", "a\nb", "<b>", "[x](y)", "`x`", "a\\|b", "a\u2028b", "\x1b[31m"])
def test_escaped_text_has_no_active_character(text):
    assert not set(escape(text)) & set("|\n<>[`\\\u2028\x1b")


def test_the_caption_names_what_the_table_rests_on(filled):
    page = markdown_text(table_of(filled))
    for text in ("Track digits", "abc123", "Version v1", "f00d", "noise floor", "`best` marks", "`pareto`", "Benjamini-Hochberg", "200 test"):
        assert text in page


def test_every_model_has_its_section_with_dense_first(filled):
    lines = markdown_text(table_of(filled)).splitlines()
    for model in ("resnet", "vit"):
        start = lines.index(f"## {model}")
        assert lines[start + 4].startswith("| dense")


def test_numbers_are_printed_without_negative_zero():
    assert (number(-0.00001, 2), number(1.005, 1), number(None, 3)) == ("0.00", "1.0", "")


def test_p95_is_the_95th_percentile_of_the_rounds_of_all_seeds(filled):
    for benchmark in filled.benchmarks:
        if benchmark["extra_info"]["id"] in ("l-r-0", "l-r-1") and benchmark["extra_info"]["batch"] == 1:
            start = 0.001 if benchmark["extra_info"]["id"] == "l-r-0" else 0.032
            benchmark["stats"]["data"] = [start + 0.001 * index for index in range(31)]  # 1 to 62 ms together
    filled.write_latency()
    row = frame(table_of(filled)).loc["resnet", "l1_channels", "keep=0.5"]
    assert (row.p50_ms_b1, row.p95_ms_b1) == ("31.50000", "58.95000")
