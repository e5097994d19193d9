"""release.lua: what a worker hands back is taken by another at once, and no attempt is used up."""

from typing import Any

import pytest

from qstash_clone.domain.message import State
from qstash_clone.errors import StorageUnavailable
from qstash_clone.storage.interface import CancelResult, SettleResult
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import AgeLeases, Look
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import LANE, claim_all, claim_one, delivered, publish


async def test_a_released_message_goes_to_the_next_worker_at_once(store: Store, look: Look) -> None:
    message_id = await publish(store)
    first = await claim_one(store)
    await store.delivery.release([first])
    stored = look().records[message_id].stored
    assert (stored.state, stored.claims, stored.retried) == (State.QUEUED, 0, 0)
    second = await claim_one(store, "w2")
    assert (second.id, second.generation, second.claims, second.retried) == (message_id, 3, 1, 0)
    assert look().letters(message_id) == "CAA"


async def test_a_released_message_keeps_its_place(store: Store, look: Look) -> None:
    message_id = await publish(store)
    await store.delivery.release([await claim_one(store)])
    assert look().admitted == {LANE: {message_id}}


async def test_a_late_settlement_of_a_released_claim_is_stale(store: Store) -> None:
    await publish(store)
    claim = await claim_one(store)
    await store.delivery.release([claim])
    assert await store.delivery.settle(delivered(claim)) is SettleResult.STALE


async def test_repeating_a_release_changes_nothing(store: Store, look: Look) -> None:
    await publish(store)
    claim = await claim_one(store)
    await store.delivery.release([claim])
    before = look()
    await store.delivery.release([claim])
    assert look() == before


async def test_a_lost_reply_releases_once(lossy_store: Store, proxy: LossyProxy, look: Look) -> None:
    await publish(lossy_store)
    claim = await claim_one(lossy_store)
    proxy.lose_reply(Script("release").digest)
    await lossy_store.delivery.release([claim])
    assert len(look().entries) == 1


async def test_what_another_worker_has_or_what_is_settled_stays(
    store: Store, age_leases: AgeLeases, look: Look
) -> None:
    await publish(store, lane="h:0")
    await publish(store, lane="h:1")
    settled, lost = await claim_all(store)
    await store.delivery.settle(delivered(settled))
    await age_leases()
    await claim_one(store, "w2", reclaim=True)
    before = look()
    await store.delivery.release([settled, lost])
    await store.delivery.release([])
    assert look() == before


async def test_releasing_does_not_wear_a_message_out(store: Store) -> None:
    await publish(store)
    for _ in range(30):
        claim = await claim_one(store)
        assert claim.claims == 1
        await store.delivery.release([claim])


async def test_a_cancellation_wins_over_the_next_claim(store: Store, look: Look) -> None:
    message_id = await publish(store)
    claim = await claim_one(store)
    await store.admin.cancel(message_id)
    await store.delivery.release([claim])
    assert await claim_all(store) == []
    assert look().letters(message_id) == "CAQX"


async def test_a_released_message_is_cancelled_at_once(store: Store, look: Look) -> None:
    message_id = await publish(store)
    await store.delivery.release([await claim_one(store)])
    assert await store.admin.cancel(message_id) is CancelResult.CANCELED
    assert await claim_all(store) == []
    assert look().letters(message_id) == "CAQX"


async def test_one_member_that_fails_fails_alone(
    store: Store, keys: PartitionKeys, redis_client: Any, look: Look
) -> None:
    for number in range(3):
        await publish(store, lane=f"h:{number}")
    claims = await claim_all(store)
    async with damaged(redis_client, keys.message(claims[1].id)):
        with pytest.raises(StorageUnavailable):
            await store.delivery.release(claims)
    states = [look().records[claim.id].stored.state for claim in claims]
    assert states == [State.QUEUED, State.ACTIVE, State.QUEUED]
