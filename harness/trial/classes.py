"""Class folders of somebody's images among the classes that a model tells apart."""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

from collections.abc import Mapping, Sequence

import timm
from timm.data import ImageNetInfo, infer_imagenet_subset

from harness.models import weights
from leaderboard.records.errors import UserError, one_line
from leaderboard.records.params import ModelParams

CHANNELS = 3  # of photographs
SHOWN = 3  # names that a line spells out


def class_list(folders: Sequence[str], model: ModelParams) -> list[str] | None:
    """Return the classes of a model in the order of its logits, called as `folders` are
    where these are among them by WordNet id or by name; None where the model tells as
    many apart as there are folders, or where its weights cannot be had at all.

    Raises UserError where it tells others apart.
    """
    count = classes_known(model)
    if count is None:
        return None
    ids = _ids(count)
    names = _by_name(ids)
    places = {folder: names.get(_plain(folder), []) for folder in folders}
    if count == len(folders):
        return _in_order(ids, places)
    if _fits(model, len(folders)) or not _fits(model, count):
        return None
    strange = [folder for folder, found in places.items() if len(found) != 1]
    if strange:
        several = len(places[strange[0]])
        reason = f"stands for {several} of them" if several else "is none of them"
        shown = one_line(", ".join(map(repr, folders[:SHOWN])))
        raise UserError(
            f"the model tells {count:,} classes apart and the images have {len(folders):,} "
            f"({shown}{'…' if len(folders) > SHOWN else ''}): '{one_line(strange[0])}' {reason}: "
            "name the folders by WordNet ids (n01440764) or names of ImageNet, list the model's "
            "classes with --classes, or give weights for these classes"
        )
    called = {found[0]: folder for folder, found in places.items()}
    if len(called) < len(folders):
        raise UserError("two class folders stand for the same class of the model: join them")
    return [called.get(place, name) for place, name in enumerate(ids)]


def _in_order(ids: Sequence[str], places: Mapping[str, list[int]]) -> list[str] | None:
    """Return as many folders as there are classes in the order of these, if that is how
    they are called; None if they are called otherwise, and raise UserError if some are.
    """
    whole = {found[0]: folder for folder, found in places.items() if len(found) == 1}
    if ids and len(whole) == len(ids):
        return [whole[place] for place in range(len(ids))]
    if len(whole) > len(places) / 2:
        strange = next(folder for folder, found in places.items() if len(found) != 1)
        raise UserError(
            f"{len(whole):,} of {len(places):,} class folders are called as the model's classes, "
            f"'{one_line(strange)}' is not: list the classes in the model's order with --classes"
        )
    return None


def model_classes(model: ModelParams) -> list[str]:
    """Return the classes that a model tells apart, by id or else by number; raise
    UserError where timm does not know how many, or its weights are not for these.
    """
    count = classes_known(model)
    advice = "list the model's classes with --classes, for the images have no labels"
    if count is None:
        raise UserError(f"timm does not know the classes of '{model.timm}': {advice}")
    try:
        weights.load(model, CHANNELS, count)
    except UserError as error:
        raise UserError(f"{error}; or {advice}") from error
    return _ids(count) or [str(place) for place in range(count)]


def classes_known(model: ModelParams) -> int | None:
    """Return how many classes timm says that the model tells apart."""
    cfg = timm.get_pretrained_cfg(model.timm)
    return None if cfg is None else int(cfg.num_classes)


def descriptions(count: int) -> list[str]:
    """Return the names of a model's classes where it tells ImageNet's apart, () else."""
    subset = infer_imagenet_subset({"num_classes": count})
    return list(ImageNetInfo(subset).label_descriptions()) if subset else []


def _fits(model: ModelParams, classes: int) -> bool:
    try:
        weights.load(model, CHANNELS, classes)
    except UserError:
        return False
    return True


def _ids(count: int) -> list[str]:
    subset = infer_imagenet_subset({"num_classes": count})
    return ImageNetInfo(subset).label_names() if subset else []


def _by_name(ids: Sequence[str]) -> Mapping[str, list[int]]:
    """Return the classes that an id or a name, in small letters, stands for."""
    found: dict[str, list[int]] = {}
    for place, (name, said) in enumerate(zip(ids, descriptions(len(ids)), strict=True)):
        for text in dict.fromkeys([name, *map(_plain, said.split(","))]):
            found.setdefault(text, []).append(place)
    return found


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ").replace("-", " ")
