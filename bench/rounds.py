"""Rounds on a machine that others use too: begun when it is calm, made again when they were disturbed.

What is left out is chosen by what others took during it, never by its result.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bench.processes import Stopwatch, Usage

RoundT = TypeVar("RoundT")

CALM_CORES = 0.15
CALM_PATIENCE_S = 3.0
MOST_TRIES = 2
"""Times as many rounds as wanted, at most, when others keep disturbing."""


async def calm() -> None:
    """Wait until nobody uses the machine, at most three seconds."""
    deadline = time.monotonic() + CALM_PATIENCE_S
    while time.monotonic() < deadline:
        watch = Stopwatch({})
        await asyncio.sleep(0.2)
        if watch.read().other_cores < CALM_CORES:
            return


async def undisturbed(run: Callable[[], Awaitable[tuple[RoundT, Usage]]]) -> tuple[RoundT, Usage]:
    """One round, or the least disturbed of several."""
    made: list[tuple[RoundT, Usage]] = []
    while len(made) < MOST_TRIES:
        await calm()
        made.append(await run())
        if not made[-1][1].is_disturbed:
            break
    return min(made, key=lambda one: one[1].other_cores)


async def undisturbed_pairs(
    wanted: int, pair: Callable[[], Awaitable[tuple[RoundT, RoundT]]], usage_of: Callable[[RoundT], Usage]
) -> list[tuple[RoundT, RoundT]]:
    """`wanted` pairs of a round and its reference's, the least disturbed ones."""

    pairs: list[tuple[RoundT, RoundT]] = []
    while sum(not _is_disturbed(made, usage_of) for made in pairs) < wanted and len(pairs) < MOST_TRIES * wanted:
        await calm()
        pairs.append(await pair())
    return sorted(pairs, key=lambda made: max(usage_of(one).other_cores for one in made))[:wanted]


def _is_disturbed(made: tuple[RoundT, RoundT], usage_of: Callable[[RoundT], Usage]) -> bool:
    return any(usage_of(one).is_disturbed for one in made)
