"""Leases are renewed while the attempt lasts; a lost one ends it."""

from collections.abc import Callable

import pytest

from qstash_clone.domain.message import State
from qstash_clone.errors import StorageUnavailable
from qstash_clone.observability import LEASES_LOST
from qstash_clone.storage.keys import CONSUMER_GROUP
from tests.worker.rig import Rig
from worker.leases import RENEWALS_PER_LEASE


async def idle_ms(rig: Rig) -> int:
    """How old the only lease is."""
    [entry] = await rig.raw.xpending_range(rig.keys.ready.decode(), CONSUMER_GROUP, "-", "+", 10)  # pyright: ignore
    return entry["time_since_delivered"]  # pyright: ignore


async def test_a_lease_is_renewed_while_the_attempt_lasts(rig: Rig) -> None:
    message_id = await rig.publish()
    rig.transport.may_answer.clear()
    await rig.claims.step()
    await rig.age_leases()
    assert await idle_ms(rig) > rig.settings.lease_ms
    report = await rig.worker.loops.leases.step()
    assert (report.renewed, report.lost) == (1, 0)
    assert await idle_ms(rig) < rig.settings.lease_ms
    assert (await rig.real_store.delivery.claim(0, "another", 10, reclaim=True)).claims == []
    rig.transport.may_answer.set()
    await rig.idle()
    assert await rig.state(message_id) is State.DELIVERED


async def test_an_attempt_may_last_many_leases(rig: Rig) -> None:
    message_id = await rig.publish()
    rig.transport.may_answer.clear()
    await rig.claims.step()
    leases = rig.worker.loops.leases
    for _ in range(12):
        rig.clock.advance(leases.rest_ms(await leases.step()))
    rig.transport.may_answer.set()
    await rig.idle()
    assert await rig.state(message_id) is State.DELIVERED
    assert len(rig.transport.requests) == 1


async def test_a_lost_lease_stops_the_attempt_and_changes_nothing(rig: Rig) -> None:
    message_id = await rig.publish()
    rig.transport.may_answer.clear()
    await rig.claims.step()
    [stolen] = await rig.steal()
    before = LEASES_LOST.value
    report = await rig.worker.loops.leases.step()
    assert (report.renewed, report.lost) == (0, 1)
    await rig.idle()
    assert rig.transport.cancelled == 1
    assert rig.store.calls["settle"] == 0
    assert LEASES_LOST.value == before + 1
    assert rig.worker.slots.free == 10
    stored = await rig.real_store.admin.get_message(message_id)
    assert stored is not None
    assert (stored.state, stored.generation) == (State.ACTIVE, stolen.generation)


async def test_a_message_settled_while_the_renewal_was_under_way_is_not_lost(rig: Rig) -> None:
    await rig.publish()
    rig.transport.may_answer.clear()
    await rig.claims.step()
    before = LEASES_LOST.value
    [delivery] = rig.worker.holdings.all()
    rig.transport.may_answer.set()
    await rig.idle()
    rig.worker.holdings.add(delivery)
    rig.store.on_call = lambda name: rig.worker.holdings.remove(delivery)
    report = await rig.worker.loops.leases.step()
    assert report.lost == 0
    assert LEASES_LOST.value == before


async def test_many_leases_are_renewed_in_batches(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.leases.EXTEND_BATCH", 4)
    rig = make_rig(worker_concurrency=10)
    await rig.real_store.delivery.heartbeat("another, larger worker", 100)
    rig.transport.may_answer.clear()
    for number in range(10):
        await rig.publish(url=f"http://host-{number}.example/")
    await rig.claims.step()
    report = await rig.worker.loops.leases.step()
    assert report.renewed == 10
    assert rig.store.calls["extend"] == 3
    rig.transport.may_answer.set()
    await rig.idle()


async def test_without_deliveries_nothing_is_asked(rig: Rig) -> None:
    await rig.worker.loops.leases.step()
    assert rig.store.calls["extend"] == 0


async def test_a_partition_that_does_not_answer_does_not_keep_the_others_waiting(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(worker_concurrency=4)
    await rig.start()
    rig.transport.may_answer.clear()
    await rig.publish()
    await rig.claims.step()
    [delivery] = rig.worker.holdings.all()
    rig.store.fail_before("extend")
    with pytest.raises(StorageUnavailable):
        await rig.worker.loops.leases.step()
    assert not delivery.is_lost
    rig.transport.may_answer.set()
    await rig.idle()


async def test_leases_are_renewed_four_times_in_their_life(rig: Rig) -> None:
    report = await rig.worker.loops.leases.step()
    assert rig.worker.loops.leases.rest_ms(report) == rig.settings.lease_ms / RENEWALS_PER_LEASE == 5_000
