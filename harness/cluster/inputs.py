"""What the points of a sweep need on a node, put where every node can fetch it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cluster.remote import Input, Remote, offer
from harness.cluster.tasks import Given, torch_build
from harness.data import splits
from harness.run.compress import track_record
from harness.run.paths import Paths
from harness.run.prepare import MADE, Made
from leaderboard.records.errors import UserError
from leaderboard.records.params import Params
from leaderboard.records.results import read_record
from leaderboard.records.schema import TrackInfo


def given_for(params: Params, paths: Paths, tracks: Sequence[str], remote: Remote) -> Given:
    """Put data and dense weights of the tracks into the remote, and return what their
    points share; raise UserError if they are not what was trained, or if a track imports
    models of somebody's own, which nodes do not have.
    """
    own = next((track for track in tracks if params.track(track).imports), None)
    if own is not None:
        raise UserError(
            f"track '{own}' imports {', '.join(params.track(own).imports)}, which no node has: "
            "run it on this machine"
        )
    records = {track: track_record(params, paths, track) for track in tracks}
    inputs = {
        (track, model): _data(params, paths, track, model, record, remote)
        for track, record in records.items()
        for model in record.models
    }
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


def _data(
    params: Params, paths: Paths, track: str, model: str, record: TrackInfo, remote: Remote
) -> tuple[Input, ...]:
    folder = splits.folder_of(paths.data(track), params.track(track), model)
    made = read_record(folder / MADE, Made)
    items = {
        name: offer(remote, f"data/{record.content_hash}/{folder.name}", folder / name)
        for name in (splits.LEARN, splits.TEST)
    }
    found = {name: item.sha256 for name, item in items.items()}
    if made.content_hash != record.content_hash or made.sha256 != found:
        raise UserError(
            f"{folder} holds other data than track '{track}' was trained on: run the train stage "
            "again"
        )
    return tuple(items.values())


def _dense(paths: Paths, track: str, model: str, record: TrackInfo, remote: Remote) -> Input:
    file, sha256 = paths.dense(track) / f"{model}.safetensors", record.models[model].weights_sha256
    if not file.exists() or (item := offer(remote, f"dense/{sha256}", file)).sha256 != sha256:
        raise UserError(
            f"{file} is missing or not what track '{track}' was trained to: run the train stage "
            "again"
        )
    return item
