"""The ResNets of He et al. 2016 for CIFAR, section 4.2, in timm's registry:
`timm.create_model("resnet20_cifar", pretrained=True)`.

Three stages of n basic blocks with 16, 32 and 64 channels, 6n + 2 layers. Where a stage
begins, the shortcut takes every second pixel and pads the new channels with zeros
(option A), so that it has no weights. The reference weights are those of
github.com/akamaster/pytorch_resnet_cifar10, whose author had no validation split: the
checkpoints may have been chosen on the test set.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

from collections.abc import Sequence
from typing import Any

from timm.layers import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn import functional

URL = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"


def _cfg(file: str) -> dict[str, Any]:
    sizes = {"input_size": (3, 32, 32), "pool_size": (8, 8), "num_classes": 10, "crop_pct": 1.0}
    return {
        "url": URL + file,
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "bsd-2-clause",
        **sizes,
    }


default_cfgs = generate_default_cfgs(  # where timm's registry looks
    {
        "resnet20_cifar": _cfg("resnet20-12fca82f.th"),
        "resnet32_cifar": _cfg("resnet32-d509ac18.th"),
        "resnet44_cifar": _cfg("resnet44-014dd654.th"),
        "resnet56_cifar": _cfg("resnet56-4bfd9763.th"),
    }
)


class ZeroPadShortcut(nn.Module):
    """Shortcut of option A: (N, C, H, W) to (N, C + before + after, ceil(H / 2), ceil(W
    / 2)).
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class CifarResNet(nn.Module):
    """Images (N, in_chans, 32, 32) to logits (N, num_classes): three stages, each of so
    many blocks (`layers`) of so many `channels`.
    """

    def __init__(
        self,
        layers: Sequence[int],
        channels: Sequence[int] = (16, 32, 64),
        in_chans: int = 3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, channels[-1]
        self.conv1 = nn.Conv2d(in_chans, channels[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.act1 = nn.ReLU(inplace=True)
        self.layer1 = _stage(layers[0], channels[0], channels[0], 1)
        self.layer2 = _stage(layers[1], channels[0], channels[1], 2)
        self.layer3 = _stage(layers[2], channels[1], channels[2], 2)
        self.global_pool = SelectAdaptivePool2d(pool_type="avg", flatten=True)
        self.fc = nn.Linear(channels[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_classifier(self) -> nn.Module:
        """Return the classifier, as timm's models do."""
        return self.fc

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map (N, channels[-1], 8, 8)."""
        stem: Tensor = self.act1(self.bn1(self.conv1(x)))
        features: Tensor = self.layer3(self.layer2(self.layer1(stem)))
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.global_pool(self.forward_features(x)))
        return logits


def _stage(blocks: int, inside: int, outside: int, stride: int) -> nn.Sequential:
    before = (outside - inside) // 2
    shortcut = ZeroPadShortcut(before, outside - inside - before) if stride == 2 else None
    first = BasicBlock(inside, outside, stride=stride, downsample=shortcut)
    return nn.Sequential(first, *(BasicBlock(outside, outside) for _ in range(blocks - 1)))


def checkpoint_filter_fn(weights: dict[str, Tensor], _model: nn.Module) -> dict[str, Tensor]:
    """Return the reference's tensors (`module.` already removed) by our names; all of
    them must fit.

    Called as timm's own are, so that `harness.models.checkpoint` finds it.
    """
    return {name.replace("linear.", "fc."): tensor for name, tensor in weights.items()}


def _create(name: str, pretrained: bool, layers: Sequence[int], **kwargs: Any) -> CifarResNet:
    return build_model_with_cfg(
        CifarResNet,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        layers=layers,
        **kwargs,
    )


@register_model
def resnet20_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-20: 269,722 parameters."""
    return _create("resnet20_cifar", pretrained, (3, 3, 3), **kwargs)


@register_model
def resnet32_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-32: 464,154 parameters."""
    return _create("resnet32_cifar", pretrained, (5, 5, 5), **kwargs)


@register_model
def resnet44_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-44: 658,586 parameters."""
    return _create("resnet44_cifar", pretrained, (7, 7, 7), **kwargs)


@register_model
def resnet56_cifar(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-56: 853,018 parameters."""
    return _create("resnet56_cifar", pretrained, (9, 9, 9), **kwargs)
