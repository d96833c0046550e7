import copy
from itertools import combinations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.nn.functional import kl_div, log_softmax

from methods import layer_merge
from methods.layer_merge import Entry, LayerMerge, candidates, importance, kept_subsets, solve
from methods.parts.depth.conv_merge import Chain, Segment, chain, mergeable, merged, segmented
from methods.parts.network.batchnorm import recalibrate

CNNS = ["resnet", "mobilenet"]


def row(start, end, cost, value):
    return Entry(start, end, cost, value, "", Segment(start, end, ()))


def ways(entries, node, nodes):
    if node == nodes:
        yield []
    for entry in entries:
        if entry.start == node:
            yield from ([entry, *rest] for rest in ways(entries, entry.end, nodes))


def layers_of(*convs):
    return [conv if isinstance(conv, nn.Conv2d) else nn.Conv2d(*conv) for conv in convs]


def cuts(block):
    """Every segment of a block, with the layers around it as they are."""
    n = len(block.layers)
    for segment in candidates(block):
        yield [
            *(Segment(i, i + 1, (i,)) for i in range(segment.start)),
            segment,
            *(Segment(i, i + 1, (i,)) for i in range(segment.end, n)),
        ]


def test_three_layers_by_hand():
    single = [row(i, i + 1, 4, 1.0) for i in range(3)]
    entries = [*single, row(0, 2, 5, 0.9), row(1, 3, 5, 0.95), row(0, 3, 3, 0.5)]
    assert solve(entries, 12) == single
    assert solve(entries, 11) == solve(entries, 9) == [single[0], entries[4]]
    assert solve(entries, 8) == solve(entries, 3) == [entries[5]]
    with pytest.raises(ValueError, match="out of reach"):
        solve(entries, 2)


def test_the_dynamic_program_finds_what_trying_every_segmentation_finds():
    draw = torch.Generator().manual_seed(0)
    for _ in range(40):
        nodes = int(torch.randint(1, 8, (), generator=draw))
        pairs = [
            pair
            for pair in combinations(range(nodes + 1), 2)
            for _ in range(2)
            if pair[1] == pair[0] + 1 or torch.rand((), generator=draw) < 0.7
        ]
        entries = [
            row(
                *pair,
                int(torch.randint(0, 12, (), generator=draw)),
                torch.rand((), generator=draw).item(),
            )
            for pair in pairs
        ]
        budget = int(torch.randint(0, 40, (), generator=draw))
        fitting = [
            way for way in ways(entries, 0, nodes) if sum(entry.T for entry in way) <= budget
        ]
        if not fitting:
            with pytest.raises(ValueError, match="out of reach"):
                solve(entries, budget)
            continue
        assert solve(entries, budget) == max(fitting, key=lambda way: sum(entry.I for entry in way))


def test_of_equally_important_ways_the_cheaper_is_taken():
    assert solve([row(0, 1, 5, 1.0), row(0, 1, 3, 1.0 - 1e-9), row(0, 1, 1, 0.9)], 9)[0].T == 3


def test_subsets_are_one_for_each_size_the_heaviest_and_hold_what_is_irreducible():
    convs = layers_of((4, 4, 3), (4, 4, 1), (4, 4, 3))
    for conv, scale in zip(convs, (1.0, 1.0, 2.0), strict=True):
        nn.init.constant_(conv.weight, scale)
    assert kept_subsets(convs, 0, 3) == [(0, 1, 2), (1, 2), (1,)]  # sizes 5, 3 and 1
    convs[0] = nn.Conv2d(2, 4, 3)
    assert kept_subsets(convs, 0, 3) == [(0, 1, 2), (0, 1)]
    convs[0] = nn.Conv2d(4, 4, 3, stride=2)
    assert kept_subsets(convs, 0, 3) == [(0, 1)]  # nothing wide behind a stride


def test_a_depthwise_result_is_another_form_than_a_dense_one_of_the_same_size():
    convs = layers_of(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1))
    assert kept_subsets(convs, 0, 2) == [(0, 1), (0,), (1,)]


@pytest.mark.parametrize("name", CNNS)
def test_every_segment_of_every_block_merges_exactly_borders_included(make_model, name):
    for block in filter(mergeable, make_model(name).double().modules()):
        x = torch.randn(2, chain(copy.deepcopy(block)).layers[0][0].in_channels, 6, 6).double()
        for cut in cuts(chain(copy.deepcopy(block))):
            unmerged = segmented(chain(copy.deepcopy(block)), cut)
            one = merged(copy.deepcopy(unmerged))
            torch.testing.assert_close(one(x.clone()), unmerged(x.clone()), rtol=0, atol=1e-10)
            expected = sum(bool(segment.kept) for segment in cut) + (
                len(cut) > 1
                and "downsample" in dict(block.named_children())
                and bool(block.downsample)
            )
            assert sum(isinstance(module, nn.Conv2d) for module in one.modules()) == expected


@pytest.mark.parametrize("name", CNNS)
def test_leaving_every_layer_as_it_is_changes_nothing(make_model, make_data, name):
    model, images = make_model(name), make_data(name).calibration
    expected = model(images)
    for part, block in list(model.named_modules()):
        if mergeable(block):
            model.set_submodule(
                part,
                segmented(
                    chain(block),
                    [
                        Segment(i, i + 1, (i,))
                        for i in range(len(chain(copy.deepcopy(block)).layers))
                    ],
                ),
            )
    assert torch.equal(model(images), expected)
    for part, block in list(model.named_modules()):
        if isinstance(block, Chain):
            model.set_submodule(part, merged(block))
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


def test_importance_is_exp_of_minus_the_divergence_after_reestimation(make_model, make_data):
    model, images = make_model("resnet"), make_data("resnet").calibration
    dense, without = model(images), copy.deepcopy(model)
    without.layer2[1] = nn.Identity()
    recalibrate(without, images)
    p, q = log_softmax(dense, 1), log_softmax(without(images), 1)
    expected = torch.exp(-kl_div(q, p, reduction="batchmean", log_target=True)).item()
    assert importance(model, "layer2.1", [Segment(0, 2, ())], images, dense) == pytest.approx(
        expected, rel=1e-5
    )
    assert 0 < expected < 1


@pytest.mark.parametrize("name", CNNS)
def test_without_traffic_the_cost_is_the_counted_macs_and_is_met(make_model, make_data, name):
    model, data = make_model(name), make_data(name)
    method = LayerMerge(cost=0.6, traffic=0, images=8)
    compressed = method.compress(copy.deepcopy(model), data)
    share = data.macs(compressed) / data.macs(model)
    assert 0.3 < share <= 0.6
    assert len(list(filter(mergeable, compressed.modules()))) < len(
        list(filter(mergeable, model.modules()))
    )


@pytest.mark.parametrize("name", CNNS)
def test_what_the_tables_say_a_change_saves_is_what_is_counted(make_model, make_data, name):
    model, data = make_model(name), make_data(name)
    entries = LayerMerge(cost=0.9, traffic=0, images=1).tables(model, data.calibration[:1])
    single = {
        (entry.block, entry.segment.start): entry.T
        for entry in entries
        if entry.end == entry.start + 1
    }
    seen = []
    for entry in (entry for entry in entries if entry.end > entry.start + 1):
        changed = copy.deepcopy(model)
        block, layers = (
            chain(changed.get_submodule(entry.block)),
            range(entry.segment.start, entry.segment.end),
        )
        changed.set_submodule(
            entry.block,
            merged(segmented(block, next(cut for cut in cuts(block) if entry.segment in cut))),
        )
        seen.append(
            (
                sum(single[entry.block, layer] for layer in layers) - entry.T,
                data.macs(model) - data.macs(changed),
            )
        )
    step = seen[0][1] / seen[0][0]
    # each cost is rounded up
    assert len(seen) > 10 and all(
        abs(saved * step - counted) <= 4 * step for saved, counted in seen
    )


def test_removing_convolutions_reaches_a_cost_that_merging_alone_cannot(make_model, make_data):
    model, images = make_model("resnet"), make_data("resnet").calibration
    entries = LayerMerge(cost=0.7, traffic=0, images=8).tables(model, images[:8])
    merging_alone = [
        entry
        for entry in entries
        if len(entry.segment.kept) == entry.segment.end - entry.segment.start
    ]
    with pytest.raises(ValueError, match="out of reach"):  # 5x5 costs more than 3x3 twice
        solve(merging_alone, 10_000)
    assert solve(entries, 10_000)


def test_the_merged_model_equals_the_trained_one_before_merging(make_model, make_data, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        layer_merge,
        "train",
        lambda model, data, schedule: seen.update(model=copy.deepcopy(model.eval())) or model,
    )
    data = make_data("mobilenet")
    compressed = LayerMerge(cost=0.6, images=8).compress(make_model("mobilenet"), data)
    images = data.calibration
    torch.testing.assert_close(compressed(images), seen["model"](images), rtol=1e-4, atol=1e-4)
    assert sum(isinstance(module, nn.Conv2d) for module in compressed.modules()) < sum(
        isinstance(module, nn.Conv2d) for module in seen["model"].modules()
    )


def test_models_without_such_blocks_are_skipped_with_a_reason(make_model):
    for name in ("vit", "mixer"):
        assert (
            LayerMerge().skip(make_model(name))
            == "no residual block of plain convolutions and batch norms"
        )
    assert LayerMerge().skip(make_model("resnet")) is None


def test_a_cost_below_what_stands_outside_of_blocks_is_refused(make_model, make_data):
    with pytest.raises(ValueError, match="out of reach"):
        LayerMerge(cost=0.01).compress(make_model("resnet"), make_data("resnet"))


def test_settings_are_checked():
    settings = TypeAdapter(LayerMerge)
    assert settings.validate_python({"cost": 0.5}) == LayerMerge(cost=0.5)
    for wrong in ({"cost": 0.0}, {"cost": 1.1}, {"traffic": -1.0}, {"images": 0}, {"macs": 0.5}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
