"""Plots: promised against real."""

import pytest

from leaderboard.records.outline import read_outline
from leaderboard.tables.build import build, track_tables
from leaderboard.tables.plots.accuracy import accuracy_plot
from leaderboard.tables.plots.promised import size_plot, speed_plot
from leaderboard.tables.promised_size import claimed_ratio


@pytest.mark.parametrize(
    ("setting", "ratio"),
    [
        ({"bits": 4}, 8.0),
        ({"average_bits": 3.2}, 10.0),
        ({"sparsity": 0.75}, 4.0),
        ({"n": 2, "m": 4}, 2.0),
        ({"sparsity": 0.5, "m": 4}, 2.0),
        ({"magnitude.sparsity": 0.5, "rtn.bits": 8}, 8.0),
        ({"macs": 0.5}, None),
        ({"taylor.macs": 0.5, "rtn.bits": 8}, None),
        ({"score": "zd"}, None),
        ({}, None),
    ],
)
def test_a_setting_promises_what_it_says_of_bits_and_zeros(setting, ratio):
    assert claimed_ratio(setting) == (ratio if ratio is None else pytest.approx(ratio))


def table_of(filled):
    return track_tables(filled.root, "v1", "digits", read_outline(filled.params))[0]


def test_plots_are_the_same_bytes_each_time_and_escape_what_they_name(filled, point):
    filled.write_method(
        "svd", [point("s", range(3), setting={"bits": 8})], family="<script>alert(1)</script>"
    )
    table = table_of(filled)
    for plot in (speed_plot, size_plot, accuracy_plot):
        text = plot(table)
        assert text == plot(table) and text.startswith("<?xml") and "<script" not in text


def test_there_is_no_plot_of_what_was_not_measured(results, point):
    results.write_dense_alone("digits")
    table = table_of(results)
    assert (
        speed_plot(table) is None and size_plot(table) is None and accuracy_plot(table) is not None
    )


def test_the_plot_of_accuracy_has_a_panel_for_each_model_with_its_front_and_every_family(filled):
    text = accuracy_plot(table_of(filled))
    for word in (
        "resnet",
        "vit",
        "Pareto front",
        "pruning",
        "quantisation",
        "compression ratio (bytes of dense / bytes of the file)",
    ):
        assert f">{word}</text>" in text, word
    assert "fill: #ffffff" in text  # a white ground, as the page it stands on may be dark


def test_the_plot_of_accuracy_is_built_with_the_tables(filled):
    build(filled.root, "v1", [], None, read_outline(filled.params))
    assert (filled.tables() / "accuracy.svg").read_text() == accuracy_plot(table_of(filled))
