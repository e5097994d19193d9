"""Reading the log: in the order of time over all partitions, joined with records, with cursors that stay valid."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from qstash_clone.domain.filters import Filter
from qstash_clone.domain.lifecycle import LogEvent
from qstash_clone.domain.log import LogEntry
from qstash_clone.domain.message import AttemptRecord, Message, NewMessage
from qstash_clone.errors import InvalidRequest
from qstash_clone.ids import MessageId
from qstash_clone.settings import Settings
from qstash_clone.storage import log_store, records, selection, stream_walk
from qstash_clone.storage.codec import HEAD_BYTES
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.store import Store
from tests.storage.conftest import MoveClock
from tests.support.messages import (
    claim_all,
    claim_one,
    dead_letter,
    delivered,
    failed,
    new_message,
    publish,
    retry,
)

ALL = Filter()


async def pages(
    store: Store, chosen: Filter = ALL, *, count: int = 5, newest_first: bool = False
) -> AsyncIterator[list[LogEntry]]:
    cursor: str | None = None
    while True:
        page = await store.admin.read_log(chosen, cursor=cursor, count=count, newest_first=newest_first)
        assert len(page.entries) <= count
        yield page.entries
        cursor = page.cursor
        if cursor is None:
            return


async def entries(store: Store, chosen: Filter = ALL, *, count: int = 5, newest_first: bool = False) -> list[LogEntry]:
    found = pages(store, chosen, count=count, newest_first=newest_first)
    return [entry async for page in found for entry in page]


async def letters(store: Store, chosen: Filter = ALL, *, newest_first: bool = False) -> str:
    return "".join(entry.event for entry in await entries(store, chosen, newest_first=newest_first))


def of(*message_ids: MessageId) -> Filter:
    return Filter(message_ids=frozenset(message_ids))


def attempt(number: int) -> AttemptRecord:
    return AttemptRecord(status=500 + number, error=f"attempt {number}", body=b"x" * number)


async def one_life(store: Store) -> MessageId:
    """A message with two failed attempts and a good one."""
    message_id = await publish(store, delay_ms=0)
    for number in (1, 2):
        claim = next(claim for claim in await claim_all(store) if claim.id == message_id)
        await store.delivery.settle(retry(claim, delay_ms=0, attempt=attempt(number)))
        await store.delivery.promote(0, 10)
    await store.delivery.settle(delivered(next(one for one in await claim_all(store) if one.id == message_id)))
    return message_id


async def test_a_life_in_the_log(store: Store) -> None:
    message_id = await one_life(store)
    found = await entries(store)
    assert "".join(entry.event for entry in found) == "CAERAERAD"
    assert {entry.stored.id for entry in found} == {message_id}
    assert [entry.attempt for entry in found if entry.event is LogEvent.ERROR] == [attempt(1), attempt(2)]
    retries = [entry.next_delivery_ms for entry in found if entry.event is LogEvent.RETRY]
    assert all(next_ms is not None and abs(next_ms - found[0].time_ms) < 60_000 for next_ms in retries)
    others = [entry for entry in found if entry.event not in (LogEvent.ERROR, LogEvent.RETRY)]
    assert all(entry.attempt is None and entry.next_delivery_ms is None for entry in others)
    assert all(entry.stored.state.is_final for entry in found), "messages are shown as they are now"
    assert [entry.time_ms for entry in found] == sorted(entry.time_ms for entry in found)


async def test_the_newest_first_is_the_same_the_other_way_round(store: Store) -> None:
    for _ in range(4):
        await one_life(store)
    assert await entries(store, newest_first=True) == list(reversed(await entries(store)))


async def test_when_a_delayed_message_is_due(store: Store) -> None:
    await publish(store, delay_ms=60_000)
    [created] = await entries(store)
    assert created.event is LogEvent.CREATED
    assert created.next_delivery_ms == created.stored.not_before_ms
    assert created.stored.not_before_ms == created.stored.created_ms + 60_000


async def test_failing_and_cancelling(store: Store) -> None:
    await dead_letter(store)
    message_id = await publish(store, delay_ms=60_000)
    await store.admin.cancel(message_id)
    assert await letters(store) == "CAEFCQX"
    assert await letters(store, of(message_id)) == "CQX"


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("count", [1, 4, 8, 9, 10, 1000])
async def test_pages_of_any_size(store: Store, count: int, *, newest_first: bool) -> None:
    await one_life(store)
    found = [page async for page in pages(store, count=count, newest_first=newest_first)]
    assert [len(page) for page in found] == [min(count, 9 - at) for at in range(0, 9, count)]
    assert [entry for page in found for entry in page] == await entries(store, newest_first=newest_first)


async def test_an_empty_log(store: Store) -> None:
    page = await store.admin.read_log(ALL, cursor=None, count=10, newest_first=True)
    assert (page.entries, page.cursor) == ([], None)


@pytest.mark.parametrize(
    "cursor", ["", "x", "5", "5-", "-5", "05-1", "1-1 ", "٣-1", "9" * 50, "1-99999999999999999999"]
)
async def test_a_cursor_that_is_none(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await store.admin.read_log(ALL, cursor=cursor, count=1, newest_first=True)


async def labelled(store: Store, label: str, url: str = "https://receiver.example/a?b") -> MessageId:
    plain = new_message(store)
    message = Message(url=url, labels=(label, "both"), caller_ip="192.0.2.7")
    await store.publishing.publish(NewMessage(id=plain.id, message=message, body=b"body", lane=plain.lane))
    return plain.id


@pytest.mark.parametrize("newest_first", [False, True])
async def test_filters(store: Store, *, newest_first: bool) -> None:
    one, two = await labelled(store, "one"), await labelled(store, "two", "https://other.example:8443")
    for claim in await claim_all(store):
        await store.delivery.settle(delivered(claim) if claim.id == one else failed(claim))
    everything = await entries(store)
    for chosen, expected in [
        (ALL, {one: "CAD", two: "CAEF"}),
        (Filter(labels=frozenset({"one"})), {one: "CAD"}),
        (Filter(labels=frozenset({"one", "two"})), {one: "CAD", two: "CAEF"}),
        (Filter(labels=frozenset({"two"}), events=frozenset({LogEvent.FAILED, LogEvent.CREATED})), {two: "CF"}),
        (Filter(labels=frozenset({"one"}), hosts=frozenset({"other.example"})), {}),
        (Filter(hosts=frozenset({"other.example:8443"})), {two: "CAEF"}),
        (Filter(paths=frozenset({"/a"})), {one: "CAD"}),
        (Filter(urls=frozenset({"https://receiver.example/a?b"})), {one: "CAD"}),
        (Filter(caller_ips=frozenset({"192.0.2.7"}), events=frozenset({LogEvent.DELIVERED})), {one: "D"}),
        (Filter(url_groups=frozenset({"group"})), {}),
        (Filter(events=frozenset({LogEvent.CREATED})), {one: "C", two: "C"}),
        (Filter(events=frozenset()), {}),
        (of(one), {one: "CAD"}),
        (of(one, two, store.publishing.new_message_id()), {one: "CAD", two: "CAEF"}),
        (of(), {}),
        (Filter(message_ids=frozenset({one}), events=frozenset({LogEvent.DELIVERED})), {one: "D"}),
        (Filter(from_ms=everything[0].time_ms, to_ms=everything[-1].time_ms), {one: "CAD", two: "CAEF"}),
        (Filter(to_ms=everything[0].time_ms - 1), {}),
        (Filter(from_ms=everything[-1].time_ms + 1), {}),
        (Filter(from_ms=-5, to_ms=1 << 70), {one: "CAD", two: "CAEF"}),
        (Filter(from_ms=5, to_ms=4), {}),
    ]:
        for count in (1, 2, 100):
            found = await entries(store, chosen, count=count, newest_first=newest_first)
            by_message: dict[MessageId, str] = {}
            for entry in reversed(found) if newest_first else found:
                by_message[entry.stored.id] = by_message.get(entry.stored.id, "") + entry.event
            assert by_message == expected, chosen


@pytest.mark.parametrize("newest_first", [False, True])
async def test_dates_select_by_the_time_of_the_entry(store: Store, *, newest_first: bool) -> None:
    for _ in range(5):
        await publish(store)
        await asyncio.sleep(0.003)
    everything = await entries(store)
    first_ms, last_ms = everything[1].time_ms, everything[3].time_ms
    found = await entries(store, Filter(from_ms=first_ms, to_ms=last_ms), count=1, newest_first=newest_first)
    assert sorted(found, key=lambda entry: entry.time_ms) == everything[1:4]


async def test_entries_whose_record_is_gone_are_left_out(store: Store, keys: PartitionKeys, redis_client: Any) -> None:
    gone, kept = await publish(store), await publish(store)
    for claim in await claim_all(store):
        await store.delivery.settle(delivered(claim))
    await redis_client.delete(keys.message(gone))
    assert {entry.stored.id for entry in await entries(store, count=1)} == {kept}
    assert await letters(store, of(gone)) == ""


@pytest.mark.usefixtures("breaks_invariants")
async def test_a_record_of_a_later_release_does_not_take_the_others_along(
    store: Store, keys: PartitionKeys, redis_client: Any
) -> None:
    later, kept = await publish(store), await publish(store)
    await redis_client.setrange(keys.message(later), 0, b"\xff")
    assert {entry.stored.id for entry in await entries(store)} == {kept}
    await redis_client.setrange(keys.message(later), 0, b"\x01")
    await redis_client.setrange(keys.message(later), HEAD_BYTES, b"\xc1")
    assert {entry.stored.id for entry in await entries(store)} == {kept}


async def test_taking_a_dead_letter_out_is_no_transition(store: Store) -> None:
    dlq_id = await dead_letter(store)
    assert await store.admin.delete_dead_letter(dlq_id)
    assert await letters(store) == "CAEF"


@pytest.mark.parametrize("size", [3_900, 4_100, 70_000, 1_048_576])
async def test_large_bodies_and_attempts_are_shown_whole(store: Store, size: int) -> None:
    message_id = await publish(store, body=b"b" * size)
    for number in range(3):
        [claim] = await claim_all(store)
        outcome = AttemptRecord(status=500, error=str(number), body=b"a" * size)
        await store.delivery.settle(retry(claim, delay_ms=0, attempt=outcome))
        await store.delivery.promote(0, 10)
    found = await entries(store, Filter(hosts=frozenset({"receiver.example"})), count=3)
    assert {entry.stored.body for entry in found} == {b"b" * size}
    errors = [entry.attempt for entry in found if entry.attempt is not None]
    assert [(one.error, len(one.body)) for one in errors] == [("0", size), ("1", size), ("2", size)]
    assert {entry.stored.id for entry in found} == {message_id}


async def test_a_message_with_more_options_than_are_looked_at_first(store: Store) -> None:
    plain = new_message(store)
    headers = tuple((f"X-Header-{number}", "v" * 100) for number in range(100))
    message = Message(url="https://receiver.example/", headers=headers, labels=("late",))
    await store.publishing.publish(NewMessage(id=plain.id, message=message, body=b"body", lane=plain.lane))
    assert await letters(store, Filter(labels=frozenset({"late"}))) == "C"


async def test_a_page_holds_no_more_than_an_answer_can(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "PAGE_BYTES", 25_000)
    monkeypatch.setattr(records, "PAGE_BYTES", 25_000)
    for _ in range(5):
        await publish(store, body=b"x" * 10_000)
    found = [page async for page in pages(store, count=100)]
    assert [len(page) for page in found] == [2, 2, 1]


@pytest.mark.parametrize("newest_first", [False, True])
async def test_the_work_of_a_request_is_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, newest_first: bool
) -> None:
    monkeypatch.setattr(selection, "MAX_LOOKED_AT", 20)
    monkeypatch.setattr(selection, "READ_AT_ONCE", 10)
    for number in range(50):
        await (labelled(store, "wanted") if number == 25 else publish(store))
    chosen = Filter(labels=frozenset({"wanted"}))
    found = [page async for page in pages(store, chosen, count=3, newest_first=newest_first)]
    assert [len(page) for page in found] == [0, 1, 0], "short pages, even empty ones, and still a cursor"


async def test_a_long_scan_forgets_what_it_passed_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "READ_AT_ONCE", 4)
    monkeypatch.setattr(records, "KEPT_BESIDES", 2)
    for number in range(30):
        await (labelled(store, "wanted") if number % 7 == 0 else publish(store, body=b"x" * 5_000))
    found = await entries(store, Filter(labels=frozenset({"wanted"})), count=100)
    assert [entry.event for entry in found] == [LogEvent.CREATED] * 5
    assert len(await entries(store, Filter(paths=frozenset({"/"})), count=100)) == 25


async def test_the_time_of_a_request_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MAX_WORK_S", 0)
    for _ in range(7):
        await publish(store)
    chosen = Filter(labels=frozenset({"none"}))
    monkeypatch.setattr(selection, "READ_AT_ONCE", 2)
    # Two entries a request; that nothing follows the seventh is found by the last one.
    assert [len(page) async for page in pages(store, chosen, count=3)] == [0] * 5


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_fresh_message_is_found_at_once_in_a_full_log(
    store: Store, monkeypatch: pytest.MonkeyPatch, settings: Settings, redis_client: Any, *, newest_first: bool
) -> None:
    await fill(redis_client, settings, 5_000, ago_ms=60_000)
    fresh = await publish(store)
    monkeypatch.setattr(selection, "MAX_LOOKED_AT", 10)
    page = await store.admin.read_log(of(fresh), cursor=None, count=10, newest_first=newest_first)
    assert [entry.event for entry in page.entries] == [LogEvent.CREATED]
    assert page.cursor is None


async def test_a_message_that_ended_is_found_behind_all_that_came_later(
    store: Store, monkeypatch: pytest.MonkeyPatch, settings: Settings, redis_client: Any
) -> None:
    message_id = await one_life(store)
    waiting = await publish(store, delay_ms=60_000)
    await fill(redis_client, settings, 5_000, ago_ms=-60_000)
    monkeypatch.setattr(selection, "MAX_LOOKED_AT", 12)
    for newest_first in (False, True):
        page = await store.admin.read_log(of(message_id), cursor=None, count=10, newest_first=newest_first)
        assert (len(page.entries), page.cursor) == (9, None)
        page = await store.admin.read_log(of(waiting), cursor=None, count=10, newest_first=newest_first)
        assert (len(page.entries), page.cursor) == (1, None)


async def test_ids_are_found_when_the_clock_of_messages_runs_ahead(store: Store, move_clock: MoveClock) -> None:
    before = await publish(store)
    await move_clock(86_400_000)
    after = await publish(store)
    for claim in await claim_all(store):
        await store.delivery.settle(delivered(claim))
    assert await letters(store, of(before)) == "CAD"
    assert await letters(store, of(after)) == "CAD"


FILL = """
local first_ms = redis.call('TIME')[1] * 1000 - tonumber(ARGV[3])
for number = ARGV[1], ARGV[2] do
  local id = string.sub(ARGV[4], 1, 1) .. struct.pack('>I3I8', 0, number)
  redis.call('SET', KEYS[2] .. id, ARGV[4], 'PX', 600000)
  redis.call('XADD', KEYS[1], string.format('%.0f-%d', first_ms, number), 'e', 'A' .. id)
end
"""


async def fill(redis_client: Any, settings: Settings, count: int, *, ago_ms: int, first: int = 1) -> None:
    """Entries of as many delivered messages in the log of each partition."""
    for partition in range(settings.partitions):
        keys = PartitionKeys(settings.key_namespace, partition, settings.partitions)
        for at in range(first, first + count, 5_000):
            last = min(at + 4_999, first + count - 1)
            await redis_client.eval(FILL, 2, keys.log, keys.prefix + b"m", at, last, ago_ms, DELIVERED_RECORD)


MESSAGE = b"\x99\xb5https://filling.test/\xa4POST\x90\xa0\x03\xce\x00\x0d\xbb\xa0\xc0\x90\xc0"
DELIVERED_RECORD = (
    b"\x01d" + bytes(4) + b"\x00\x01" + (1_700_000_000_000).to_bytes(6) * 3 + b"\x0a\x00\x0c"
    + len(MESSAGE).to_bytes(3) + b"\x00\x00\x00\x04" + MESSAGE + b"body"
)  # fmt: skip


async def commands(redis_client: Any) -> Counter[str]:
    stats = await redis_client.info("commandstats")
    return Counter({name: entry["calls"] for name, entry in stats.items()})


@pytest.mark.usefixtures("breaks_invariants")
async def test_a_request_costs_the_same_with_any_number_of_entries(
    store: Store, settings: Settings, redis_client: Any
) -> None:
    """Those that fill the log have no place where they could be, and no size."""
    dlq_id = await dead_letter(store)
    fresh = await publish(store)
    rare = Filter(labels=frozenset({"none"}), to_ms=1_000)

    async def requests(cursors: Sequence[str | None]) -> None:
        for newest_first in (False, True):
            for cursor in cursors:
                await store.admin.read_log(ALL, cursor=cursor, count=100, newest_first=newest_first)
            await store.admin.read_log(of(fresh), cursor=None, count=100, newest_first=newest_first)
            await store.admin.read_log(rare, cursor=None, count=100, newest_first=newest_first)
        await store.admin.list_dead_letters(cursor=None, count=10, newest_first=True)
        await store.admin.get_dead_letters([dlq_id])
        await store.admin.locate(fresh)

    async def cost() -> Counter[str]:
        middle = await store.admin.read_log(ALL, cursor=None, count=300, newest_first=True)
        assert middle.cursor is not None
        await redis_client.config_resetstat()
        await requests([None, middle.cursor])
        return await commands(redis_client)

    await fill(redis_client, settings, 1_000, ago_ms=-60_000)
    await cost()
    few = await cost()
    await fill(redis_client, settings, 99_000, ago_ms=-120_000, first=1_001)
    assert await cost() == few


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("count", [3, 40])
async def test_nothing_is_skipped_and_nothing_comes_twice_while_entries_arrive(
    store: Store, partitions: int, count: int, *, newest_first: bool
) -> None:
    await store.delivery.heartbeat("w1", 100 * partitions)
    is_over = asyncio.Event()
    written: list[MessageId] = []
    ended: list[MessageId] = []

    async def publishing() -> None:
        while not is_over.is_set():
            written.extend(await asyncio.gather(*(publish(store, lane=f"h:{n}") for n in range(4))))

    async def settling() -> None:
        while not is_over.is_set():
            for partition in range(partitions):
                claims = await claim_all(store, limit=4, partition=partition)
                await asyncio.gather(*(store.delivery.settle(delivered(claim)) for claim in claims))
                ended.extend(claim.id for claim in claims)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(publishing())
        tasks.create_task(settling())
        for _ in range(4):
            before = list(written), list(ended)
            found: list[LogEntry] = []
            async for page in pages(store, count=count, newest_first=newest_first):
                found.extend(page)
                if len(found) >= 1_000 and not newest_first:
                    break
            check(found, *before, newest_first=newest_first, is_whole=len(found) < 1_000 or newest_first)
        is_over.set()
    check(await entries(store, count=500), written, ended, newest_first=False, is_whole=True)


def check(
    found: list[LogEntry], written: list[MessageId], ended: list[MessageId], *, newest_first: bool, is_whole: bool
) -> None:
    """All that had happened before the first page was asked for is there, once, in order."""
    times = Counter((entry.stored.id, entry.event) for entry in found)
    assert times.total() == len(times), "something came twice"
    ordered = list(reversed(found)) if newest_first else found
    assert [entry.time_ms for entry in ordered] == sorted(entry.time_ms for entry in found)
    lives: dict[MessageId, str] = {}
    for entry in ordered:
        lives[entry.stored.id] = lives.get(entry.stored.id, "") + entry.event
    assert set(lives.values()) <= {"C", "CA", "CAD"}, "causes come before their effects"
    if is_whole:
        assert set(written) <= set(lives)
        assert all(lives[message_id] == "CAD" for message_id in ended)


@pytest.mark.parametrize("partitions", [3])
async def test_an_entry_that_comes_late_in_its_millisecond_is_not_skipped(
    store: Store, settings: Settings, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading towards the present stops before the millisecond that is not over yet; a moment later it is."""
    ids = [await publish(store) for _ in range(3 * 8)]
    monkeypatch.setattr(stream_walk, "_SETTLE_S", 0)
    last_ms = (await redis_client.time())[0] * 1000 + 600_000
    for partition in (2, 0, 1):
        keys = PartitionKeys(settings.key_namespace, partition, 3)
        own = next(one for one in ids if one[0] * 3 // 256 == partition)
        await redis_client.xadd(keys.log, {"e": b"A" + own}, id=f"{last_ms}-{5 - partition}")
    found = await entries(store, count=4)
    assert [entry.event for entry in found] == [LogEvent.CREATED] * len(ids), "the last ones may have neighbours yet"
    assert len(await entries(store, count=4, newest_first=True)) == len(ids) + 3


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_cursor_survives_retention(
    store: Store, settings: Settings, redis_client: Any, partitions: int, *, newest_first: bool
) -> None:
    ids = [await publish(store) for _ in range(40)]
    page = await store.admin.read_log(ALL, cursor=None, count=10, newest_first=newest_first)
    for partition in range(partitions):
        keys = PartitionKeys(settings.key_namespace, partition, partitions)
        own = await redis_client.xrange(keys.log)
        if len(own) > 5:
            await redis_client.xtrim(keys.log, minid=own[5][0], approximate=False)
    rest = await store.admin.read_log(ALL, cursor=page.cursor, count=100, newest_first=newest_first)
    found = [entry.stored.id for entry in (*page.entries, *rest.entries)]
    assert len(found) == len(set(found))
    assert set(found) <= set(ids)
    assert len(found) >= 40 - 6 * partitions


@pytest.mark.parametrize("partitions", [1, 2, 5])
async def test_random_pages_meet(store: Store, partitions: int) -> None:
    """Whatever sizes the pages have, together they are the log."""
    await store.delivery.heartbeat("w1", 100 * partitions)
    rng = random.Random(partitions)
    for _ in range(60):
        await publish(store)
        if rng.random() < 0.5:
            for partition in range(partitions):
                for claim in await claim_all(store, limit=1, partition=partition):
                    await store.delivery.settle(delivered(claim) if rng.random() < 0.5 else failed(claim))
    everything = await entries(store, count=1000)
    for newest_first in (False, True):
        found: list[LogEntry] = []
        cursor: str | None = None
        while not found or cursor is not None:
            size = rng.randrange(1, 20)
            page = await store.admin.read_log(ALL, cursor=cursor, count=size, newest_first=newest_first)
            found += page.entries
            cursor = page.cursor
        assert found == (list(reversed(everything)) if newest_first else everything)


async def test_an_entry_without_the_attempt_it_speaks_of(store: Store, keys: PartitionKeys, redis_client: Any) -> None:
    message_id = await publish(store)
    await store.delivery.settle(retry(await claim_one(store), attempt=attempt(1)))
    await redis_client.xadd(keys.log, {"e": b"E" + message_id + (7).to_bytes(4)})
    found = [entry.attempt for entry in await entries(store) if entry.event is LogEvent.ERROR]
    assert found == [attempt(1), None]


def test_the_slack_is_longer_than_a_script() -> None:
    assert log_store.SLACK_MS >= 1_000


@pytest.mark.parametrize("chosen_by_id", [True, False])
async def test_an_attempt_that_ends_while_the_log_is_read_is_told_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch, chosen_by_id: bool
) -> None:
    """Its record was read for an earlier entry, or to find when the message lived."""
    message_id = await publish(store)
    claim = await claim_one(store)
    peek = records.Records.peek
    ended = False

    async def peek_and_end(self: records.Records, message_ids: Any) -> None:
        nonlocal ended
        await peek(self, list(message_ids))
        if not ended:
            ended = True
            await store.delivery.settle(failed(claim))

    monkeypatch.setattr(records.Records, "peek", peek_and_end)
    # Page by page, so that the entry of the attempt is read after the record.
    monkeypatch.setattr(selection, "READ_AT_ONCE", 1)
    found = await entries(store, of(message_id) if chosen_by_id else Filter(urls=frozenset({claim.message.url})))
    errors = [entry for entry in found if entry.event is LogEvent.ERROR]
    assert [error.attempt is not None for error in errors] == [True]
