"""The counter against the definition, on random graphs: the shapes of every layer's
output and weight give what it multiplies.
"""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harness.point import counter

LAYER = st.fixed_dictionaries(
    {
        "width": st.integers(1, 6),
        "kernel": st.sampled_from([1, 3]),
        "stride": st.integers(1, 2),
        "grouped": st.booleans(),
        "twice": st.booleans(),
    }
)


class Graph(nn.Module):
    """Convolutions one after another, some of them run twice with their results added,
    and a classifier.
    """

    def __init__(self, layers):
        super().__init__()
        self.convs, self.twice, channels = nn.ModuleList(), [layer["twice"] for layer in layers], 2
        for layer in layers:
            groups = 2 if layer["grouped"] and channels % 2 == 0 else 1
            width = groups * layer["width"]
            self.convs.append(
                nn.Conv2d(
                    channels,
                    width,
                    layer["kernel"],
                    layer["stride"],
                    layer["kernel"] // 2,
                    groups=groups,
                )
            )
            channels = width
        self.head = nn.Linear(channels, 3)

    def forward(self, x):
        for conv, twice in zip(self.convs, self.twice, strict=True):
            x = conv(x) + conv(-x) if twice else conv(x).relu()
        return self.head(x.mean((2, 3)))


@settings(max_examples=30, deadline=None)
@given(st.lists(LAYER, min_size=1, max_size=4))
def test_a_random_graph_counts_what_its_layers_multiply(layers):
    model, multiplied = Graph(layers).eval(), []
    for layer in [*model.convs, model.head]:
        layer.register_forward_hook(
            lambda layer, _, output: multiplied.append(output.numel() * layer.weight[0].numel())
        )
    images = torch.randn(1, 2, 9, 9)
    model(images)
    wanted = sum(multiplied)
    assert counter.count(model, images).macs == wanted
