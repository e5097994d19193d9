"""The clock of messages: each partition has a copy, the first one decides."""

import secrets
from collections.abc import Sequence
from typing import Final

from qstash_clone.domain.virtual_clock import ClockMove, VirtualClock, moved
from qstash_clone.errors import StorageUnavailable
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.commands import RedisCommands
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.scripts import ScriptRunner

_TRIES: Final = 20
"""Each is lost to another move that went through."""


class RedisVirtualClockStore:
    """`VirtualClockStore` on Redis."""

    def __init__(self, commands: RedisCommands, runner: ScriptRunner, keys: Sequence[PartitionKeys]) -> None:
        self._commands = commands
        self._runner = runner
        self._keys = keys

    async def read_clock(self) -> VirtualClock:
        return (await self._read())[0]

    async def _read(self) -> tuple[VirtualClock, int]:
        """The clock, and the revision of its last move."""
        time, (offset, frozen, revision) = await self._commands.ask_all(
            [("TIME",), ("HMGET", self._keys[0].meta, "off", "fz", "mr")]
        )
        clock = VirtualClock(
            real_ms=time[0] * 1000 + time[1] // 1000,
            offset_ms=int(offset or 0),
            frozen_ms=None if frozen is None else int(frozen),
        )
        return clock, int(revision or 0)

    async def move_clock(self, move: ClockMove) -> VirtualClock:
        name = secrets.token_hex(8)
        for _ in range(_TRIES):
            before, revision = await self._read()
            clock, is_ours = await self._write(self._keys[0], moved(before, move), revision + 1, name)
            if is_ours:
                # Of two moves at once, the one that the first partition took later wins in the others too.
                for keys in self._keys[1:]:
                    await self._write(keys, clock, revision + 1, name)
                return clock
        raise StorageUnavailable("The clock is being moved by too many callers at once.")

    async def _write(
        self, keys: PartitionKeys, clock: VirtualClock, revision: int, name: str
    ) -> tuple[VirtualClock, bool]:
        """The clock that is stored now, and whether this move has set it."""
        frozen_ms = -1 if clock.frozen_ms is None else clock.frozen_ms
        reply, is_repeated = await self._runner.run(
            "move_clock",
            [keys.meta],
            [STORAGE_VERSION, revision, name, clock.offset_ms, frozen_ms, int(keys is self._keys[0])],
        )
        _, real_ms, offset_ms, frozen_ms, _, winner = reply
        stored = VirtualClock(real_ms=real_ms, offset_ms=offset_ms, frozen_ms=None if frozen_ms < 0 else frozen_ms)
        is_ours = winner.decode() == name
        if is_repeated and not is_ours and keys is self._keys[0]:
            raise StorageUnavailable("The clock was moved by others meanwhile, and by this call too perhaps.")
        return stored, is_ours
