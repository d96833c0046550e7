"""What the points of a sweep need on a node, put where every node can fetch it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.cluster.remote import Input, Remote, offer
from harness.cluster.tasks import Given, torch_build
from harness.data import splits
from harness.run.compress import track_record
from harness.run.paths import Paths
from leaderboard.records.errors import UserError
from leaderboard.records.params import Params
from leaderboard.records.schema import TrackInfo


def given_for(params: Params, paths: Paths, tracks: Sequence[str], remote: Remote) -> Given:
    """Put data and dense weights of the tracks into the remote, and return what their
    points share; raise UserError if they are not what was trained.
    """
    records = {track: track_record(params, paths, track) for track in tracks}
    inputs = {track: _data(paths, track, record, remote) for track, record in records.items()}
    dense = {
        (track, model): _dense(paths, track, model, record, remote)
        for track, record in records.items()
        for model in record.models
    }
    # which a node need not know
    short = {
        track: record.model_copy(update={"test_labels": ()}) for track, record in records.items()
    }
    return Given(params, remote, short, inputs, dense, torch_build())


def _data(paths: Paths, track: str, record: TrackInfo, remote: Remote) -> tuple[Input, ...]:
    folder, content_hash = paths.data(track), record.content_hash
    learn, test = splits.Learn.read(folder, torch.device("cpu")), splits.TestSplit.read(folder)
    if (
        splits.digest(learn.tensors | {"test.images": test.pixels, "test.labels": test.labels})
        != content_hash
    ):
        raise UserError(
            f"{folder} holds other data than track '{track}' was trained on: run the train stage "
            "again"
        )
    return tuple(
        offer(remote, f"data/{content_hash}", folder / name) for name in (splits.LEARN, splits.TEST)
    )


def _dense(paths: Paths, track: str, model: str, record: TrackInfo, remote: Remote) -> Input:
    file, sha256 = paths.dense(track) / f"{model}.safetensors", record.models[model].weights_sha256
    if not file.exists() or (item := offer(remote, f"dense/{sha256}", file)).sha256 != sha256:
        raise UserError(
            f"{file} is missing or not what track '{track}' was trained to: run the train stage "
            "again"
        )
    return item
