"""Limits of flow-control keys where attempts start: rate windows, parallelism, and the order of what they hold up."""

from qstash_clone.domain.lanes import flow_control_lane
from qstash_clone.ids import MessageId
from qstash_clone.storage.store import Store
from tests.support.lanes import KEY, claimed, publish_keyed
from tests.support.messages import claim_all, delivered

LANE = flow_control_lane(KEY)


async def pin(store: Store, parallelism: int | None = None, rate: int | None = None, period_ms: int = 1000) -> None:
    await store.flow_controls.pin_flow_control(KEY, parallelism=parallelism, rate=rate, period_ms=period_ms)


async def settle_all(store: Store, consumer: str = "w1") -> list[MessageId]:
    """Claim and deliver until nothing more comes, in the order in which it comes."""
    done: list[MessageId] = []
    while claims := await claim_all(store, consumer):
        for claim in claims:
            await store.delivery.settle(delivered(claim))
            done.append(claim.id)
    return done


async def test_what_a_pause_holds_keeps_its_order(store: Store) -> None:
    """Whoever looks at it meanwhile, and however little at a time."""
    ids = [await publish_keyed(store) for _ in range(12)]
    await store.flow_controls.set_flow_control_paused(KEY, True)
    ids.append(await publish_keyed(store))
    for limit, consumer in ((1, "w1"), (2, "w2"), (3, "w1"), (1, "w2"), (5, "w1")):
        assert await claimed(store, consumer, limit=limit) == []
    await pin(store, parallelism=1)
    await store.flow_controls.set_flow_control_paused(KEY, False)
    assert await settle_all(store) == ids


async def test_what_a_second_pause_holds_keeps_its_order(store: Store) -> None:
    ids = [await publish_keyed(store) for _ in range(6)]
    for limit in (3, 100):
        await store.flow_controls.set_flow_control_paused(KEY, True)
        for _ in range(3):
            assert await claimed(store, limit=limit) == []
        await store.flow_controls.set_flow_control_paused(KEY, False)
    assert await settle_all(store) == ids
