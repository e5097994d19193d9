"""Retention goes on while there is work, and rests otherwise."""

from collections.abc import Callable

from tests.worker.rig import Rig
from worker.heartbeat import INTERVAL_MS
from worker.janitor import BUSY_INTERVAL_MS, EXPIRE_BATCH, IDLE_INTERVAL_MS, JITTER, ExpireReport


async def test_old_dead_letters_are_removed(make_rig: Callable[..., Rig], move_clock: Callable[[int], object]) -> None:
    rig = make_rig(worker_concurrency=5)
    await rig.start()
    rig.transport.answer = rig.transport.fail
    message_id = await rig.publish(retries=0)
    await rig.claims.step()
    await rig.idle()
    janitor = rig.worker.loops.janitors[0]
    assert (await janitor.step()).expired == 0
    moved = move_clock(rig.settings.dlq_retention_ms + 1)
    await moved  # pyright: ignore
    assert (await janitor.step()).expired >= 1
    assert await rig.state(message_id) is None


async def test_it_hurries_while_batches_are_full_and_rests_with_jitter(rig: Rig) -> None:
    janitor = rig.worker.loops.janitors[0]
    assert janitor.rest_ms(ExpireReport(expired=EXPIRE_BATCH)) == BUSY_INTERVAL_MS
    rests = {janitor.rest_ms(ExpireReport(expired=0)) for _ in range(50)}
    assert len(rests) > 1
    assert all(IDLE_INTERVAL_MS * (1 - JITTER) <= rest <= IDLE_INTERVAL_MS * (1 + JITTER) for rest in rests)


async def test_a_heartbeat_a_second_tells_the_capacity_and_none_while_draining(rig: Rig) -> None:
    heartbeat = rig.worker.loops.heartbeat
    report = await heartbeat.step()
    assert heartbeat.rest_ms(report) == INTERVAL_MS
    stats = await rig.real_store.admin.stats()
    assert (stats.workers, stats.capacity) == (1, 10)
    heartbeat.drain()
    await heartbeat.rest(report)  # Ends although the manual clock stands still.
    await heartbeat.step()
    stats = await rig.real_store.admin.stats()
    assert (stats.workers, stats.capacity) == (1, 0)
