"""Reading and managing, composed of a part for each concept; sizes and the probe of readiness."""

from collections.abc import Sequence
from typing import Final

from qstash_clone.errors import StorageFull, StorageUnavailable
from qstash_clone.ids import MessageIdGenerator
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.commands import Argument, RedisCommands
from qstash_clone.storage.dead_letter_store import DeadLetterStore
from qstash_clone.storage.deduplication_store import DeduplicationStore
from qstash_clone.storage.interface import DeduplicationRecord, Stats
from qstash_clone.storage.keys import CONSUMER_GROUP, PartitionKeys
from qstash_clone.storage.log_store import LogStore
from qstash_clone.storage.message_store import MessageStore
from qstash_clone.storage.pending_store import PendingStore
from qstash_clone.storage.scripts import ScriptRunner
from qstash_clone.storage.signing_key_store import SigningKeyStore

FREE_BYTES_NEEDED: Final = 1_048_576
"""Below this much room under `maxmemory` the store counts as full: one message may be as large."""


class RedisAdminStore(MessageStore, PendingStore, LogStore, DeadLetterStore, SigningKeyStore):
    """`AdminStore` on Redis."""

    def __init__(
        self,
        commands: RedisCommands,
        runner: ScriptRunner,
        keys: Sequence[PartitionKeys],
        ids: MessageIdGenerator,
        *,
        message_grace_ms: int,
        is_logged: bool,
        finished_retention_ms: int,
    ) -> None:
        super().__init__(
            StoreAccess(
                commands=commands,
                runner=runner,
                keys=keys,
                ids=ids,
                message_grace_ms=message_grace_ms,
                is_logged=is_logged,
                finished_retention_ms=finished_retention_ms,
            )
        )
        self._deduplication = DeduplicationStore(commands, runner, keys)

    async def get_deduplication(self, digest: bytes) -> DeduplicationRecord | None:
        return await self._deduplication.get(digest)

    async def clear_deduplication(self, digest: bytes) -> bool:
        return await self._deduplication.clear(digest)

    async def stats(self) -> Stats:
        timers = ready = in_flight = lanes = blocked = dead_letters = workers = capacity = 0
        commands: list[Sequence[Argument]] = []
        for keys in self._access.keys:
            commands += [
                ("ZCARD", keys.timers),
                ("XLEN", keys.ready),
                ("XPENDING", keys.ready, CONSUMER_GROUP),
                ("LLEN", keys.ring),
                ("SCARD", keys.parked),
                ("SCARD", keys.blocked),
                ("XLEN", keys.dlq),
                ("ZCARD", keys.workers),
                ("HGET", keys.meta, "cap"),
            ]
        *sizes, memory = await self._access.commands.ask_all([*commands, ("INFO", "memory")])
        for at in range(0, len(sizes), 9):
            timers += sizes[at]
            in_flight += sizes[at + 2]["pending"]
            ready += sizes[at + 1] - sizes[at + 2]["pending"]
            lanes += sizes[at + 3] + sizes[at + 4] + sizes[at + 5]
            blocked += sizes[at + 5]
            dead_letters += sizes[at + 6]
            workers = max(workers, sizes[at + 7])
            capacity += int(sizes[at + 8] or 0)
        return Stats(
            waiting_timers=timers,
            ready=ready,
            in_flight=in_flight,
            lanes_waiting=lanes,
            lanes_blocked=blocked,
            dead_letters=dead_letters,
            workers=workers,
            capacity=capacity,
            used_memory_bytes=memory["used_memory"],
            max_memory_bytes=memory.get("maxmemory", 0),
        )

    async def check_durable_write(self) -> None:
        persistence, memory = await self._access.commands.ask_all([("INFO", "persistence"), ("INFO", "memory")])
        if persistence.get("aof_enabled") and persistence.get("aof_last_write_status") == "err":
            raise StorageUnavailable("Redis cannot write its append-only file; is its disk full?")
        limit = memory.get("maxmemory", 0)
        if limit and memory["used_memory"] + FREE_BYTES_NEEDED > limit:
            raise StorageFull(f"Redis is at its memory limit of {limit} bytes.")
        # A real write through the same path as a publish: a script that changes nothing but must be allowed to.
        keys = self._access.keys[0]
        await self._access.runner.run("probe", [keys.meta], [STORAGE_VERSION])
