"""Publishing: concurrent publishes joined into one script call per partition."""

import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from qstash_clone import observability
from qstash_clone.domain.lanes import is_queue_lane
from qstash_clone.domain.message import Deduplication, NewMessage
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest, StorageFull, StorageUnavailable
from qstash_clone.ids import MessageId, MessageIdGenerator
from qstash_clone.storage.codec import (
    MAX_LANE_BYTES,
    STORAGE_VERSION,
    decode_originals,
    encode_deduplication,
    encode_limits,
    encode_message,
    encode_originals,
    find_lane,
)
from qstash_clone.storage.commands import Argument, RedisCommands
from qstash_clone.storage.grouping import MAX_BYTES, MAX_ITEMS, Grouper
from qstash_clone.storage.interface import Published
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import buckets_of, lane_bucket, lane_partition, partition_of
from qstash_clone.storage.reservations import Reservations
from qstash_clone.storage.scripts import REPLAY_WINDOW_MS, ScriptRunner

_Encoded = tuple[MessageId, tuple[Argument, ...], int, float]
"""First id, arguments of publish.lua for one unit, what storing it weighs in bytes, until when the call may begin."""
_DUPLICATE = b"duplicate "
ID_BYTES: Final = 12
_LEAST_BYTES_OF_SEVERAL: Final = MAX_BYTES // MAX_ITEMS
"""What each message of a fan-out weighs at least, so that one call stores as many messages as if they came alone."""


class _Reserved(Exception):
    """A message on another partition is about to be the first with a digest."""


def member_error(word: bytes) -> Exception:
    """What one member of a group failed with, from its word `error <text>`."""
    text = word.removeprefix(b"error ").decode(errors="replace")
    if "OOM command not allowed" in text:
        return StorageFull("Redis is at its memory limit.")
    return StorageUnavailable(f"Redis refused one message of a group: {text[:200]}")


def encode_lane(message: NewMessage, encoded: bytes) -> tuple[bytes, int]:
    """Lane of a new message, and where its host stands in the encoded one. Raises ValueError for one that is too
    long."""
    lane = message.lane.encode()
    if len(lane) > MAX_LANE_BYTES:
        raise ValueError(f"lane of {len(lane)} bytes")
    return lane, find_lane(lane, encoded)


class RedisPublishStore:
    """`PublishStore` on Redis."""

    def __init__(
        self,
        commands: RedisCommands,
        runner: ScriptRunner,
        keys: Sequence[PartitionKeys],
        ids: MessageIdGenerator,
        *,
        is_logged: bool,
    ) -> None:
        self._commands = commands
        self._runner = runner
        self.reservations = Reservations(runner, keys)
        self._keys = keys
        self._ids = ids
        self._is_logged = is_logged
        self._buckets = [buckets_of(partition, len(keys)) for partition in range(len(keys))]
        self._filling = 0
        self._begin_within_s = REPLAY_WINDOW_MS / 1000
        """After which what was reserved is not stored any more: somebody else might take the reservation over first."""
        self._groupers = [
            Grouper[_Encoded, Published](self._caller(partition), _weigh, observability.PUBLISH_GROUP_SIZE.observe)
            for partition in range(len(keys))
        ]

    def new_message_id(self, deduplication: Deduplication | None = None, lanes: Sequence[str] = ()) -> MessageId:
        if lanes:
            partition = self._partition_of_lanes(lanes)
            queue = next(filter(is_queue_lane, lanes), None)
            if queue is not None:
                # Timers of one moment are in the order of their ids, and so are members that are delayed until then.
                return self._ids.next_ordered_id(lane_bucket(queue))
        elif deduplication is not None:
            partition = self._deciding(deduplication)
        else:
            partition = self._filling
        return self._ids.next_id(*self._buckets[partition])

    def _partition_of_lanes(self, lanes: Sequence[str]) -> int:
        partition, *others = {lane_partition(lane, len(self._keys)): lane for lane in lanes}
        if others:
            names = ", ".join(quoted(lane[2:]) for lane in lanes)
            raise InvalidRequest(
                f"{names}: these queues and flow-control keys live in different partitions, and one message can only be"
                " subject to those of one"
            )
        return partition

    def new_message_ids(
        self, count: int, deduplication: Deduplication | None = None, lanes: Sequence[str] = ()
    ) -> list[MessageId]:
        return [self.new_message_id(deduplication, lanes) for _ in range(count)]

    def _deciding(self, deduplication: Deduplication) -> int:
        """The partition on which a digest's record is: one script there looks it up and stores the message."""
        return partition_of(MessageId(deduplication.digest), len(self._keys))

    def publish(self, message: NewMessage) -> Awaitable[Published]:
        return self.fan_out((message,))

    def fan_out(self, messages: Sequence[NewMessage]) -> Awaitable[Published]:
        first = messages[0]
        deduplication = first.deduplication
        if deduplication is None:
            return self._submit(messages, b"")
        told = encode_originals(messages)
        if self.decides_elsewhere(first):
            return self._publish_in_steps(deduplication, messages, told)
        published = self._submit(messages, encode_deduplication(deduplication) + told)
        # With one partition nothing is elsewhere, so nothing is reserved.
        return published if len(self._keys) == 1 else self._unless_reserved(published, deduplication, messages, told)

    def decides_elsewhere(self, message: NewMessage) -> bool:
        deduplication = message.deduplication
        return deduplication is not None and self._deciding(deduplication) != partition_of(message.id, len(self._keys))

    async def _unless_reserved(
        self,
        published: Awaitable[Published],
        deduplication: Deduplication,
        messages: Sequence[NewMessage],
        told: bytes,
    ) -> Published:
        """What was submitted already, unless a message on another partition is about to be the first with its digest:
        only the steps of reservations can tell what became of that one."""
        try:
            return await published
        except _Reserved:
            return await self._publish_in_steps(deduplication, messages, told)

    def _publish_in_steps(
        self, deduplication: Deduplication, messages: Sequence[NewMessage], told: bytes
    ) -> Awaitable[Published]:
        return self.reservations.publish(
            deduplication,
            messages[0].id,
            told,
            lambda: self._submit(messages, b"", time.monotonic() + self._begin_within_s),
            self._is_stored,
        )

    async def _is_stored(self, message_id: MessageId) -> bool:
        keys = self._keys[partition_of(message_id, len(self._keys))]
        return await self._commands.ask("EXISTS", keys.message(message_id)) == 1

    def _submit(
        self, messages: Sequence[NewMessage], repeats: bytes, until_s: float = math.inf
    ) -> Awaitable[Published]:
        first = messages[0]
        partition = partition_of(first.id, len(self._keys))
        arguments: list[Argument] = [
            len(messages),
            first.delay_ms,
            -1 if first.not_before_ms is None else first.not_before_ms,
            first.body,
            encode_limits(first.message),
            repeats,
        ]
        weight = 0
        for message in messages:
            encoded = encode_message(message.message)
            arguments += (message.id, *encode_lane(message, encoded), encoded)
            # The body is sent once, but stored with each.
            weight += len(encoded) + len(first.body)
        if len(messages) > 1:
            weight = max(weight, len(messages) * _LEAST_BYTES_OF_SEVERAL)
        return self._groupers[partition].submit((first.id, tuple(arguments), weight, until_s))

    def _caller(self, partition: int) -> Callable[[Sequence[_Encoded]], Awaitable[Sequence[Published | Exception]]]:
        keys = self._keys[partition]
        key_list = [keys.meta, keys.log, keys.dedup]
        fixed = (STORAGE_VERSION, int(self._is_logged))

        async def call(group: Sequence[_Encoded]) -> list[Published | Exception]:
            # What arrives during this call gathers for the next partition.
            self._filling = (partition + 1) % len(self._keys)
            now_s = time.monotonic()
            timely = [unit for unit in group if now_s <= unit[3]]
            words: Iterator[bytes] = iter(())
            if timely:
                args: list[Argument] = [*fixed]
                for _, arguments, _, _ in timely:
                    args.extend(arguments)
                reply, _ = await self._runner.run("publish", key_list, args)
                words = iter(reply[1:])
            return [_result(unit[0], next(words)) if now_s <= unit[3] else _too_late() for unit in group]

        return call


def _too_late() -> Exception:
    return StorageUnavailable("Redis was too slow to store this publish while it was known to be no repeat.")


def _result(message_id: MessageId, word: bytes) -> Published | Exception:
    if word == b"stored":
        return Published(id=message_id)
    if word.startswith(_DUPLICATE):
        told = word[len(_DUPLICATE) :]
        return Published(id=MessageId(told[:ID_BYTES]), is_duplicate=True, originals=decode_originals(told[ID_BYTES:]))
    if word == b"reserved":
        return _Reserved()
    return member_error(word)


def _weigh(encoded: _Encoded) -> int:
    return encoded[2]
