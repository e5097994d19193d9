"""Turns: a call gives a bounded number of them, and while places and lanes are left somebody goes on at once."""

import asyncio
from typing import Any

from qstash_clone.domain.lanes import flow_control_lane
from qstash_clone.storage.delivery_store import ADMIT_TURNS
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, MoveClock
from tests.support.lanes import KEY, publish_keyed
from tests.support.messages import claim_all, publish

BACKLOG = 300
LANE = flow_control_lane(KEY)
LIMIT = 40
"""Turns that one call of `promote` gives here."""


async def wait_for_a_key(store: Store, count: int, **limits: Any) -> None:
    """Messages of a paused key, and places for all of them."""
    await store.delivery.heartbeat("w1", 1000)
    await store.flow_controls.set_flow_control_paused(KEY, True)
    await asyncio.gather(*(publish_keyed(store, **limits) for _ in range(count)))


async def promote_on(store: Store) -> int:
    """As a worker does: again at once, until nothing is due; how often."""
    calls = 0
    while True:
        calls += 1
        report = await store.delivery.promote(0, LIMIT)
        if report.next_due_ms is None or report.next_due_ms > report.now_ms:
            return calls


async def test_what_a_resume_leaves_is_admitted_by_whoever_hears_the_bell(store: Store, look: Look) -> None:
    await wait_for_a_key(store, BACKLOG, parallelism=BACKLOG)
    await store.flow_controls.set_flow_control_paused(KEY, False)
    assert (await store.delivery.claim(0, "w1", BACKLOG)).rang
    await promote_on(store)
    assert len(look().admitted[LANE]) == BACKLOG


async def test_a_window_is_filled_although_one_call_gives_fewer_turns(store: Store, move_clock: MoveClock) -> None:
    rate = 100
    await wait_for_a_key(store, BACKLOG, rate=rate, period_s=60)
    await store.flow_controls.set_flow_control_paused(KEY, False)
    for _ in range(2):
        await promote_on(store)
        assert len(await claim_all(store)) == rate, "none of them has ended"
        await move_clock(61_000)


async def test_a_call_goes_on_only_while_there_is_something_to_do(store: Store, look: Look) -> None:
    await wait_for_a_key(store, BACKLOG, parallelism=2 * LIMIT)
    await store.flow_controls.set_flow_control_paused(KEY, False)
    assert await promote_on(store) == 2
    assert await promote_on(store) == 1
    assert (look().ring, look().blocked) == ([], {LANE})


async def test_what_a_heartbeat_leaves_is_admitted_by_whoever_hears_the_bell(store: Store, look: Look) -> None:
    await store.delivery.heartbeat("w1", 0)
    await asyncio.gather(*(publish(store, body=b"", lane=f"h:{number}") for number in range(ADMIT_TURNS + 100)))
    await store.delivery.heartbeat("w1", 10_000)
    assert look().bells == 1
    await promote_on(store)
    assert len(look().admitted) == ADMIT_TURNS + 100
