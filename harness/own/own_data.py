"""What a method sees of somebody's own images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness.data.splits import Learn
from harness.models.widths import ADVICE
from harness.point.method_data import MethodData
from leaderboard.records.params import AugmentParams
from methods import Needs, Schedule, Split

HELD_OUT = 5  # one of so many labelled images, drawn at random, is for choices


def learnt(images: Tensor, labelled: Split | None) -> Learn:
    """Return what can be learnt from `images`, and from `labelled` if there are any."""
    kept = {"calibration": images, "mean": images.new_zeros(1), "std": images.new_ones(1)}
    if labelled is None:
        return Learn(kept)
    order = torch.randperm(len(labelled.labels), generator=torch.Generator().manual_seed(0))
    held = max(1, len(order) // HELD_OUT)
    parts = {"validation": order[:held], "train": order[held:] if len(order) > 1 else order}
    for name, chosen in parts.items():
        kept[f"{name}.images"] = labelled.images[chosen.to(images.device)]
        kept[f"{name}.labels"] = labelled.labels[chosen.to(images.device)]
    return Learn(kept)


def recipe(epochs: float, learn: Learn) -> Schedule:
    """Return the recipe of the default track's fine-tuning for so many epochs."""
    batch = min(64, len(learn.tensors.get("train.labels", ())) or 1)
    return Schedule(
        optimiser="adamw",
        precision="fp32",
        epochs=epochs,
        batch=batch,
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup=0.3,
        label_smoothing=0.1,
    )


class OwnData(MethodData):
    """What a method sees of a track, of somebody's own images: unaugmented, with one
    budget of `epochs` for fine-tuning and for training from scratch, and with networks
    that `fresh` builds.
    """

    def __init__(
        self,
        learn: Learn,
        epochs: float,
        fresh: Callable[[float], nn.Module] | None,
        seed: int,
        needs: Needs,
    ) -> None:  # in place of the parent's, which takes all of this from a track
        self._scratch = self._fine_tune = recipe(epochs, learn)
        channels, height, width = learn.tensors["calibration"].shape[1:]
        self.image_shape = (channels, height, width)
        self.images_seen, self._calls = 0, 0
        self._learn, self._augment = learn, AugmentParams()
        self._fresh, self._seed, self._needs = fresh, seed, needs

    def narrower(self, width: float) -> nn.Module:
        self._only_for("scratch", "narrower")
        if self._fresh is None:
            raise ValueError(
                "this method trains a fresh or narrower network, and the model is none that timm "
                f"made: {ADVICE}, or the name by which timm does"
            )
        built = self._fresh(width)
        if not isinstance(built, nn.Module):
            raise ValueError(
                f"fresh({width:g}) returned {type(built).__name__}: it must return the model "
                "built at that width, a torch.nn.Module"
            )
        return built.to(self._learn.device)
