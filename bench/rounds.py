"""Pairs of rounds, the service's and its reference's next to each other, on a machine that others use too."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from bench.processes import Usage

RoundT = TypeVar("RoundT")

DISTURBED_CORES = 0.3
"""More than this much of a core used by processes outside the measure (the kernel's own threads are among them)
makes a pair worthless."""
MOST_TRIES = 2
"""Times as many pairs as wanted, at most, when others keep disturbing."""


async def undisturbed_pairs(
    wanted: int, pair: Callable[[], Awaitable[tuple[RoundT, RoundT]]], usage_of: Callable[[RoundT], Usage]
) -> list[tuple[RoundT, RoundT]]:
    """At least `wanted` pairs; disturbed ones are replaced, and what is left out is chosen by disturbance alone."""

    def disturbance(made: tuple[RoundT, RoundT]) -> float:
        return max(usage_of(one).other_cores for one in made)

    pairs: list[tuple[RoundT, RoundT]] = []
    while sum(disturbance(made) <= DISTURBED_CORES for made in pairs) < wanted and len(pairs) < MOST_TRIES * wanted:
        pairs.append(await pair())
    return sorted(pairs, key=disturbance)[:wanted]
