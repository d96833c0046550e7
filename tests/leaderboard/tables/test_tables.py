"""What stands in a table."""

import csv
import dataclasses
import io
import shutil

import pandas as pd
import pytest

from leaderboard.records.outline import Outline, read_outline
from leaderboard.tables.build import track_tables
from leaderboard.tables.github import escape
from leaderboard.tables.markdown import markdown_text
from leaderboard.tables.precision import accuracy_digits, number
from leaderboard.tables.table import csv_text


def table_of(results, outline=None):
    """Return the first table of the track digits."""
    return track_tables(results.root, "v1", "digits", outline or read_outline(results.params))[0]


def frame(table):
    """Return a table's CSV indexed by model, method and setting."""
    return pd.read_csv(io.StringIO(csv_text(table)), keep_default_na=False, dtype=str).set_index(
        ["model", "method", "setting"]
    )


@pytest.fixture
def cells(filled):
    """The filled results as text cells."""
    return frame(table_of(filled))


def test_rows_stand_by_model_then_params_order_then_setting(cells):
    names = [
        ("dense", ""),
        ("wanda", "sparsity=0.5"),
        ("wanda", "sparsity=0.9"),
        ("rtn", "bits=8"),
        ("rtn", "bits=4"),
        ("rtn", "bits=2"),
    ]
    assert list(cells.loc["resnet"].index) == [*names, ("l1_channels", "keep=0.5")]
    assert list(dict.fromkeys(cells.index.get_level_values("model"))) == ["resnet", "vit"]


def test_without_an_order_dense_is_first_and_methods_follow_by_needs(filled):
    table = table_of(filled, Outline())
    assert list(dict.fromkeys(row.method.name for row in table.rows)) == [
        "dense",
        "wanda",
        "rtn",
        "l1_channels",
    ]


def test_ratios_are_dense_over_compressed(cells):
    row = cells.loc["resnet", "l1_channels", "keep=0.5"]
    assert (row.compression_ratio, row.theoretical_speedup, row.bit_operations_ratio) == (
        "2.0000",
        "2.0000",
        "2.0000",
    )
    assert (row.macs, row.flops) == ("50", "100")


def test_a_point_that_runs_denses_program_is_a_tie_at_denses_time(filled):
    filled.benchmarks = [b for b in filled.benchmarks if b["extra_info"]["method"] != "rtn"]
    filled.same_program = [
        {"method": "rtn", "id": "r-r-8", "timed": {"method": "dense", "id": "d-r"}}
    ]
    filled.write_latency()
    cells = frame(table_of(filled))
    row, dense = cells.loc["resnet", "rtn", "bits=8"], cells.loc["resnet", "dense", ""]
    assert (row.verdict_b1, row.speedup_b1, row.speedup_b1_low) == (
        "as dense",
        "1.0000",
        "1.0000",
    ) and row.p50_ms_b1 == dense.p50_ms_b1 != ""
    assert (
        cells.loc["resnet", "rtn", "bits=4"].verdict_b1 == "not measured"
        and "speed" not in row.best
    )


def test_a_point_that_runs_the_program_of_another_has_its_times(filled):
    filled.same_program = [
        {"method": "rtn", "id": "r-r-8", "timed": {"method": "l1_channels", "id": "l-r-0"}}
    ]
    filled.benchmarks = [b for b in filled.benchmarks if b["extra_info"]["method"] != "rtn"]
    filled.write_latency()
    cells = frame(table_of(filled))
    row = cells.loc["resnet", "rtn", "bits=8"]
    assert row.verdict_b1 == "faster" and float(row.speedup_b1) == pytest.approx(
        2, abs=0.01
    ) == 1 / float(row.p50_ms_b1)


def test_seeds_are_averaged_and_the_lost_one_is_named(cells):
    row = cells.loc["resnet", "l1_channels", "keep=0.5"]
    assert (row.seeds, row.status, row.reason) == ("2", "2 of 3 seeds", "time limit")
    # 197 and 196 of 200
    assert (row.accuracy_percent, row.seed_std_points) == ("98.2500", "0.3536")


def test_difference_and_significance_refer_to_dense(cells):
    assert (
        cells.loc["resnet", "rtn", "bits=2"].delta_points,
        cells.loc["resnet", "rtn", "bits=2"].significance,
    ) == ("-28.0000", "***")
    assert (
        cells.loc["resnet", "rtn", "bits=4"].delta_points,
        cells.loc["resnet", "rtn", "bits=4"].significance,
    ) == ("-1.0000", "")
    assert cells.loc["resnet", "dense", ""].delta_points == ""


def test_p_values_are_adjusted_over_the_whole_table(cells):
    adjusted = [float(p) for p in cells.p_adjusted if p]
    assert len(adjusted) == 7
    assert min(adjusted) < 1e-6 < 0.05 < float(cells.loc["resnet", "rtn", "bits=4"].p_adjusted)


def test_speedups_beyond_the_floor_are_ranked_and_others_tie(cells):
    assert cells.loc["resnet", "l1_channels", "keep=0.5"].verdict_b1 == "faster"
    assert float(cells.loc["resnet", "l1_channels", "keep=0.5"].speedup_b1) == pytest.approx(
        2, abs=0.01
    )
    assert cells.loc["resnet", "rtn", "bits=4"].verdict_b32 == "slower"
    assert cells.loc["resnet", "rtn", "bits=8"].verdict_b1 == "tie"
    assert float(cells.loc["resnet", "rtn", "bits=4"].p50_ms_b32) == pytest.approx(48, abs=0.2)


def test_masked_rows_make_no_claim_of_speed(cells):
    row = cells.loc["resnet", "wanda", "sparsity=0.5"]
    assert (row.verdict_b1, row.speedup_b1, row.p50_ms_b1, row.theoretical_speedup) == (
        "masked",
        "",
        "",
        "1.0000",
    )
    assert row.effective_macs == "50"


def test_latency_of_a_masked_row_is_not_shown_even_if_measured(filled):
    filled.time("wanda", "w-r-5", 0.1)
    filled.write_latency()
    assert frame(table_of(filled)).loc["resnet", "wanda", "sparsity=0.5"].speedup_b1 == ""


def test_latency_of_a_masked_row_is_shown_where_a_kernel_leaves_its_zeros_out(filled):
    filled.time("wanda", "w-r-5", 0.1)
    filled.write_latency(sparse="2:4")
    assert frame(table_of(filled)).loc["resnet", "wanda", "sparsity=0.5"].verdict_b1 in (
        "faster",
        "slower",
    )


def test_lost_rows_are_visible_with_their_reason(cells):
    assert tuple(
        cells.loc["vit", "rtn", "bits=8"][["status", "reason", "accuracy_percent", "seeds"]]
    ) == ("failed", "returned NaN", "", "0")
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
    assert table.hardware == "cpu"
    assert (row.verdict_b1, row.p50_ms_b32, row.fingerprint) == ("not measured", "", "")
    assert "no latency was measured" in markdown_text(table)


def test_results_without_any_hardware_have_one_table(filled):
    shutil.rmtree(filled.folder() / "latency")
    assert table_of(filled, Outline()).hardware == "unmeasured"


def test_every_hardware_measured_has_a_table(filled):
    filled.write_latency("laptop")
    tables = track_tables(filled.root, "v1", "digits", read_outline(filled.params))
    assert [table.hardware for table in tables] == ["cpu", "laptop"]


def test_two_machines_have_a_table_each_and_never_one_together(filled):
    filled.write_latency(machine="beef")
    tables = track_tables(filled.root, "v1", "digits", read_outline(filled.params))
    assert [(table.hardware, table.run.machine.fingerprint) for table in tables] == [
        ("cpu_beef", "beef"),
        ("cpu_f00d", "f00d"),
    ]


def test_a_row_that_could_not_be_timed_shows_why(filled):
    filled.benchmarks = [b for b in filled.benchmarks if b["extra_info"]["id"] != "r-r-8"]
    filled.failed = [
        {"method": "rtn", "id": "r-r-8", "reason": "not exported to ONNX: no operator | for it"}
    ]
    filled.write_latency()
    table = table_of(filled)
    row = frame(table).loc["resnet", "rtn", "bits=8"]
    assert (row.verdict_b1, row.status, row.latency_reason) == (
        "failed",
        "ok",
        "not exported to ONNX: no operator | for it",
    )
    assert escape("ok; latency: not exported to ONNX: no operator | for it") in markdown_text(table)


def test_realised_speed_stands_beside_theory_as_a_share_of_it(cells):
    row = cells.loc["resnet", "l1_channels", "keep=0.5"]
    assert float(row.realised_of_theory_b1) == pytest.approx(
        float(row.speedup_b1) / float(row.theoretical_speedup), abs=1e-4
    )


def test_agreement_and_memory_are_columns_where_they_were_measured(filled):
    assert "b1 same %" not in markdown_text(table_of(filled))
    for benchmark in filled.benchmarks:
        benchmark["extra_info"] |= {"agreement": {"same": 199, "images": 200}, "peak_mib": 1.25}
    filled.write_latency()
    row = frame(table_of(filled)).loc["resnet", "rtn", "bits=8"]
    assert (row.agreement_percent_b1, row.peak_mib_b1) == (
        "99.50",
        "1.25",
    ) and "b1 same %" in markdown_text(table_of(filled))


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


@pytest.mark.parametrize(
    "text", ["a|b", "a\nb", "<b>", "[x](y)", "`x`", "a\\|b", "a\u2028b", "\x1b[31m"]
)
def test_escaped_text_has_no_active_character(text):
    assert not set(escape(text)) & set("|\n<>[`\\\u2028\x1b")


def test_the_caption_names_what_the_table_rests_on(filled):
    page = markdown_text(table_of(filled))
    for text in (
        "Track digits",
        "abc123",
        "Version v1",
        "f00d",
        "noise floor",
        "`best` marks",
        "`pareto`",
        "Benjamini-Hochberg",
        "200 test",
    ):
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
        if (
            benchmark["extra_info"]["id"] in ("l-r-0", "l-r-1")
            and benchmark["extra_info"]["batch"] == 1
        ):
            start = 0.001 if benchmark["extra_info"]["id"] == "l-r-0" else 0.032
            # 1 to 62 ms together
            benchmark["stats"]["data"] = [start + 0.001 * index for index in range(31)]
    filled.write_latency()
    row = frame(table_of(filled)).loc["resnet", "l1_channels", "keep=0.5"]
    assert (row.p50_ms_b1, row.p95_ms_b1, row.p99_ms_b1) == ("31.50000", "58.95000", "61.39000")


def test_the_caption_names_the_data_down_to_the_arrays_that_were_loaded(filled):
    page = markdown_text(table_of(filled))
    assert "Digits (1797 images of 8 x 8), dataset digits (content hash `abc123`)" in page
    assert "Loaded (sha256): images `a18e`, labels `b29f`." in page


def test_the_caption_says_what_dense_is_the_budgets_and_where_and_with_which_seeds_compressing_ran(
    filled,
):
    page = markdown_text(table_of(filled))
    assert (
        "Dense: own recipe, 30 epochs (resnet, vit). Budgets in epochs: 6 of fine-tuning, 30 from "
        "scratch (resnet, vit)."
    ) in page
    assert "Compressed on cpu; seeds: 0, 1, 2." in page
    assert "validation split" not in page


@pytest.fixture
def referenced(filled):
    """The filled results with dense of one model from somebody else's weights and with
    other budgets.
    """
    own = {
        "timm": "x",
        "parameters": 10,
        "test_accuracy": 0.9,
        "dense": "own recipe, 1 epoch",
        "scratch_epochs": 9.0,
        "fine_tune_epochs": 0.25,
    }
    foreign = own | {"dense": "reference weights resnet20-12fca82f.th", "scratch_epochs": 8}
    filled.write_track(models={"resnet": foreign, "vit": own}, device="cuda", seeds=[0, 4])
    return filled


def test_the_caption_tells_models_of_different_dense_and_budgets_apart(referenced):
    page = markdown_text(table_of(referenced))
    assert (
        "Dense: reference weights resnet20-12fca82f.th (resnet); own recipe, 1 epoch (vit)." in page
    )
    assert (
        "Budgets in epochs: 0.25 of fine-tuning, 8 from scratch (resnet); 0.25 of fine-tuning, 9 "
        "from scratch (vit)."
    ) in page
    assert "Compressed on cuda; seeds: 0, 4." in page


def test_the_caption_names_the_methods_that_train_for_other_epochs(filled, point):
    filled.write_method("slim", [point("a", range(5))], scratch_epochs=2.5)
    assert "from scratch (resnet, vit); 2.5 from scratch (slim). Compressed" in markdown_text(
        table_of(filled)
    )


def test_the_caption_says_what_was_decided_about_the_data(filled):
    table = table_of(filled)
    info = table.info.model_copy(update={"notes": ("test is val/", "<b> was left out")})
    page = markdown_text(dataclasses.replace(table, info=info))
    assert "Decided: test is val/; &lt;b&gt; was left out." in page
    assert "Decided" not in markdown_text(table)


def test_the_caption_warns_that_reference_weights_may_be_chosen_on_test(referenced):
    page = markdown_text(table_of(referenced))
    assert (
        "Dense was not trained here: it, and with it everything made from it, may have been chosen "
        "on the test set."
    ) in page


@pytest.mark.parametrize(("images", "digits"), [(1, 1), (9_999, 1), (10_000, 2), (50_000, 2)])
def test_accuracy_has_as_many_decimals_as_the_test_split_can_tell_apart(images, digits):
    assert accuracy_digits(images) == digits


def test_ten_thousand_images_show_a_hundredth_of_a_point_in_the_page(large):
    page = markdown_text(table_of(large))
    assert "| 92.60 [92.07, 93.10] |" in page
    assert "| -0.05 [" in page and "3 ±0.01" in page
