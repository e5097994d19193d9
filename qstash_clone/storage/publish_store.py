"""Publishing: concurrent publishes joined into one script call per partition."""

from collections.abc import Awaitable, Callable, Sequence

from qstash_clone import observability
from qstash_clone.domain.message import Deduplication, NewMessage
from qstash_clone.errors import StorageFull, StorageUnavailable
from qstash_clone.ids import MessageId, MessageIdGenerator
from qstash_clone.storage.codec import (
    MAX_LANE_BYTES,
    STORAGE_VERSION,
    encode_deduplication,
    encode_message,
    find_lane,
)
from qstash_clone.storage.commands import Argument
from qstash_clone.storage.grouping import Grouper
from qstash_clone.storage.interface import Published
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import buckets_of, partition_of
from qstash_clone.storage.scripts import ScriptRunner

_Encoded = tuple[MessageId, int, int, bytes, int, bytes, bytes, bytes]
"""The eight arguments of publish.lua for one message."""
_DUPLICATE = b"duplicate "


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
        self, runner: ScriptRunner, keys: Sequence[PartitionKeys], ids: MessageIdGenerator, *, is_logged: bool
    ) -> None:
        self._runner = runner
        self._keys = keys
        self._ids = ids
        self._is_logged = is_logged
        self._buckets = [buckets_of(partition, len(keys)) for partition in range(len(keys))]
        self._filling = 0
        self._groupers = [
            Grouper[_Encoded, Published](self._caller(partition), _weigh, observability.PUBLISH_GROUP_SIZE.observe)
            for partition in range(len(keys))
        ]

    def new_message_id(self, deduplication: Deduplication | None = None, lanes: Sequence[str] = ()) -> MessageId:
        partition = self._filling if deduplication is None else self._deciding(deduplication)
        return self._ids.next_id(*self._buckets[partition])

    def new_message_ids(
        self, count: int, deduplication: Deduplication | None = None, lanes: Sequence[str] = ()
    ) -> list[MessageId]:
        first = self.new_message_id(deduplication, lanes)
        buckets = self._buckets[partition_of(first, len(self._keys))]
        return [first, *(self._ids.next_id(*buckets) for _ in range(count - 1))]

    def _deciding(self, deduplication: Deduplication) -> int:
        """The partition on which a digest's record is: one script there looks it up and stores the message."""
        return partition_of(MessageId(deduplication.digest), len(self._keys))

    async def publish(self, message: NewMessage) -> Published:
        partition = partition_of(message.id, len(self._keys))
        if message.deduplication is not None and self._deciding(message.deduplication) != partition:
            raise ValueError("the message is not on the partition that decides about its repeats")
        not_before_ms = -1 if message.not_before_ms is None else message.not_before_ms
        encoded = encode_message(message.message)
        lane, lane_at = encode_lane(message, encoded)
        deduplication = encode_deduplication(message.deduplication)
        return await self._groupers[partition].submit(
            (message.id, message.delay_ms, not_before_ms, lane, lane_at, encoded, message.body, deduplication)
        )

    def _caller(self, partition: int) -> Callable[[Sequence[_Encoded]], Awaitable[Sequence[Published | Exception]]]:
        keys = self._keys[partition]
        key_list = [keys.meta, keys.ready, keys.timers, keys.ring, keys.log, keys.dedup]
        fixed = (STORAGE_VERSION, int(self._is_logged))

        async def call(group: Sequence[_Encoded]) -> list[Published | Exception]:
            # What arrives during this call gathers for the next partition.
            self._filling = (partition + 1) % len(self._keys)
            args: list[Argument] = [*fixed]
            for encoded in group:
                args.extend(encoded)
            reply, _ = await self._runner.run("publish", key_list, args)
            return [_result(encoded[0], word) for encoded, word in zip(group, reply[1:], strict=True)]

        return call


def _result(message_id: MessageId, word: bytes) -> Published | Exception:
    if word == b"stored":
        return Published(id=message_id)
    if word.startswith(_DUPLICATE):
        return Published(id=MessageId(word.removeprefix(_DUPLICATE)), is_duplicate=True)
    return member_error(word)


def _weigh(encoded: _Encoded) -> int:
    return len(encoded[5]) + len(encoded[6])
