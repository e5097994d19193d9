"""What every part of the administrative store works with."""

from collections.abc import Sequence
from dataclasses import dataclass

from qstash_clone.ids import MessageId, MessageIdGenerator
from qstash_clone.storage.commands import Argument, RedisCommands
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import partition_of
from qstash_clone.storage.scripts import ScriptRunner


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAccess:
    """A way into the store, and the settings that its administration applies."""

    commands: RedisCommands
    runner: ScriptRunner
    keys: Sequence[PartitionKeys]
    """Of each partition."""
    ids: MessageIdGenerator
    message_grace_ms: int
    """For how long a finished message can still be asked for."""
    is_logged: bool
    """Whether transitions are written to the log."""
    finished_retention_ms: int
    """How long the record of a finished message stays."""

    @property
    def partitions(self) -> int:
        return len(self.keys)

    def partition_of(self, message_id: MessageId) -> int:
        return partition_of(message_id, len(self.keys))

    def keys_of(self, message_id: MessageId) -> PartitionKeys:
        """The keys of the partition that a message belongs to."""
        return self.keys[self.partition_of(message_id)]


def ask_time(keys: PartitionKeys) -> list[Sequence[Argument]]:
    """Two commands that ask a partition for the time of messages; their replies are for `store_time_ms`."""
    return [("TIME",), ("HMGET", keys.meta, "off", "fz")]


def store_time_ms(time: Sequence[int], moves: Sequence[bytes | None]) -> int:
    """The time of messages, from the replies to `ask_time`: Redis's own, unless somebody has moved or stopped it."""
    offset, frozen = moves
    return time[0] * 1000 + time[1] // 1000 + int(offset or 0) if frozen is None else int(frozen)


def is_stopped(moves: Sequence[bytes | None]) -> bool:
    """Whether that time stands still."""
    return moves[1] is not None
