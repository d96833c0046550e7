"""Running jobs in worker processes, a few at a time, each under a time limit, none able
to take its neighbours down.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import forkserver
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from leaderboard.records.errors import Interrupted, UserError, one_line

Job = TypeVar("Job")
# imported once, by the server that workers are forked from
PRELOAD = [
    "harness.run.server.uninterrupted",
    "typer",
    "harness.run.guard",
    "harness.run.train",
    "harness.run.server.preload",
]
LONGEST = 800  # characters of a line of ours
CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Pools:
    """Processes that are each used for one job, and processes that last; both are
    forked when needed.
    """

    fresh: ProcessPool
    lasting: ProcessPool
    count: int

    @property
    def all(self) -> tuple[ProcessPool, ProcessPool]:
        """Return both pools."""
        return self.fresh, self.lasting


@dataclass(frozen=True)
class Outcome:
    """The value a job returned, or the one-line reason why it did not."""

    value: dict[str, Any] | None
    reason: str | None


def start_server() -> None:
    """Start the server that workers are forked from, so that its imports run beside
    those of the caller.
    """
    CONTEXT.set_forkserver_preload(PRELOAD)
    forkserver.ensure_running()


def pools_of(count: int, begin: Callable[[], None] | None = None) -> Pools:
    """Return pools of `count` processes, which last until somebody ends them or this
    process ends; each begins with a call of `begin`.
    """
    start_server()
    fresh = ProcessPool(count, max_tasks=1, initializer=begin, context=CONTEXT)
    return Pools(fresh, ProcessPool(count, initializer=begin, context=CONTEXT), count)


@contextmanager
def workers(count: int, begin: Callable[[], None] | None = None) -> Iterator[Pools]:
    """Yield pools of `count` processes, each of which begins with a call of `begin`;
    leaving by an exception kills what is running.
    """
    pools = pools_of(count, begin)
    try:
        yield pools
        for pool in pools.all:
            pool.close()
    except BaseException as error:
        for pool in pools.all:
            pool.stop()
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted("finished points are kept") from None
        raise
    finally:
        for pool in pools.all:
            pool.join()


def run_all(
    pools: Pools,
    jobs: Iterable[Job],
    steps: Sequence[Callable[[Job], dict[str, Any]]],
    seconds: float,
) -> Iterator[tuple[Job, list[Outcome]]]:
    """Yield each job with the outcomes of its steps as it ends.

    The first step runs in a process of its own, later ones (which run no method) in
    processes that last, and only if the step before neither failed nor skipped; no more
    jobs are under way than a pool has processes, and one begun is finished before
    another begins, nor is taken from `jobs`. `seconds` is the limit of each step.
    """
    fresh = iter(jobs)
    running: dict[Future[Any], tuple[Job, list[Outcome]]] = {}

    def schedule(job: Job, outcomes: list[Outcome]) -> None:
        pool = pools.lasting if outcomes else pools.fresh
        running[pool.schedule(steps[len(outcomes)], args=[job], timeout=seconds)] = (job, outcomes)

    for job in islice(fresh, pools.count):
        schedule(job, [])
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job, outcomes = running.pop(future)
            outcomes.append(_outcome(future, seconds))
            value = outcomes[-1].value
            if (
                value is not None
                and value.get("status") != "skipped"
                and len(outcomes) < len(steps)
            ):
                schedule(job, outcomes)
                continue
            for following in islice(fresh, 1):
                schedule(following, [])
            yield job, outcomes


def run_lasting(
    pools: Pools, jobs: Sequence[Job], step: Callable[[Job], dict[str, Any]], seconds: float
) -> Iterator[tuple[Job, Outcome]]:
    """Yield each job with the outcome of `step`, which runs no method, as it ends; all
    in processes that last.
    """
    running: dict[Future[Any], Job] = {
        pools.lasting.schedule(step, args=[job], timeout=seconds): job for job in jobs
    }
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), _outcome(future, seconds)


def _outcome(future: Future[Any], seconds: float) -> Outcome:
    try:
        return Outcome(future.result(), None)
    except TimeoutError:
        return Outcome(
            None,
            f"did not finish within its time limit of {seconds:g} s (`seconds` of the track in "
            "params.yaml)",
        )
    except ProcessExpired as error:
        return Outcome(
            None,
            f"its worker process died with exit code {error.exitcode} (a crash, or killed for "
            "memory)",
        )
    except Exception as error:
        return Outcome(None, reason_of(error))


def reason_of(error: Exception) -> str:
    """Return in one line why a job did not end well; what we say ourselves ends with
    what to do, and is not cut there.
    """
    text = one_line(str(error))[: LONGEST if isinstance(error, UserError) else 240]
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return f"out of memory (run.gibibytes in params.yaml): {text or 'MemoryError'}"
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
