"""Rate windows: every attempt is counted by the window in which it starts, also when a worker has to ask again."""

import pytest

from qstash_clone.domain.limited_lanes import FlowControlKey
from qstash_clone.ids import MessageId
from qstash_clone.storage.interface import SettleResult
from qstash_clone.storage.store import Store
from tests.storage.conftest import MoveClock
from tests.storage.test_flow_controls import KEY, publish
from tests.support.messages import claim_all, claim_one, delivered


async def window(store: Store) -> FlowControlKey:
    found = await store.flow_controls.get_flow_control_key(KEY)
    assert found is not None
    return found


async def publish_limited(store: Store, count: int, *, rate: int = 1, period_s: int = 60) -> list[MessageId]:
    return [await publish(store, rate=rate, period_s=period_s) for _ in range(count)]


@pytest.mark.parametrize("period_s", [1, 60, 604_800])
async def test_an_attempt_may_begin_until_shortly_before_the_end_of_its_window(
    store: Store, move_clock: MoveClock, period_s: int
) -> None:
    await publish_limited(store, 2, rate=2, period_s=period_s)
    [first] = (await store.delivery.claim(0, "w1", 1)).claims
    assert first.start_within_ms == period_s * 1000 - 10
    half_ms = period_s * 500
    await move_clock(half_ms)
    assert half_ms - 10 - 400 < (await claim_one(store)).start_within_ms <= half_ms - 10


async def test_an_attempt_without_a_rate_may_begin_at_any_time(store: Store) -> None:
    await publish(store, parallelism=1)
    assert (await claim_one(store)).start_within_ms == 0


async def test_a_repeated_claim_is_counted_by_the_window_in_which_its_attempt_starts(
    store: Store, move_clock: MoveClock
) -> None:
    ids = await publish_limited(store, 2)
    taken = await store.delivery.wait(0, "w1", 1, 1000)
    await store.delivery.claim(0, "w1", 1, taken=taken)
    await move_clock(61_000)
    [claim] = (await store.delivery.claim(0, "w1", 1, taken=taken)).claims
    assert (claim.id, claim.claims) == (ids[0], 1)
    assert claim.start_within_ms > 0
    assert (await window(store)).rate_count == 1
    assert await claim_all(store) == [], "the window is used up"
    assert await store.delivery.settle(delivered(claim)) is SettleResult.SETTLED


async def test_a_repeated_claim_waits_if_the_window_in_which_its_attempt_would_start_is_used_up(
    store: Store, move_clock: MoveClock
) -> None:
    first, second = await publish_limited(store, 2)
    taken = await store.delivery.wait(0, "w1", 1, 1000)
    await store.delivery.claim(0, "w1", 1, taken=taken)
    await move_clock(61_000)
    await store.delivery.promote(0, 100)
    assert (await claim_one(store, "w2")).id == second
    assert (await store.delivery.claim(0, "w1", 1, taken=taken)).claims == []
    assert (await window(store)).rate_count == 1
    await move_clock(61_000)
    await store.delivery.promote(0, 100)
    assert (await claim_one(store)).id == first
