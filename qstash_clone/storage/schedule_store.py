"""Schedules: creating, changing and reading them, and firing those that are due."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from hashlib import sha256
from itertools import chain
from typing import Any, Final

from qstash_clone.domain.cron import Cron
from qstash_clone.domain.message import Deduplication, State
from qstash_clone.domain.quoting import quoted
from qstash_clone.domain.schedules import Firing, Schedule, StoredSchedule, firing_ids, parsed_cron
from qstash_clone.errors import InvalidRequest, QuotaExceeded, StorageError, StorageFull, StorageUnavailable
from qstash_clone.ids import MessageId
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.codec import STORAGE_VERSION, decode_original_schedule, encode_original_schedule
from qstash_clone.storage.commands import Argument
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import buckets_of, lane_partition, partition_of
from qstash_clone.storage.publish_store import RedisPublishStore, member_error
from qstash_clone.storage.resources import DueSchedules, FireResult, ScheduleCreation
from qstash_clone.storage.schedule_codec import (
    HEAD_BYTES,
    creation_of,
    decode_schedule,
    encode_definition,
    encode_firing,
    fence_of_schedule,
)

READ_TOGETHER: Final = 100
"""Records in one round trip, and schedules in one slice of a list."""
SCAN_TOGETHER: Final = 500
STATES_TOGETHER: Final = 500
MAX_BYTES: Final = 1_048_576
"""Of records read, or of messages stored, in one script: Redis serves nobody else meanwhile."""
UNREADABLE_AGAIN_MS: Final = 60_000
_MAX_TRIES: Final = 10
"""Of a change that needs the time: each failed one means that an instant passed, or the schedule was changed, between
two calls."""
_CLOCK_TOLERANCE_MS: Final = 1_000
"""The next instant is computed from so long before this machine's time: where its clock is ahead of the store's by
less than this, the first try succeeds."""


class RedisScheduleStore:
    """`ScheduleStore` and `FiringStore` on Redis."""

    def __init__(self, access: StoreAccess, publishing: RedisPublishStore, *, max_schedules: int) -> None:
        self._access = access
        self._publishing = publishing
        self._max_schedules = max_schedules

    def _partition_of(self, schedule_id: str) -> int:
        return partition_of(MessageId(sha256(schedule_id.encode()).digest()), self._access.partitions)

    def _keys_of(self, schedule_id: str) -> PartitionKeys:
        return self._access.keys[self._partition_of(schedule_id)]

    async def create_schedule(
        self, schedule: Schedule, deduplication: Deduplication | None, *, is_paused: bool = False
    ) -> ScheduleCreation:
        if deduplication is None:
            await self.put_schedule(schedule, is_paused=is_paused)
            return ScheduleCreation(schedule_id=schedule.id, is_duplicate=False)
        creation = self._access.ids.next_id()
        decided = await self._publishing.reservations.store_once(
            deduplication,
            creation,
            encode_original_schedule(schedule.id),
            lambda: self.put_schedule(schedule, creation, is_paused=is_paused),
            self._is_stored,
        )
        return ScheduleCreation(schedule_id=decode_original_schedule(decided.told), is_duplicate=decided.is_repeat)

    async def _is_stored(self, creation: MessageId, told: bytes) -> bool:
        """Whether the schedule is there, and not one of the same id from another creation."""
        schedule_id = decode_original_schedule(told)
        record = await self._access.commands.ask("GET", self._keys_of(schedule_id).schedule(schedule_id))
        return record is not None and creation_of(schedule_id, record) == creation

    async def put_schedule(
        self, schedule: Schedule, creation: bytes = b"", *, is_paused: bool = False
    ) -> StoredSchedule:
        if schedule.limited_lanes:
            # Refuses lanes that live apart.
            self._publishing.new_message_id(lanes=schedule.limited_lanes)
        keys = self._keys_of(schedule.id)
        most = max(0, self._max_schedules - await self._count_elsewhere(keys))
        definition = encode_definition(schedule, creation)
        cron = parsed_cron(schedule.cron)
        next_ms = 0

        async def put(counted_from_ms: int) -> list[Any]:
            nonlocal next_ms
            next_ms = _first_after(cron, counted_from_ms)
            args: list[Argument] = [STORAGE_VERSION, schedule.id, most, counted_from_ms, next_ms, int(is_paused)]
            reply, _ = await self._access.runner.run(
                "put_schedule", _change_keys(keys, schedule.id), [*args, definition, schedule.body]
            )
            return reply

        reply = await _in_time(put)
        if reply[0] == b"quota":
            raise QuotaExceeded(f"there are {self._max_schedules} schedules already, no more are allowed")
        _, created_ms, revision = reply
        return StoredSchedule(
            schedule=schedule,
            created_ms=created_ms,
            revision=revision,
            is_paused=is_paused,
            next_fire_ms=None if is_paused else next_ms,
        )

    async def _count_elsewhere(self, own: PartitionKeys) -> int:
        """As of a moment ago: schedules that are created at once in different partitions may be a few too many."""
        others = [keys.catalogue for keys in self._access.keys if keys is not own]
        return sum(await self._access.commands.ask_all([("ZCARD", key) for key in others])) if others else 0

    async def get_schedule(self, schedule_id: str) -> StoredSchedule | None:
        record = await self._access.commands.ask("GET", self._keys_of(schedule_id).schedule(schedule_id))
        return None if record is None else decode_schedule(schedule_id, record)

    async def list_schedules(self) -> AsyncIterator[list[StoredSchedule]]:
        places: dict[str, tuple[float, str]] = {}
        for keys in self._access.keys:
            async for schedule_id, created_ms in self._scan(keys.catalogue):
                places[schedule_id] = (created_ms, schedule_id)
        ordered = sorted(places, key=places.__getitem__)
        at = 0
        while at < len(ordered):
            slice_ids = ordered[at : at + READ_TOGETHER]
            sizes = await self._access.commands.ask_all([("STRLEN", self._record(one)) for one in slice_ids])
            taken = _fitting(sizes)
            records = await self._access.commands.ask_all([("GET", self._record(one)) for one in slice_ids[:taken]])
            at += taken
            yield _readable(slice_ids, records)

    def _record(self, schedule_id: str) -> bytes:
        return self._keys_of(schedule_id).schedule(schedule_id)

    async def _scan(self, catalogue: bytes) -> AsyncIterator[tuple[str, float]]:
        """Those that are there all the time come at least once."""
        cursor = 0
        while True:
            cursor, batch = await self._access.commands.ask("ZSCAN", catalogue, cursor, "COUNT", SCAN_TOGETHER)
            for member, created_ms in batch:
                yield member.decode(), float(created_ms)
            if int(cursor) == 0:
                return

    async def set_schedule_paused(self, schedule_id: str, is_paused: bool) -> bool:
        if is_paused:
            return (await self._change(schedule_id, "pause"))[0] == b"ok"
        for _ in range(_MAX_TRIES):
            stored = await self.get_schedule(schedule_id)
            if stored is None:
                return False
            word = await self._resume(stored)
            if word != b"changed":
                return word == b"ok"
        raise StorageUnavailable(f"The schedule {quoted(schedule_id)} is changed again and again by others.")

    async def _resume(self, stored: StoredSchedule) -> bytes:
        cron = parsed_cron(stored.schedule.cron)

        async def resume(counted_from_ms: int) -> list[Any]:
            next_ms = cron.next_after(counted_from_ms) or 0
            return await self._change(stored.schedule.id, "resume", stored.revision, counted_from_ms, next_ms)

        return (await _in_time(resume))[0]

    async def delete_schedule(self, schedule_id: str) -> bool:
        reply, is_repeated = await self._run_change(schedule_id, "delete", 0, 0, 0)
        # After a lost reply: most probably because that one said so.
        return reply[0] == b"ok" or is_repeated

    async def _change(
        self, schedule_id: str, change: str, revision: int = 0, counted_from_ms: int = 0, next_ms: int = 0
    ) -> list[Any]:
        return (await self._run_change(schedule_id, change, revision, counted_from_ms, next_ms))[0]

    async def _run_change(
        self, schedule_id: str, change: str, revision: int, counted_from_ms: int, next_ms: int
    ) -> tuple[list[Any], bool]:
        return await self._access.runner.run(
            "change_schedule",
            _change_keys(self._keys_of(schedule_id), schedule_id),
            [STORAGE_VERSION, schedule_id, change, revision, counted_from_ms, next_ms],
        )

    async def read_states(self, message_ids: Sequence[MessageId]) -> dict[MessageId, State]:
        states: dict[MessageId, State] = {}
        for at in range(0, len(message_ids), STATES_TOGETHER):
            part = message_ids[at : at + STATES_TOGETHER]
            found = await self._access.commands.ask_all(
                [("GETRANGE", self._access.keys_of(one).message(one), 1, 1) for one in part]
            )
            states |= {one: State(letter.decode()) for one, letter in zip(part, found, strict=True) if letter}
        return states

    async def due_schedules(self, partition: int, limit: int, spread: float) -> DueSchedules:
        keys = self._access.keys[partition]
        reply, _ = await self._access.runner.run(
            "due_schedules",
            [keys.meta, keys.schedules],
            [STORAGE_VERSION, limit, MAX_BYTES, f"{spread:.6f}"],
        )
        _, now_ms, earliest_ms, is_frozen, records, texts = reply
        faults = [text.decode(errors="replace") for text in texts]
        schedules: list[StoredSchedule] = []
        for schedule_id, record in zip(records[::2], records[1::2], strict=True):
            try:
                schedules.append(decode_schedule(schedule_id.decode(), record))
            except StorageError as error:
                faults.append(str(error))
                await self._postpone(schedule_id.decode(), *fence_of_schedule(record), UNREADABLE_AGAIN_MS)
        return DueSchedules(
            schedules=schedules,
            faults=faults,
            now_ms=now_ms,
            next_fire_ms=None if earliest_ms < 0 else earliest_ms,
            is_frozen=is_frozen == 1,
        )

    def new_firing_ids(self, stored: StoredSchedule, instant_ms: int, urls: Sequence[str]) -> Sequence[MessageId]:
        partition = self._partition_of_messages(stored.schedule)
        buckets = buckets_of(partition, self._access.partitions)
        return firing_ids(stored.schedule.id, stored.revision, instant_ms, urls, *buckets)

    def _partition_of_messages(self, schedule: Schedule) -> int:
        """That of their lanes, all of which live together; without any that of the schedule."""
        lanes = schedule.limited_lanes
        return lane_partition(lanes[0], self._access.partitions) if lanes else self._partition_of(schedule.id)

    async def fire(self, firings: Sequence[Firing]) -> list[FireResult | Exception]:
        results: dict[int, FireResult | Exception] = {}
        await self._publish_elsewhere(firings, results)
        arguments: dict[int, list[Argument]] = {}
        for at, firing in enumerate(firings):
            if at not in results:
                try:
                    arguments[at] = encode_firing(firing, firing.messages if self._is_together(firing) else ())
                except ValueError as error:
                    results[at] = error
        waiting = list(arguments)
        while waiting:
            taken = _fitting([_weight(firings[at]) for at in waiting])
            together, waiting = waiting[:taken], waiting[taken:]
            keys = self._keys_of(firings[together[0]].stored.schedule.id)
            try:
                fired = await self._fire_together(keys, [arguments[at] for at in together])
            except (StorageUnavailable, StorageFull) as error:
                # What was fired before has to be told all the same.
                fired = [error] * taken
            results |= zip(together, fired, strict=True)
        return [results[at] for at in range(len(firings))]

    async def _publish_elsewhere(self, firings: Sequence[Firing], results: dict[int, FireResult | Exception]) -> None:
        """Store the messages that belong to another partition than their schedule, before the schedule moves on: the
        other way round an instant could be lost. Repeating it stores nothing twice, because ids are derived.

        No script can look at both partitions. So the schedules are looked at right before: whoever was held up since
        it planned a firing would publish what may have been fired, delivered and forgotten meanwhile.
        """
        apart = {at: firing for at, firing in enumerate(firings) if firing.messages and not self._is_together(firing)}
        if not apart:
            return
        heads = await self._access.commands.ask_all(
            [("GETRANGE", self._record(firing.stored.schedule.id), 0, HEAD_BYTES - 1) for firing in apart.values()]
        )
        current = {
            at: firing for (at, firing), head in zip(apart.items(), heads, strict=True) if _applies(firing, head)
        }
        results |= dict.fromkeys(apart.keys() - current.keys(), FireResult.STALE)
        problems = await asyncio.gather(*map(self._problem_of_publishing, current.values()))
        results |= {at: problem for at, problem in zip(current, problems, strict=True) if problem is not None}

    async def _problem_of_publishing(self, firing: Firing) -> Exception | None:
        """What one firing meets in the other partition is no reason to hold up those of this one."""
        try:
            await self._publishing.fan_out(firing.messages)
        except StorageFull as error:
            return error
        except StorageError as error:
            return StorageError(f"Its messages belong to another partition than the schedule: {error}")
        except ValueError as error:
            return error
        return None

    def _is_together(self, firing: Firing) -> bool:
        schedule = firing.stored.schedule
        return self._partition_of_messages(schedule) == self._partition_of(schedule.id)

    async def _fire_together(
        self, keys: PartitionKeys, arguments: Sequence[list[Argument]]
    ) -> list[FireResult | Exception]:
        args: list[Argument] = [STORAGE_VERSION, int(self._access.is_logged), *chain.from_iterable(arguments)]
        reply, is_repeated = await self._access.runner.run("fire_schedule", [keys.meta, keys.log, keys.schedules], args)
        return [_result(word, is_repeated=is_repeated) for word in reply[1:]]

    async def postpone(self, stored: StoredSchedule, delay_ms: int) -> None:
        await self._postpone(stored.schedule.id, stored.revision, stored.next_fire_ms or 0, delay_ms)

    async def _postpone(self, schedule_id: str, revision: int, due_ms: int, delay_ms: int) -> None:
        keys = self._keys_of(schedule_id)
        await self._access.runner.run(
            "postpone_schedule",
            [keys.meta, keys.schedules, keys.schedule(schedule_id)],
            [STORAGE_VERSION, schedule_id, revision, due_ms, delay_ms],
        )


def _change_keys(keys: PartitionKeys, schedule_id: str) -> list[bytes]:
    return [keys.meta, keys.schedules, keys.catalogue, keys.schedule(schedule_id)]


async def _in_time(change: Callable[[int], Awaitable[list[Any]]]) -> list[Any]:
    """The reply to a change that depends on the next instant, made again until no instant passed meanwhile.

    `change` takes the moment from which the next instant is to be computed.
    """
    counted_from_ms = time.time_ns() // 1_000_000 - _CLOCK_TOLERANCE_MS
    for _ in range(_MAX_TRIES):
        reply = await change(counted_from_ms)
        if reply[0] != b"time":
            return reply
        counted_from_ms = reply[1]
    raise StorageUnavailable("Redis's clock jumps again and again.")


def _first_after(cron: Cron, unix_ms: int) -> int:
    """Raises `InvalidRequest` for an expression whose every instant is left out by changes of clocks."""
    next_ms = cron.next_after(unix_ms)
    if next_ms is None:
        raise InvalidRequest(f"Upstash-Cron: {quoted(cron.expression)} has no instant in the next fifty years")
    return next_ms


def _fitting(sizes: Sequence[int]) -> int:
    """How many of the first go together: at least one, at most `MAX_BYTES`."""
    total_bytes = 0
    for count, size in enumerate(sizes):
        total_bytes += size
        if count and total_bytes > MAX_BYTES:
            return count
    return len(sizes)


def _readable(schedule_ids: Sequence[str], records: Sequence[bytes | None]) -> list[StoredSchedule]:
    found: list[StoredSchedule] = []
    for schedule_id, record in zip(schedule_ids, records, strict=False):
        if record is not None:
            try:
                found.append(decode_schedule(schedule_id, record))
            except StorageError:
                # Written by a later release, which shows it; here it must not take the others along.
                continue
    return found


def _weight(firing: Firing) -> int:
    """Roughly what its messages occupy, each with a copy of the body."""
    return sum(len(message.body) + 500 for message in firing.messages)


def _applies(firing: Firing, head: bytes) -> bool:
    """Whether the schedule is still what the firing was planned for; `head` is empty for one that is gone."""
    return bool(head) and fence_of_schedule(head) == (firing.stored.revision, firing.stored.next_fire_ms)


def _result(word: bytes, *, is_repeated: bool) -> FireResult | Exception:
    if word == b"fired" or (word == b"already" and is_repeated):
        return FireResult.FIRED
    if not word.startswith(b"error "):
        return FireResult.STALE
    error = member_error(word)
    return error if isinstance(error, StorageFull) else StorageError(str(error))
