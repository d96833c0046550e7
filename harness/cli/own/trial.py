"""A trial as commands begin and end it: asked for, held against what stands in its
folder, and its models delivered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import typer
import yaml

from harness.data import dataset
from harness.data.image_folder import Found, ImageFolder
from harness.run.paths import Paths
from harness.trial.answers import calibration_pool, too_few, unlabelled, write_answers
from harness.trial.asked import Asked, added, experiment
from harness.trial.classes import class_list, model_classes
from harness.trial.estimate import Counts, counted, estimate
from harness.trial.models import add_onnx, deliver_all
from leaderboard.records.errors import UserError
from leaderboard.records.files import write_text
from leaderboard.records.params import Params, load_params

EXPERIMENT, ANSWERS = "params.yaml", "answers.json"


@dataclass(frozen=True)
class Trial:
    """What is asked for, as an experiment, and the folder of all that it makes.

    unlabelled: the images, if they have no labels.
    """

    asked: Asked
    made: Params
    paths: Paths
    unlabelled: Found | None

    @property
    def file(self) -> Path:
        """Return where the experiment stands."""
        return self.paths.root / EXPERIMENT

    def estimate(self) -> Iterator[str]:
        """Yield what would run and about how long it takes; raise UserError where there
        are too few images.
        """
        if self.unlabelled is None:
            counts = counted(self.made, self.asked)
        else:
            pool, asked = len(calibration_pool(self.unlabelled)), self.asked.calibration
            if asked > pool:
                raise too_few(asked, pool)
            classes = len(self.unlabelled.classes or self.asked.data["classes"])
            counts = Counts(self.asked.calibration, len(self.unlabelled.test), classes)
        return estimate(self.made, self.asked, counts)

    def joined(self) -> Trial:
        """Return the trial with what was tried in its folder before; raise UserError if
        that is another, or something else.
        """
        root = self.paths.root
        begun = (self.paths.records(self.asked.track) / "track.json").exists()
        if self.file.exists() and not begun:  # what was refused before it made anything
            return self
        if self.file.exists():
            before = load_params(self.file)
            if before.tracks != self.made.tracks:
                raise UserError(
                    f"{root} holds another trial (other model, images or options): name another "
                    "folder with --into, or remove it"
                )
            return replace(self, made=added(self.made, before))
        if root.is_dir() and any(root.iterdir()):
            raise UserError(f"{root} is not empty and holds no trial: name another with --into")
        return self

    def write(self) -> None:
        """Write the experiment beside its results, and what dense answers where images
        have no labels.
        """
        content = self.made.model_dump(mode="json")
        write_text(self.file, yaml.safe_dump(content, sort_keys=False))
        if self.unlabelled is not None:
            track, answers = self.made.track(self.asked.track), self.paths.root / ANSWERS
            write_answers(self.unlabelled, track, self.asked.model.row, answers)

    def deliver(self, onnx: bool) -> str:
        """Write the models, and return where they lie."""
        delivered = deliver_all(self.made, self.paths, self.asked.track)
        if onnx:
            delivered = add_onnx(self.made, self.paths, self.asked.track, delivered)
            for line in delivered.without_onnx:
                typer.echo(line, err=True)
        return (self.paths.root / "models").as_posix()


def begun(asked: Asked, defaults: Params, into: Path) -> Trial:
    """Return the trial, its images' classes told as its model knows them; raise
    UserError where the model, the images or both together make no sense.
    """
    root, model = into.expanduser().resolve(), asked.model.params()
    found = unlabelled(asked)
    more: dict[str, object] = {}
    if found is not None:
        more["answers"] = str(root / ANSWERS)
    told = dataset(asked.dataset, asked.data)
    if isinstance(told, ImageFolder) and root.is_relative_to(Path(told.folder)):
        raise UserError(f"--into {root} lies in the folder of images: name one elsewhere")
    if isinstance(told, ImageFolder) and told.classes is None:
        listed = class_list(told.class_names(), model) if found is None else model_classes(model)
        more |= {"classes": listed} if listed is not None else {}
    whole = replace(asked, data={**asked.data, **more})
    made = experiment(whole, defaults)
    return Trial(whole, made, Paths(root, made.version), found)
