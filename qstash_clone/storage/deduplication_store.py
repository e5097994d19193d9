"""Looking up and forgetting what was published first with a certain digest."""

from collections.abc import Sequence

from qstash_clone.ids import MessageId
from qstash_clone.storage.access import ask_time, store_time_ms
from qstash_clone.storage.codec import STORAGE_VERSION, decode_deduplication
from qstash_clone.storage.commands import RedisCommands
from qstash_clone.storage.interface import DeduplicationRecord
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import partition_of
from qstash_clone.storage.scripts import ScriptRunner


class DeduplicationStore:
    """The deduplication records, each on the partition that its digest decides."""

    def __init__(self, commands: RedisCommands, runner: ScriptRunner, keys: Sequence[PartitionKeys]) -> None:
        self._commands = commands
        self._runner = runner
        self._keys = keys

    def _keys_of(self, digest: bytes) -> PartitionKeys:
        return self._keys[partition_of(MessageId(digest), len(self._keys))]

    async def get(self, digest: bytes) -> DeduplicationRecord | None:
        """The record; None if there is none, or its window is over."""
        keys = self._keys_of(digest)
        record, *times = await self._commands.ask_all([("GET", keys.deduplication(digest)), *ask_time(keys)])
        if record is None:
            return None
        found = decode_deduplication(record)
        return found if found.expires_ms > store_time_ms(*times) else None

    async def clear(self, digest: bytes) -> bool:
        """Forget the record, so that the next publish is stored; returns whether there was one."""
        keys = self._keys_of(digest)
        reply, is_repeated = await self._runner.run("clear_deduplication", [keys.meta], [STORAGE_VERSION, digest])
        # Not there any more after a lost reply: most probably because the lost reply said "cleared".
        return reply[0] == b"cleared" or is_repeated
