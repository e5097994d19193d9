"""Publishing: concurrent publishes joined into one script call per partition."""

from collections.abc import Awaitable, Callable, Sequence

from qstash_clone import observability
from qstash_clone.domain.message import NewMessage
from qstash_clone.errors import StorageFull, StorageUnavailable
from qstash_clone.ids import MessageId, MessageIdGenerator
from qstash_clone.storage.codec import MAX_LANE_BYTES, STORAGE_VERSION, encode_message, find_lane
from qstash_clone.storage.commands import Argument
from qstash_clone.storage.grouping import Grouper
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import buckets_of, partition_of
from qstash_clone.storage.scripts import ScriptRunner

_Encoded = tuple[bytes, int, int, bytes, int, bytes, bytes]
"""The seven arguments of publish.lua for one message."""


def member_error(word: bytes) -> Exception:
    """What one member of a group failed with, from its word `error <text>`."""
    text = word.removeprefix(b"error ").decode(errors="replace")
    if "OOM command not allowed" in text:
        return StorageFull("Redis is at its memory limit.")
    return StorageUnavailable(f"Redis refused one message of a group: {text[:200]}")


class RedisPublishStore:
    """`PublishStore` on Redis."""

    def __init__(self, runner: ScriptRunner, keys: Sequence[PartitionKeys], ids: MessageIdGenerator) -> None:
        self._runner = runner
        self._keys = keys
        self._ids = ids
        self._buckets = [buckets_of(partition, len(keys)) for partition in range(len(keys))]
        self._filling = 0
        self._groupers = [
            Grouper[_Encoded, None](self._caller(partition), _weigh, observability.PUBLISH_GROUP_SIZE.observe)
            for partition in range(len(keys))
        ]

    def new_message_id(self) -> MessageId:
        return self._ids.next_id(*self._buckets[self._filling])

    async def publish(self, message: NewMessage) -> None:
        lane = message.lane.encode()
        if len(lane) > MAX_LANE_BYTES:
            raise ValueError(f"lane of {len(lane)} bytes")
        not_before_ms = -1 if message.not_before_ms is None else message.not_before_ms
        partition = partition_of(message.id, len(self._keys))
        encoded = encode_message(message.message)
        await self._groupers[partition].submit(
            (message.id, message.delay_ms, not_before_ms, lane, find_lane(lane, encoded), encoded, message.body)
        )

    def _caller(self, partition: int) -> Callable[[Sequence[_Encoded]], Awaitable[Sequence[Exception | None]]]:
        keys = self._keys[partition]
        key_list = [keys.meta, keys.ready, keys.timers, keys.ring, keys.log]

        async def call(group: Sequence[_Encoded]) -> list[Exception | None]:
            # What arrives during this call gathers for the next partition.
            self._filling = (partition + 1) % len(self._keys)
            args: list[Argument] = [STORAGE_VERSION]
            for encoded in group:
                args.extend(encoded)
            reply, _ = await self._runner.run("publish", key_list, args)
            return [None if word == b"stored" else member_error(word) for word in reply[1:]]

        return call


def _weigh(encoded: _Encoded) -> int:
    return len(encoded[5]) + len(encoded[6])
