"""move_clock.lua, and what follows the clock of messages."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from qstash_clone.domain.filters import Filter
from qstash_clone.domain.log import LogEntry
from qstash_clone.domain.message import Deduplication, State
from qstash_clone.domain.virtual_clock import Advance, Freeze, MoveTo, VirtualClock
from qstash_clone.errors import InvalidRequest, StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage import scripts
from qstash_clone.storage.interface import SettleResult
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.scripts import Script, ScriptRunner
from qstash_clone.storage.store import Store
from qstash_clone.storage.virtual_clock_store import RedisVirtualClockStore
from tests.storage.conftest import Look
from tests.support.eventually import eventually
from tests.support.lossy_proxy import LossyProxy
from tests.support.messages import claim_all, claim_one, dead_letter, delivered, failed, new_message, publish

ALL = Filter()
DAY_MS = 86_400_000
PATIENCE_MS = 20_000
"""Within which a test is over, however slow the machine is."""


async def test_a_new_store_shows_the_time_of_redis(store: Store) -> None:
    seconds, _ = await store.commands.send("TIME")
    clock = await store.virtual_clock.read_clock()
    assert (clock.offset_ms, clock.frozen_ms) == (0, None)
    assert abs(clock.now_ms - seconds * 1000) < PATIENCE_MS


async def test_a_moved_clock_is_that_of_every_script(store: Store, look: Look) -> None:
    moved = await store.virtual_clock.move_clock(Advance(7 * DAY_MS))
    assert moved.offset_ms == 7 * DAY_MS
    message_id = await publish(store)
    stored = await store.admin.get_message(message_id)
    assert stored is not None
    assert 0 <= stored.created_ms - moved.now_ms < PATIENCE_MS
    report = await store.delivery.promote(0, 10)
    assert report.now_ms - report.real_ms == 7 * DAY_MS
    assert not report.is_frozen
    [claim] = await claim_all(store)
    assert claim.id == message_id


async def test_claims_tell_redis_own_time(store: Store) -> None:
    await store.virtual_clock.move_clock(Advance(7 * DAY_MS))
    batch = await store.delivery.claim(0, "w1", 1)
    assert abs(batch.now_ms - (await store.virtual_clock.read_clock()).real_ms) < PATIENCE_MS


async def test_a_delayed_message_is_due_once_its_time_has_come(store: Store) -> None:
    message_id = await publish(store, delay_ms=7 * DAY_MS)
    await store.virtual_clock.move_clock(Advance(7 * DAY_MS - PATIENCE_MS))
    assert (await store.delivery.promote(0, 10)).promoted == 0
    await store.virtual_clock.move_clock(Advance(PATIENCE_MS))
    assert (await store.delivery.promote(0, 10)).promoted == 1
    assert (await claim_one(store)).id == message_id


async def test_a_frozen_clock_stands_still(store: Store) -> None:
    frozen = await store.virtual_clock.move_clock(Freeze(True))
    message_id = await publish(store, delay_ms=1)
    await asyncio.sleep(0.01)
    report = await store.delivery.promote(0, 10)
    assert (report.promoted, report.is_frozen, report.now_ms) == (0, True, frozen.now_ms)
    assert (await store.virtual_clock.read_clock()).now_ms == frozen.now_ms
    stepped = await store.virtual_clock.move_clock(Advance(1))
    assert stepped.now_ms == frozen.now_ms + 1
    assert (await store.delivery.promote(0, 10)).promoted == 1
    await store.delivery.settle(delivered(await claim_one(store)))
    stored = await store.admin.get_message(message_id)
    assert stored is not None
    assert (stored.state, stored.due_ms) == (State.DELIVERED, frozen.now_ms + 1)


async def test_a_thawed_clock_goes_on_from_where_it_stood(store: Store) -> None:
    frozen = await store.virtual_clock.move_clock(Freeze(True))
    await asyncio.sleep(0.05)
    thawed = await store.virtual_clock.move_clock(Freeze(False))
    assert thawed.frozen_ms is None
    assert thawed.offset_ms <= -50
    assert frozen.now_ms <= thawed.now_ms < frozen.now_ms + PATIENCE_MS
    report = await store.delivery.promote(0, 10)
    assert not report.is_frozen
    assert report.now_ms >= thawed.now_ms


@pytest.mark.parametrize("is_frozen", [False, True])
async def test_a_move_back_changes_nothing(store: Store, look: Look, is_frozen: bool) -> None:
    await store.virtual_clock.move_clock(Freeze(is_frozen))
    now_ms = (await store.virtual_clock.read_clock()).now_ms
    before = look()
    with pytest.raises(InvalidRequest, match="never goes back"):
        await store.virtual_clock.move_clock(MoveTo(now_ms - 1))
    assert look() == before


async def test_a_worker_is_woken(store: Store) -> None:
    waiting = asyncio.create_task(store.delivery.wait(0, "w1", 1, 5_000))
    while not waiting.done():
        await store.virtual_clock.move_clock(Advance(1))
        await asyncio.sleep(0)
    [entry] = await waiting
    assert entry.endswith(b" "), "a doorbell"
    batch = await store.delivery.claim(0, "w1", 1, taken=[entry])
    assert batch.rang


async def test_a_move_whose_reply_is_lost_moves_once(store: Store, lossy_store: Store, proxy: LossyProxy) -> None:
    await store.virtual_clock.move_clock(Freeze(True))
    before = await store.virtual_clock.read_clock()
    proxy.lose_reply(Script("move_clock").digest)
    moved = await lossy_store.virtual_clock.move_clock(Advance(DAY_MS))
    assert moved.now_ms == before.now_ms + DAY_MS
    assert (await store.virtual_clock.read_clock()).now_ms == before.now_ms + DAY_MS


async def test_a_move_that_may_have_been_made_before_others_is_not_made_again(
    store: Store, lossy_store: Store, proxy: LossyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reply is lost, and before it is repeated somebody else moves the clock: nobody can tell what is due."""
    await store.virtual_clock.move_clock(Freeze(True))
    before = await store.virtual_clock.read_clock()
    monkeypatch.setattr(scripts, "RETRY_PAUSE_MS", (500, 500))
    proxy.lose_reply(Script("move_clock").digest)
    moving = asyncio.create_task(lossy_store.virtual_clock.move_clock(Advance(DAY_MS)))
    await eventually(lambda: proxy.losses)
    await store.virtual_clock.move_clock(Advance(1))
    with pytest.raises(StorageUnavailable, match="by this call too perhaps"):
        await moving
    assert (await store.virtual_clock.read_clock()).now_ms in (before.now_ms + 1, before.now_ms + DAY_MS + 1)


async def test_too_many_moves_at_once_are_refused(store: Store, keys: PartitionKeys) -> None:
    async def nothing() -> None: ...

    class Outrun(RedisVirtualClockStore):
        async def _read(self) -> tuple[VirtualClock, int]:
            found = await super()._read()
            await store.virtual_clock.move_clock(Advance(0))
            return found

    clock = Outrun(store.commands, ScriptRunner(store.commands, nothing), [keys])
    with pytest.raises(StorageUnavailable, match="too many callers"):
        await clock.move_clock(Advance(DAY_MS))


async def test_moves_at_once_all_count(store: Store) -> None:
    await store.virtual_clock.move_clock(Freeze(True))
    before = await store.virtual_clock.read_clock()
    await asyncio.gather(*(store.virtual_clock.move_clock(Advance(DAY_MS)) for _ in range(5)))
    assert (await store.virtual_clock.read_clock()).now_ms == before.now_ms + 5 * DAY_MS


@pytest.mark.parametrize("partitions", [3])
async def test_all_partitions_show_one_time(store: Store, settings: Settings, redis_client: Any) -> None:
    async def times(field: str) -> set[bytes]:
        keys = [PartitionKeys(settings.key_namespace, number, 3) for number in range(3)]
        return {await redis_client.hget(one.meta, field) for one in keys}

    moved = await store.virtual_clock.move_clock(Advance(DAY_MS))
    assert await times("off") == {str(moved.offset_ms).encode()}
    frozen = await store.virtual_clock.move_clock(Freeze(True))
    stepped = await store.virtual_clock.move_clock(Advance(DAY_MS))
    assert stepped.now_ms == frozen.now_ms + DAY_MS
    assert await times("fz") == {str(stepped.now_ms).encode()}
    reports = [await store.delivery.promote(number, 1) for number in range(3)]
    assert {report.now_ms for report in reports} == {stepped.now_ms}


async def test_a_store_emptied_meanwhile_is_moved_all_the_same(
    store: Store, keys: PartitionKeys, redis_client: Any
) -> None:
    await redis_client.delete(keys.meta, keys.ready, keys.workers, keys.capacity)
    assert (await store.virtual_clock.move_clock(Advance(DAY_MS))).offset_ms == DAY_MS


async def test_a_finished_message_is_forgotten_after_its_grace_period(store: Store, settings: Settings) -> None:
    message_id = await publish(store)
    await store.delivery.settle(delivered(await claim_one(store)))
    assert await store.admin.get_message(message_id) is not None
    await store.virtual_clock.move_clock(Advance(settings.message_grace_ms + 1))
    assert await store.admin.get_message(message_id) is None


async def test_a_deduplication_window_ends(store: Store) -> None:
    deduplication = Deduplication(digest=bytes(16), window_ms=DAY_MS)

    async def is_repeat() -> bool:
        message = new_message(store, deduplication=deduplication)
        return (await store.publishing.publish(message)).is_duplicate

    assert [await is_repeat(), await is_repeat()] == [False, True]
    await store.virtual_clock.move_clock(Advance(DAY_MS))
    assert await store.admin.get_deduplication(bytes(16)) is None
    assert [await is_repeat(), await is_repeat()] == [False, True]


async def test_a_lease_keeps_real_time(store: Store, settings: Settings) -> None:
    await publish(store)
    claim = await claim_one(store)
    await store.virtual_clock.move_clock(Advance(30 * DAY_MS))
    assert await claim_all(store, "w2", reclaim=True) == []
    assert await store.delivery.extend(0, "w1", [claim]) == []
    assert (await store.admin.stats()).workers == 1


async def log_of(store: Store, selection: Filter = ALL) -> list[LogEntry]:
    return (await store.admin.read_log(selection, cursor=None, count=100, newest_first=False)).entries


async def test_the_log_is_dated_by_the_clock_of_messages(store: Store) -> None:
    before = await publish(store)
    await store.delivery.settle(delivered(await claim_one(store)))
    moved = await store.virtual_clock.move_clock(Advance(7 * DAY_MS))
    after = await publish(store)
    await store.delivery.settle(failed(await claim_one(store)))
    entries = await log_of(store)
    assert "".join(entry.event for entry in entries) == "CADCAEF"
    assert [entry.stored.id for entry in entries] == [before] * 3 + [after] * 4
    assert [entry.time_ms >= moved.now_ms for entry in entries] == [False] * 3 + [True] * 4
    assert entries[-1].time_ms < moved.now_ms + PATIENCE_MS
    assert [entry.stored.id for entry in await log_of(store, Filter(from_ms=moved.now_ms))] == [after] * 4
    for message_id, letters in ((before, "CAD"), (after, "CAEF")):
        found = await log_of(store, Filter(message_ids=frozenset([message_id])))
        assert "".join(entry.event for entry in found) == letters


async def test_dead_letters_are_dated_by_the_clock_of_messages(store: Store, settings: Settings) -> None:
    moved = await store.virtual_clock.move_clock(Advance(7 * DAY_MS))
    letter = await dead_letter(store)
    found = await store.admin.get_dead_letter(letter)
    assert found is not None
    assert 0 <= int(letter.partition("-")[0]) - moved.now_ms < PATIENCE_MS
    await store.virtual_clock.move_clock(Advance(settings.dlq_retention_ms - PATIENCE_MS))
    await store.delivery.expire(0, 100)
    assert await store.admin.get_dead_letter(letter) == found
    await store.virtual_clock.move_clock(Advance(2 * PATIENCE_MS))
    await store.delivery.expire(0, 100)
    assert await store.admin.get_dead_letter(letter) is None


@pytest.mark.parametrize("partitions", [3])
async def test_all_partitions_stand_still_at_one_time_however_long_the_calls_take(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ScriptRunner.run

    async def run_later(self: ScriptRunner, *args: Any) -> Any:
        before = await store.commands.send("TIME")
        await eventually(lambda: _is_later(store, before))
        return await run(self, *args)

    monkeypatch.setattr(ScriptRunner, "run", run_later)
    frozen = await store.virtual_clock.move_clock(Freeze(True))
    metas = [PartitionKeys(settings.key_namespace, number, 3).meta for number in range(3)]
    assert [await store.commands.send("HGET", meta, "fz") for meta in metas] == [b"%d" % frozen.now_ms] * 3


async def _is_later(store: Store, before: tuple[int, int]) -> bool:
    """Whether two milliseconds have passed on Redis's clock."""
    seconds, micros = await store.commands.send("TIME")
    return (seconds - before[0]) * 1_000_000 + micros - before[1] > 2_000


@pytest.mark.parametrize("partitions", [1, 3])
async def test_while_the_clock_stands_still_everything_has_a_place_in_one_millisecond(
    store: Store, partitions: int
) -> None:
    frozen = await store.virtual_clock.move_clock(Freeze(True))
    for _ in range(3):
        for partition in range(partitions):
            message = new_message(store, id=store.delivery.new_message_id(partition))
            await store.publishing.publish(message)
            await store.delivery.settle(failed(await claim_one(store, partition=partition)))
    entries = await log_of(store)
    assert {entry.time_ms for entry in entries} == {frozen.now_ms}
    assert Counter(entry.event for entry in entries) == dict.fromkeys("CAEF", 3 * partitions)
    page = await store.admin.list_dead_letters(cursor=None, count=100, newest_first=False)
    letters = [entry.dlq_id for entry in page.entries]
    assert len(set(letters)) == 3 * partitions
    assert {letter.partition("-")[0] for letter in letters} == {str(frozen.now_ms)}


async def test_the_log_goes_on_in_order_when_the_clock_runs_again(store: Store) -> None:
    for is_frozen in (True, False, True, False):
        await store.virtual_clock.move_clock(Freeze(is_frozen))
        for _ in range(3):
            await publish(store)
    entries = await log_of(store)
    assert len(entries) == 12
    assert [entry.time_ms for entry in entries] == sorted(entry.time_ms for entry in entries)


async def test_retention_follows_the_clock_and_repeated_calls_keep_real_time(
    store: Store, settings: Settings, look: Look
) -> None:
    message_id = await publish(store)
    claim = await claim_one(store)
    await store.delivery.settle(delivered(claim))
    await store.virtual_clock.move_clock(Advance(settings.log_retention_ms + PATIENCE_MS))
    await store.delivery.expire(0, 100)
    assert await log_of(store) == []
    assert await store.admin.get_message(message_id) is None
    assert await store.delivery.settle(delivered(claim)) is SettleResult.SETTLED, "by an earlier try of the same call"
    assert look().finished_bytes == 0


async def test_what_waits_outlives_any_retention(store: Store) -> None:
    message_id = await publish(store, delay_ms=10)
    await store.virtual_clock.move_clock(Advance(10_000 * DAY_MS))
    await store.delivery.expire(0, 100)
    await store.delivery.promote(0, 10)
    assert (await claim_one(store)).id == message_id
