"""The counter equals closed forms and published counts, sees every form of a model
alike, and refuses what it does not know.
"""

import pytest
import timm
import torch
from torch import nn

from harness.point import counter, store

# GMACs per image at the default input size; resnet50 4.1, deit_small 4.6 and swin_tiny
# 4.5 as printed in their papers
PUBLISHED = {
    "resnet18": 1.814,
    "resnet50": 4.089,
    "mobilenetv2_100": 0.3008,
    "efficientnet_b0": 0.3858,
    "convnext_tiny": 4.456,
    "deit_small_patch16_224": 4.599,
    "swin_tiny_patch4_window7_224": 4.491,
    "eva02_tiny_patch14_224": 1.698,
}


def vit_macs(depth: int, tokens: int, width: int, patch: int, channels: int, classes: int) -> int:
    """Return the closed form: patch embedding, attention 4 N C^2 + 2 N^2 C and MLP 8 N
    C^2 per block, head.
    """
    embed = (tokens - 1) * patch**2 * channels * width
    return embed + depth * (12 * tokens * width**2 + 2 * tokens**2 * width) + width * classes


@pytest.mark.parametrize(("name", "gmacs"), PUBLISHED.items())
def test_timm_models_count_as_published(name, gmacs):
    model = timm.create_model(name).eval()
    images = torch.zeros(1, *timm.data.resolve_model_data_config(model)["input_size"])
    assert counter.count(model, images).macs / 1e9 == pytest.approx(gmacs, rel=3e-4)


def test_vit_equals_its_closed_form_to_the_unit():
    model = timm.create_model("deit_small_patch16_224").eval()
    assert counter.count(model, torch.zeros(1, 3, 224, 224)).macs == vit_macs(
        12, 197, 384, 16, 3, 1000
    )


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_convolution_equals_its_closed_form(groups):
    conv = nn.Conv2d(4, 8, (3, 5), stride=2, padding=(1, 2), groups=groups)
    assert counter.count(conv, torch.zeros(1, 4, 16, 20)).macs == 8 * (4 // groups) * 15 * 8 * 10


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_fused_unfused_and_exported_forms_count_the_same(make_model, track_data, name):
    model, images = make_model(name), track_data.validation.images[:2]
    eager = counter.count(model, images[:1]).macs
    exported = store.export(make_model(name), images).module()
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    assert (
        counter.count(model, images[:1]).macs
        == counter.count(exported, images[:1]).macs
        == eager
        > 0
    )


def test_inference_mode_and_a_batch_count_the_same_per_image(make_model, track_data):
    model, images = make_model("vit"), track_data.validation.images
    one = counter.count(model, images[:1]).macs
    with torch.inference_mode():
        assert counter.count(model, images[:1]).macs == one
    assert counter.count(model, images[:6]).macs == one


def test_effective_macs_skip_zero_weights_and_bit_operations_follow_stored_bits():
    linear = nn.Linear(8, 4, bias=False)
    linear.weight.data[:, :6] = 0
    count = counter.count(linear, torch.zeros(1, 8), {"weight": 4})
    assert (count.macs, count.effective_macs, count.bit_operations) == (32, 8, 32 * 4 * 32)


def test_attention_by_a_fused_kernel_that_the_counter_does_not_know_is_refused():
    encoder = nn.TransformerEncoderLayer(64, 4, batch_first=True).eval()
    with pytest.raises(
        counter.UnknownOperator, match=r"_transformer_encoder_layer_fwd.* in harness\."
    ):
        counter.count(encoder, torch.zeros(1, 16, 64))


def test_an_unknown_operator_on_a_large_tensor_is_refused_and_on_a_small_one_is_not():
    class Fourier(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).real

    with pytest.raises(counter.UnknownOperator, match="fft"):
        counter.count(Fourier(), torch.zeros(1, 4096))
    assert counter.count(Fourier(), torch.zeros(1, 16)).macs == 0


class Branching(torch.nn.Module):
    """Runs a second layer on batches whose first pixel is positive."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)

    def forward(self, x):
        x = self.first(x)
        return torch.cond(x[0, 0] > 0, lambda x: self.second(x), lambda x: x.clone(), (x,))


def test_of_a_program_that_branches_the_branch_taken_is_counted():
    torch.manual_seed(0)
    model = Branching().eval()
    x = torch.randn(32, 16)
    program = torch.export.export(model, (x[:8],))
    counts = {
        bool(model.first(row)[0] > 0): counter.count(program.module(), row.expand(8, 16)).macs
        for row in x
    }
    assert counts == {True: 2 * 16 * 16, False: 16 * 16}
