"""EvoPress's evolution of one level a unit within a budget (Sieberling et al., arXiv
2410.14649), whatever the levels are; see `methods/evopress.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

CHANGES, RETURN, TRIES = 10, 0.8, 20

State = tuple[int, ...]  # the level of each unit
Cost = Sequence[Sequence[int]]  # of each unit at each level
Stages = Sequence[tuple[int, int]]  # survivors, and images that judge
# of each state, all on the same so many images; the lower the fitter
Fitness = Callable[[Sequence[State], int], list[float]]


def draw(n: int, generator: torch.Generator) -> int:
    """Return one of 0 .. n - 1."""
    return int(torch.randint(n, (), generator=generator))


def move(levels: list[int], by: int, cost: Cost, generator: torch.Generator) -> int:
    """Move a random unit of `levels` up (1) or down (-1) a level, in place, if any can;
    return by how much the cost rises.
    """
    movable = [u for u, v in enumerate(levels) if 0 <= v + by < len(cost[u])]
    if not movable:
        return 0
    u = movable[draw(len(movable), generator)]
    levels[u] += by
    return cost[u][levels[u]] - cost[u][levels[u] - by]


def price(levels: Sequence[int], cost: Cost) -> int:
    """Return what all units cost together at `levels`."""
    return sum(options[v] for options, v in zip(cost, levels, strict=True))


def child(parent: State, cost: Cost, limit: int, generator: torch.Generator) -> State:
    """Return `parent` with one to three random moves up and as many down as `limit`
    asks for; `parent` itself if those were too many or took too much.
    """
    levels, moves = list(parent), 1 + min(draw(3, generator), draw(3, generator))
    added = sum(move(levels, 1, cost, generator) for _ in range(moves))
    total, removed = price(levels, cost), 0
    while total - removed > limit:
        removed -= move(levels, -1, cost, generator)
        moves += 1
    return parent if moves > CHANGES or added < RETURN * removed else tuple(levels)


def children(
    parent: State, count: int, cost: Cost, limit: int, generator: torch.Generator
) -> list[State]:
    """Return `count` distinct children of `parent`, or as many as turn up in 20 times
    that many tries.
    """
    found: dict[State, None] = {}
    for _ in range(TRIES * count):
        found |= {child(parent, cost, limit, generator): None}
        if len(found) - (parent in found) == count:
            break
    return [state for state in found if state != parent]


def under(cost: Cost, level: int, limit: int, generator: torch.Generator) -> State:
    """Return all units at `level`, then random ones lowered until `limit` holds."""
    levels = [level] * len(cost)
    while price(levels, cost) > limit:
        move(levels, -1, cost, generator)
    return tuple(levels)


def fittest(states: Sequence[State], survivors: int, images: int, fitness: Fitness) -> list[State]:
    """Return the `survivors` states of lowest fitness, fittest first; ties go to the
    earlier.
    """
    values = fitness(states, images)
    return [states[i] for i in sorted(range(len(states)), key=values.__getitem__)[:survivors]]


def evolve(
    parent: State,
    generations: int,
    stages: Stages,
    breed: Callable[[State], list[State]],
    fitness: Fitness,
) -> State:
    """Return the parent after so many generations: of its children and itself, the one
    that survives all stages.
    """
    for _ in range(generations):
        states = breed(parent)
        for survivors, images in stages[:-1]:
            states = fittest(states, survivors, images, fitness)
        (parent,) = fittest([*states, parent], *stages[-1], fitness)
    return parent
