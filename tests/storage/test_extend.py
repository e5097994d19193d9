"""extend.lua: leases of current generations are renewed, lost ones are named, whatever the number of claims."""

import asyncio
from typing import Any

import msgspec
import pytest

from qstash_clone.storage.delivery_store import EXTEND_MAX_CLAIMS
from qstash_clone.storage.keys import CONSUMER_GROUP, PartitionKeys
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from tests.storage.conftest import AgeLeases, Look
from tests.support.damage import damaged
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import claim_all, claim_one, delivered, publish, retry


async def test_a_renewed_lease_does_not_expire(store: Store, age_leases: AgeLeases) -> None:
    await publish(store)
    claim = await claim_one(store)
    await age_leases()
    assert await store.delivery.extend(0, "w1", [claim]) == []
    assert await claim_all(store, "w2", reclaim=True) == []


async def test_renewing_does_not_count_as_a_claim(store: Store, age_leases: AgeLeases, look: Look) -> None:
    await publish(store)
    claim = await claim_one(store)
    before = look()
    for _ in range(10):
        assert await store.delivery.extend(0, "w1", [claim]) == []
    assert look() == before


async def test_a_lease_that_another_worker_has_is_lost_and_stays_with_it(
    store: Store, age_leases: AgeLeases, look: Look
) -> None:
    await publish(store)
    old = await claim_one(store)
    await age_leases()
    new = await claim_one(store, "w2", reclaim=True)
    before = look()
    assert await store.delivery.extend(0, "w1", [old]) == [old]
    assert look() == before
    assert look().pending == {new.entry_id: "w2"}


async def test_settled_released_and_unknown_claims_are_lost(store: Store) -> None:
    for number in range(4):
        await publish(store, lane=f"h:{number}")
    settled, released, kept, other = await claim_all(store)
    unknown = msgspec.structs.replace(other, id=store.publishing.new_message_id())
    await store.delivery.settle(delivered(settled))
    await store.delivery.release([released])
    assert await store.delivery.extend(0, "w1", [settled, kept, released, unknown]) == [settled, released, unknown]
    assert await store.delivery.extend(0, "w1", []) == []


async def test_a_claim_whose_message_waits_for_its_retry_is_lost(store: Store) -> None:
    """The generation is still the same: the state tells."""
    await publish(store)
    claim = await claim_one(store)
    await store.delivery.settle(retry(claim))
    assert await store.delivery.extend(0, "w1", [claim]) == [claim]


async def test_a_claim_whose_entry_is_gone_is_lost(
    store: Store, keys: PartitionKeys, redis_client: Any, breaks_invariants: None
) -> None:
    await publish(store)
    claim = await claim_one(store)
    await redis_client.xack(keys.ready, CONSUMER_GROUP, claim.entry_id)
    assert await store.delivery.extend(0, "w1", [claim]) == [claim]


@pytest.mark.parametrize("count", [EXTEND_MAX_CLAIMS - 1, EXTEND_MAX_CLAIMS, EXTEND_MAX_CLAIMS + 1, 1_100])
async def test_any_number_of_claims(store: Store, age_leases: AgeLeases, count: int) -> None:
    await store.delivery.heartbeat("w1", 3_000)
    for _ in range(count // 100 + 1):
        await asyncio.gather(*(publish(store, body=b"") for _ in range(100)))
    claims = (await claim_all(store, limit=count))[:count]
    assert len(claims) == count
    lost = [claims[0], claims[count // 2], claims[-1]]
    for claim in lost:
        await store.delivery.settle(delivered(claim))
    await age_leases([claim for claim in claims if claim not in lost][:20])
    assert await store.delivery.extend(0, "w1", claims) == lost
    others = await claim_all(store, "w2", limit=10, reclaim=True)
    assert {claim.generation for claim in others} <= {1}, "none of them reclaimed"


async def test_a_lost_reply_renews_all_the_same(lossy_store: Store, proxy: LossyProxy, age_leases: AgeLeases) -> None:
    await publish(lossy_store)
    claim = await claim_one(lossy_store)
    proxy.lose_reply(Script("extend").digest)
    assert await lossy_store.delivery.extend(0, "w1", [claim]) == []
    assert proxy.losses == 1


async def test_one_record_that_cannot_be_read_does_not_cost_the_other_leases(
    store: Store, keys: PartitionKeys, redis_client: Any, age_leases: AgeLeases
) -> None:
    for number in range(3):
        await publish(store, lane=f"h:{number}")
    claims = await claim_all(store)
    await age_leases()
    async with damaged(redis_client, keys.message(claims[1].id)):
        assert await store.delivery.extend(0, "w1", claims) == [], "nobody can say that it was lost"
    [reclaimed] = await claim_all(store, "w2", reclaim=True)
    assert reclaimed.id == claims[1].id
