"""A result is not forgotten while there is a chance to record it."""

from qstash_clone.domain.message import State
from qstash_clone.errors import StorageFull, StorageUnavailable
from qstash_clone.observability import ATTEMPTS, LEASES_LOST
from tests.support.eventually import eventually
from tests.worker.rig import Rig


async def test_a_settlement_that_was_lost_is_repeated(rig: Rig) -> None:
    message_id = await rig.publish()
    rig.store.fail_before("settle", times=2)
    await rig.claims.step()
    await eventually(lambda: not rig.worker.holdings or rig.clock.advance(100))
    assert await rig.state(message_id) is State.DELIVERED
    assert len(rig.transport.requests) == 1
    assert rig.store.calls["settle"] == 3


async def test_a_settlement_whose_reply_was_lost_counts_once(rig: Rig) -> None:
    message_id = await rig.publish(retry_delay="60000")
    rig.transport.answer = rig.transport.fail
    rig.store.fail_after("settle")
    before = (ATTEMPTS.value("retry"), LEASES_LOST.value)
    await rig.claims.step()
    await eventually(lambda: not rig.worker.holdings or rig.clock.advance(100))
    stored = await rig.real_store.admin.get_message(message_id)
    assert stored is not None
    assert (stored.state, stored.retried) == (State.DELAYED, 1)
    assert (ATTEMPTS.value("retry"), LEASES_LOST.value) == (before[0] + 1, before[1])


async def test_a_full_store_delays_a_settlement_and_does_not_drop_it(rig: Rig) -> None:
    message_id = await rig.publish()
    rig.store.fail_before("settle", times=3, error=StorageFull("Redis is at its memory limit."))
    await rig.claims.step()
    await eventually(lambda: not rig.worker.holdings or rig.clock.advance(200))
    assert await rig.state(message_id) is State.DELIVERED


async def test_a_result_outlasts_an_outage_longer_than_the_lease(rig: Rig) -> None:
    """Nobody else could reclaim meanwhile, so recording the result late spares the receiver a repetition."""
    message_id = await rig.publish()
    rig.transport.may_answer.clear()
    await rig.claims.step()
    rig.store.is_down = True
    rig.health.storage_failed("leases", StorageUnavailable("Redis is away."))
    rig.transport.may_answer.set()
    for tries in range(1, 6):
        await eventually(lambda tries=tries: rig.store.calls["settle"] >= tries and rig.clock.sleeping)
        rig.clock.advance(rig.settings.lease_ms)
    rig.store.is_down = False
    await eventually(lambda: not rig.worker.holdings or rig.clock.advance(1_000))
    assert await rig.state(message_id) is State.DELIVERED
    assert len(rig.transport.requests) == 1


async def test_a_settlement_that_a_working_store_refuses_for_a_lease_is_given_up(rig: Rig) -> None:
    message_id = await rig.publish()
    rig.store.fail_before("settle", times=1_000)
    before = LEASES_LOST.value
    await rig.claims.step()
    await eventually(lambda: rig.clock.sleeping)
    rig.clock.advance(rig.settings.lease_ms / 2)
    await eventually(lambda: rig.store.calls["settle"] == 2 and rig.clock.sleeping)
    rig.clock.advance(rig.settings.lease_ms)
    await rig.idle()
    assert rig.store.calls["settle"] == 3
    assert LEASES_LOST.value == before + 1
    assert await rig.state(message_id) is State.ACTIVE
    assert rig.worker.slots.free == 10


async def test_a_settlement_of_a_lost_lease_changes_nothing(rig: Rig) -> None:
    message_id = await rig.publish()
    rig.transport.may_answer.clear()
    await rig.claims.step()
    [stolen] = await rig.steal()
    before = ATTEMPTS.value("stale")
    rig.transport.may_answer.set()
    await rig.idle()
    assert ATTEMPTS.value("stale") == before + 1
    stored = await rig.real_store.admin.get_message(message_id)
    assert stored is not None
    assert (stored.state, stored.retried, stored.generation) == (State.ACTIVE, 0, stolen.generation)


async def test_a_lease_named_lost_while_its_settlement_fails_ends_the_tries(rig: Rig) -> None:
    await rig.publish()
    rig.store.fail_before("settle", times=1_000)
    await rig.claims.step()
    await eventually(lambda: rig.clock.sleeping)
    await rig.steal()
    await rig.worker.loops.leases.step()
    assert len(rig.worker.holdings) == 1
    rig.clock.advance(100)
    await rig.idle()
    assert rig.store.calls["settle"] == 2


async def test_aborting_does_not_interrupt_a_settlement(rig: Rig) -> None:
    message_id = await rig.publish()
    rig.store.fail_before("settle")
    await rig.claims.step()
    await eventually(lambda: rig.clock.sleeping)
    [delivery] = rig.worker.holdings.all()
    assert not delivery.abort()
    rig.clock.advance(100)
    await rig.idle()
    assert await rig.state(message_id) is State.DELIVERED


async def test_a_cancelled_message_that_fails_ends_canceled(rig: Rig) -> None:
    message_id = await rig.publish()
    rig.transport.answer = rig.transport.fail
    rig.transport.may_answer.clear()
    await rig.claims.step()
    await rig.real_store.admin.cancel(message_id)
    before = ATTEMPTS.value("canceled")
    rig.transport.may_answer.set()
    await rig.idle()
    assert ATTEMPTS.value("canceled") == before + 1
    assert await rig.state(message_id) is None
