"""Small models that timm's factories do not allow, in timm's registry: for images of 16
to 32 pixels, or with a free patch size.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

from collections.abc import Sequence
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from timm.models.mlp_mixer import MlpMixer
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

default_cfgs = generate_default_cfgs(  # where timm's registry looks
    {
        "resnet_small": {"first_conv": "conv1.0", "classifier": "fc"},
        "mobilenetv2_small": {"first_conv": "conv_stem", "classifier": "classifier"},
        "mobilenetv2_cifar": {"first_conv": "conv_stem", "classifier": "classifier"},
        "mixer_small": {"first_conv": "stem.proj", "classifier": "head"},
    }
)


@register_model
def resnet_small(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet of basic blocks for images of 16 to 32 pixels: timm's deep 3x3 stem
    without stride or pooling, so that no stage sees a single pixel.

    At one pixel most taps of a padded 3x3 kernel only meet zeros, and a method would be
    praised for removing weights that do nothing.
    """
    model = build_model_with_cfg(
        ResNet, "resnet_small", pretrained, block=BasicBlock, stem_type="deep", **kwargs
    )
    model.get_submodule("conv1.0").stride = (1, 1)  # type: ignore[assignment]
    model.maxpool = nn.Identity()  # type: ignore[assignment]
    return model


@register_model
def mobilenetv2_small(
    pretrained: bool = False, channels: Sequence[int] = (16, 24, 32), **kwargs: Any
) -> EfficientNet:
    """MobileNetV2 for images of 16 to 32 pixels: one depth-wise separable stage and two
    inverted-residual stages of three blocks, expansion 4.
    """
    first, second, third = channels
    blocks = decode_arch_def(
        [[f"ds_r1_k3_s1_c{first}"], [f"ir_r3_k3_s2_e4_c{second}"], [f"ir_r3_k3_s2_e4_c{third}"]]
    )
    args = {
        "block_args": blocks,
        "stem_size": first,
        "act_layer": nn.ReLU6,
        "round_chs_fn": round,
        **kwargs,
    }
    return build_model_with_cfg(EfficientNet, "mobilenetv2_small", pretrained, **args)


@register_model
def mobilenetv2_cifar(
    pretrained: bool = False,
    channels: Sequence[int] = (32, 16, 24, 32, 64, 96, 160, 320),
    num_features: int = 1280,
    **kwargs: Any,
) -> EfficientNet:
    """MobileNetV2 at full depth for images of 32 pixels: stem and second stage without
    stride, so that the last feature map has 4x4 pixels.

    channels: of the stem, then of the seven stages of Sandler et al. 2018, table 2.
    """
    stem, *stages = channels
    kinds = (
        "ds_r1_k3_s1",
        "ir_r2_k3_s1_e6",
        "ir_r3_k3_s2_e6",
        "ir_r4_k3_s2_e6",
        "ir_r3_k3_s1_e6",
        "ir_r3_k3_s2_e6",
        "ir_r1_k3_s1_e6",
    )
    blocks = decode_arch_def(
        [[f"{kind}_c{width}"] for kind, width in zip(kinds, stages, strict=True)]
    )
    args = {
        "block_args": blocks,
        "stem_size": stem,
        "num_features": num_features,
        "act_layer": nn.ReLU6,
        "round_chs_fn": round,
        **kwargs,
    }
    model = build_model_with_cfg(EfficientNet, "mobilenetv2_cifar", pretrained, **args)
    model.conv_stem.stride = (1, 1)
    return model


@register_model
def mixer_small(pretrained: bool = False, **kwargs: Any) -> MlpMixer:
    """MLP-Mixer with free patch size, which timm's own factories fix."""
    return build_model_with_cfg(MlpMixer, "mixer_small", pretrained, **kwargs)
