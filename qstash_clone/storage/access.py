"""What every part of the administrative store works with."""

from collections.abc import Sequence
from dataclasses import dataclass

from qstash_clone.ids import MessageId, MessageIdGenerator
from qstash_clone.storage.commands import RedisCommands
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


def store_time_ms(time: Sequence[int], offset: bytes | None) -> int:
    """The store's clock, from the replies to `TIME` and to `HGET <meta> off`."""
    return time[0] * 1000 + time[1] // 1000 + int(offset or 0)
