"""DVC's note of what a sweep wrote, of all stages at once: `dvc commit` reads and writes dvc.yaml and dvc.lock anew for each, two seconds every time."""

from __future__ import annotations

from pathlib import Path

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo

from leaderboard.records.errors import UserError
from leaderboard.records.params import Params


def commit(params: Params, folder: Path, track: str) -> int:
    """Do `dvc commit --force` of the compress and chain stages of `track` in the DVC project `folder`; return their number; raise UserError if DVC cannot."""
    params.track(track)
    kinds = {"compress": params.methods, "chain": params.chains}
    wanted = {f"{kind}@{track}-{name}" for kind, names in kinds.items() for name in names}
    try:
        with Repo(str(folder)) as repo, lock_repo(repo):
            stages = [stage for stage in repo.index.stages if getattr(stage, "name", None) in wanted]
            if len(stages) < len(wanted):
                raise UserError(f"dvc.yaml has no stage {min(wanted - {stage.name for stage in stages})}: restore it (git checkout dvc.yaml)")
            for stage in stages:
                stage.save()
                stage.commit()
            stages[0].dvcfile.dump_stages(stages, update_pipeline=False)
    except LockError as error:
        raise UserError("another DVC command works in this folder: wait until it has ended, then run this again") from error
    except DvcException as error:
        raise UserError(f"DVC cannot take note of the points of {track}: {error}: run `python -m harness sweep {track}` first") from error
    return len(stages)
