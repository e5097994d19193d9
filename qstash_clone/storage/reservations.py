"""Deduplication of what is not on the partition that decides about it.

A message of a queue or with a flow-control key lives on the partition of that name, a schedule on that of its id, the
record of the digest on that of the digest. With several partitions these are often two, and no script touches both. So
the publisher first reserves the digest for an id, then stores what has that id, then makes the reservation the record.
Whoever finds a reservation looks whether that is stored, and if so finishes the work; otherwise it waits, and takes
over only when nobody can be at it any more. So exactly one is stored, and a crash at any point loses nothing and
swallows nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from qstash_clone.domain.message import Deduplication
from qstash_clone.errors import CallerError, StorageUnavailable
from qstash_clone.ids import MessageId
from qstash_clone.storage.codec import STORAGE_VERSION, decode_originals, encode_deduplication
from qstash_clone.storage.interface import Published
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import partition_of
from qstash_clone.storage.scripts import REPLAY_WINDOW_MS, ScriptRunner

GIVEN_UP_MS: Final = 3 * REPLAY_WINDOW_MS
"""A reservation older than this belongs to nobody: its publisher has given up or done its two calls by then. Both begin
within `REPLAY_WINDOW_MS`, or not at all."""
KEPT_MS: Final = 24 * 3_600_000
PATIENCE_S: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Pauses while another publisher is at it."""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the repeats of one digest is stored."""

    id: MessageId
    told: bytes
    """What the one that is stored wanted its repeats to be told."""
    is_repeat: bool
    """It is another one than this."""


class Reservations:
    """Stores units whose deduplication is decided on another partition."""

    def __init__(self, runner: ScriptRunner, keys: Sequence[PartitionKeys]) -> None:
        self._runner = runner
        self._keys = keys

    async def publish(
        self,
        deduplication: Deduplication,
        message_id: MessageId,
        told: bytes,
        store: Callable[[], Awaitable[Published]],
        is_stored: Callable[[MessageId], Awaitable[bool]],
    ) -> Published:
        """Store messages of which `message_id` is the first, as `store_once`; `told` is that of `encode_originals`."""
        decided = await self.store_once(deduplication, message_id, told, store, lambda first, _: is_stored(first))
        if not decided.is_repeat:
            return Published(id=message_id)
        return Published(id=decided.id, is_duplicate=True, originals=decode_originals(decided.told))

    async def store_once(
        self,
        deduplication: Deduplication,
        unit_id: MessageId,
        told: bytes,
        store: Callable[[], Awaitable[object]],
        is_stored: Callable[[MessageId, bytes], Awaitable[bool]],
    ) -> Decided:
        """Store a unit of that id, unless it is a repeat; `told` is for its own repeats.

        `is_stored` says whether the unit with a certain id, whose repeats are told so, is stored. What a `CallerError`
        of `store` refuses was never the first. Raises `StorageUnavailable` when another publisher is at it for longer
        than a moment.
        """
        began_s = time.monotonic()
        replaces = b""
        for pause_s in (*PATIENCE_S, 0.0):
            match await self._reserve(deduplication, unit_id, told, replaces):
                case [b"duplicate", first_id, first_told]:
                    return Decided(id=MessageId(first_id), told=first_told, is_repeat=True)
                case [b"pending", reserved_id, age_ms, reserved_told]:
                    if await is_stored(MessageId(reserved_id), reserved_told):
                        return await self._confirm(deduplication, MessageId(reserved_id), reserved_told, is_repeat=True)
                    if age_ms > GIVEN_UP_MS:
                        replaces = reserved_id
                    else:
                        await asyncio.sleep(pause_s)
                case _:
                    if time.monotonic() - began_s > REPLAY_WINDOW_MS / 1000:
                        raise StorageUnavailable("Redis was too slow to decide whether this publish is a repeat.")
                    try:
                        await store()
                    except CallerError:
                        await self._give_back(deduplication)
                        raise
                    return await self._confirm(deduplication, unit_id, told, is_repeat=False)
        raise StorageUnavailable("Another publish with the same deduplication id is under way.")

    async def _reserve(
        self, deduplication: Deduplication, unit_id: MessageId, told: bytes, replaces: bytes
    ) -> list[Any]:
        keys = self._keys_of(deduplication)
        keep_ms = min(KEPT_MS, max(deduplication.window_ms, GIVEN_UP_MS))
        reply, _ = await self._runner.run(
            "reserve_deduplication",
            [keys.meta],
            [STORAGE_VERSION, deduplication.digest, unit_id, replaces, keep_ms, told],
        )
        return reply

    async def _confirm(
        self, deduplication: Deduplication, unit_id: MessageId, told: bytes, *, is_repeat: bool
    ) -> Decided:
        keys = self._keys_of(deduplication)
        repeats = encode_deduplication(deduplication)[len(deduplication.digest) :] + told
        reply, _ = await self._runner.run(
            "confirm_deduplication",
            [keys.meta, keys.dedup],
            [STORAGE_VERSION, deduplication.digest, unit_id, repeats],
        )
        if reply[0] == b"duplicate":
            return Decided(id=MessageId(reply[1]), told=reply[2], is_repeat=True)
        return Decided(id=unit_id, told=told, is_repeat=is_repeat)

    async def _give_back(self, deduplication: Deduplication) -> None:
        """Forget the reservation of this caller, without which nobody else can have made a record meanwhile."""
        keys = self._keys_of(deduplication)
        await self._runner.run("clear_deduplication", [keys.meta], [STORAGE_VERSION, deduplication.digest])

    def _keys_of(self, deduplication: Deduplication) -> PartitionKeys:
        return self._keys[partition_of(MessageId(deduplication.digest), len(self._keys))]
