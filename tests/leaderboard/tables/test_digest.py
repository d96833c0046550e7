"""The digest, the metrics and the curves."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leaderboard.records.errors import UserError
from leaderboard.records.files import put_between
from leaderboard.records.outline import read_outline
from leaderboard.records.statistics import SIGNIFICANT, sign_flip_p
from leaderboard.tables.build import build
from leaderboard.tables.caption import FEWEST


@pytest.fixture
def built(filled):
    """The filled results with everything made of them."""
    build(filled.root, "v1", [], filled.readme, read_outline(filled.params))
    return filled


def line_of(readme, method):
    """Return the cells of a method's line in the digest."""
    line = next(line for line in readme.read_text().splitlines() if line.startswith(f"| {method}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_line_says_what_a_method_reaches_without_a_significant_loss(built):
    assert line_of(built.readme, "rtn") == [
        "rtn",
        "quantisation",
        "data-free",
        "packed",
        "8.00 / 1.00 / tie",
        "failed",
    ]
    assert line_of(built.readme, "wanda")[4:] == ["1.67 / 1.00 / masked", "skipped"]
    assert line_of(built.readme, "l1_channels")[4:] == [
        "2.00 / 2.00 / 2.00",
        "2.00 / 2.00 / not measured",
    ]
    assert line_of(built.readme, "dense")[4:] == ["98.0 %", "98.0 %"]


def test_a_method_that_always_loses_shows_its_mildest_loss(filled, point):
    filled.write_method(
        "rtn",
        [point("a", range(60), setting={"bits": 2}), point("b", range(40), setting={"bits": 3})],
    )
    build(filled.root, "v1", [], filled.readme, read_outline(filled.params))
    assert line_of(filled.readme, "rtn")[4:] == ["- (-18.0)", ""]


def test_a_section_says_title_dense_budgets_device_and_seeds(built):
    text = (built.tables() / "digest.md").read_text()
    assert text.startswith(
        "### digits, version v1\n\nDigits (1797 images of 8 x 8). Dense: own recipe, 30 epochs "
        "(resnet, vit)."
    )
    assert (
        "Budgets in epochs: 6 of fine-tuning, 30 from scratch (resnet, vit). Compressed on cpu; "
        "seeds: 0, 1, 2. Resolution: "
    ) in text
    assert text.strip() in built.readme.read_text()


def test_a_section_says_what_the_split_can_show_and_what_methods_were_calibrated_on(built):
    said = (
        "Resolution: one of 200 test images is 0.50 points, a difference that rests on fewer than "
        "6 images is never significant, the 95 % interval of dense is up to ±2.1 points. "
        "Calibrated on 10 images.\n"
    )
    assert said in (built.tables() / "digest.md").read_text()
    assert said in (built.tables() / "cpu.md").read_text()


def test_six_images_are_the_fewest_that_can_be_significant():
    for images in (FEWEST - 1, FEWEST):
        dense, lower = np.ones((1, 100), bool), np.ones((1, 100), bool)
        lower[:, :images] = False
        assert (sign_flip_p(lower, dense) < SIGNIFICANT) == (images == FEWEST)


def test_a_method_that_is_skipped_on_every_model_stands_below_with_its_reason(filled, lost_point):
    filled.write_track(
        models={name: {"scratch_epochs": 0, "fine_tune_epochs": 0} for name in ("resnet", "vit")}
    )
    for name in ("slim", "distill"):
        lost = [
            lost_point(f"{name}-{model}", "skipped", "the track trains nothing (scratch)", model)
            for model in ("resnet", "vit")
        ]
        filled.write_method(name, lost, needs="scratch")
    build(filled.root, "v1", [], filled.readme, read_outline(filled.params))
    text = filled.readme.read_text()
    assert "Skipped on every model: the track trains nothing (scratch): " in text
    assert "| slim" not in text and "| distill" not in text and "| wanda" in text
    assert "Budgets in epochs: none, nothing is trained: methods that train are skipped" in text


def test_tiers_of_one_dataset_differ_in_what_their_sections_say(filled):
    for track, epochs in (("cifar10_cpu", 10), ("cifar10_full", 200)):
        filled.write_dense_alone(track)
        path = filled.folder(track) / "track.json"
        path.write_text(
            path.read_text().replace('"scratch_epochs": 30', f'"scratch_epochs": {epochs}')
        )
        build(filled.root, "v1", [track], filled.readme, read_outline(filled.params))
        assert (
            f"6 of fine-tuning, {epochs} from scratch"
            in (filled.tables(track) / "digest.md").read_text()
        )


def test_ten_thousand_images_show_a_hundredth_of_a_point_in_the_digest(large, point):
    large.write_method("wanda", [point("w", range(900), size=300, images=10_000)])
    build(large.root, "v1", [], large.readme, read_outline(large.params))
    assert line_of(large.readme, "dense")[4:] == ["92.60 %"]
    assert line_of(large.readme, "wanda")[4:] == ["- (-1.60)"]


def test_only_the_text_between_the_markers_is_replaced(built):
    text = built.readme.read_text()
    assert text.startswith("# Title\n<!-- digest:begin -->\n") and text.endswith(
        "\n<!-- digest:end -->\ntail\n"
    )
    assert "old" not in text.split()


def test_the_digest_is_rewritten_to_the_same_text(built):
    before = built.readme.read_bytes()
    build(built.root, "v1", [], built.readme, read_outline(built.params))
    assert built.readme.read_bytes() == before


def test_the_digest_links_to_a_table_that_exists(built):
    link = built.readme.read_text().partition("](")[2].partition(")")[0]
    assert (built.readme.parent / link).is_file()


@pytest.mark.parametrize(
    "text", ["", "<!-- digest:begin -->", "<!-- digest:end --> <!-- digest:begin -->"]
)
def test_missing_markers_are_an_error(text):
    with pytest.raises(
        UserError, match=r"README.md lacks the lines <!-- digest:begin --> and <!-- digest:end -->"
    ):
        put_between(text, "digest", "new", Path("README.md"))


def test_nothing_is_written_when_the_readme_has_no_markers(filled):
    filled.readme.write_text("# Title\n")
    with pytest.raises(UserError):
        build(filled.root, "v1", [], filled.readme, read_outline(filled.params))
    assert not (filled.root / "v1" / "tables").exists()


def test_metrics_are_flat_numbers_of_one_track(built):
    metrics = json.loads((built.tables() / "metrics.json").read_text())
    assert all(isinstance(value, (int, float)) for value in metrics.values())
    assert (metrics["rows/ok"], metrics["rows/skipped"], metrics["rows/failed"]) == (9, 2, 1)
    assert metrics["resnet/dense_accuracy"] == 0.98
    assert metrics["resnet/best_compression_ratio"] == 8.0
    assert metrics["resnet/best_speedup_cpu"] == pytest.approx(2, abs=0.01)
    assert 0 < metrics["noise_floor_cpu/b1"] < 0.01


def test_curves_hold_every_measured_row(built):
    curves = pd.read_csv(built.tables() / "curves.csv")
    assert list(curves.columns) == [
        "track",
        "method",
        "model",
        "setting",
        "compression_ratio",
        "theoretical_speedup",
        "accuracy",
    ]
    assert len(curves) == 9
    assert curves[curves.setting == "bits=2"].iloc[0].accuracy == 0.7


def test_no_temporary_file_is_left(built):
    assert not list(built.root.rglob(".*"))
