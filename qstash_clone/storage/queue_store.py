"""Queues: creating, changing, deleting and reading them."""

import time
from collections.abc import Sequence
from typing import Final

from qstash_clone.domain.lanes import queue_lane
from qstash_clone.domain.limited_lanes import Queue
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.commands import Argument
from qstash_clone.storage.delivery_store import ADMIT_TURNS
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.partitions import lane_partition
from qstash_clone.storage.publish_store import member_error
from qstash_clone.storage.scanning import scan_set, scan_sorted_set

CANCEL_TOGETHER: Final = 100
"""About 2 ms in Redis."""
TIMERS_TOGETHER: Final = 500
MAX_CANCELLING_S: Final = 2.0
"""After which a deletion is answered; what is left then is cancelled when its turn comes."""


class RedisQueueStore:
    """`QueueStore` on Redis."""

    def __init__(self, access: StoreAccess) -> None:
        self._access = access

    def _keys_of(self, name: str) -> PartitionKeys:
        return self._access.keys[lane_partition(queue_lane(name), self._access.partitions)]

    async def list_queues(self) -> list[Queue]:
        found: dict[str, Queue] = {}
        for keys in self._access.keys:
            async for names in scan_sorted_set(self._access.commands, keys.queues):
                found |= {queue.name: queue for queue in await self._read(keys, [name.decode() for name in names])}
        return sorted(found.values(), key=lambda queue: (queue.created_ms, queue.name))

    async def get_queue(self, name: str) -> Queue | None:
        found = await self._read(self._keys_of(name), [name])
        return found[0] if found else None

    async def _read(self, keys: PartitionKeys, names: Sequence[str]) -> list[Queue]:
        """Those of these that exist."""
        reply, _ = await self._access.runner.run("read_queues", [keys.meta], [STORAGE_VERSION, *names])
        return [decode_queue(name, fields) for name, fields in zip(names, reply[1:], strict=True) if fields]

    async def put_queue(self, name: str, *, parallelism: int | None, is_paused: bool | None, max_queues: int) -> bool:
        return await self._put(name, parallelism, is_paused, max_queues - await self._count_elsewhere(name))

    async def _count_elsewhere(self, name: str) -> int:
        """How many queues there are in the partitions in which this one is not."""
        own = self._keys_of(name)
        others = [keys.queues for keys in self._access.keys if keys is not own]
        return sum(await self._access.commands.ask_all([("ZCARD", key) for key in others])) if others else 0

    async def set_queue_paused(self, name: str, is_paused: bool) -> bool:
        return await self._put(name, None, is_paused, 0)

    async def _put(self, name: str, parallelism: int | None, is_paused: bool | None, most: int) -> bool:
        args: list[Argument] = [
            STORAGE_VERSION,
            name,
            "" if parallelism is None else parallelism,
            "" if is_paused is None else int(is_paused),
            most,
        ]
        reply, _ = await self._access.runner.run("put_queue", [self._keys_of(name).meta], args)
        return reply[0] == b"ok"

    async def delete_queue(self, name: str) -> bool:
        keys = self._keys_of(name)
        reply, is_repeated = await self._access.runner.run("delete_queue", [keys.meta], [STORAGE_VERSION, name])
        if reply[0] == b"unknown":
            # After a lost reply: most probably because that one said "deleted".
            return is_repeated
        word, deleted_ms, members = reply
        if members > 0:
            await _Cancelling(self._access, keys, name, deleted_ms, members).run()
        return word == b"deleted" or is_repeated


def decode_queue(name: str, fields: Sequence[int]) -> Queue:
    """A queue as the scripts describe it."""
    parallelism, is_paused, created_ms, updated_ms, lag = fields
    return Queue(
        name=name,
        parallelism=parallelism,
        is_paused=is_paused == 1,
        created_ms=created_ms,
        updated_ms=updated_ms,
        lag=lag,
    )


class _Cancelling:
    """Cancels the waiting members of a deleted queue: those that hold a slot, its line, then those that are delayed.

    One that moves on meanwhile, or for which the time does not suffice, is cancelled when its turn comes.
    """

    def __init__(self, access: StoreAccess, keys: PartitionKeys, name: str, deleted_ms: int, members: int) -> None:
        self._access = access
        self._keys = keys
        self._name = name
        self._deleted_ms = deleted_ms
        self._members = members
        self._in_flight = 0
        self._fault: bytes | None = None
        self._ends_s = time.monotonic() + MAX_CANCELLING_S

    async def run(self) -> None:
        lane = queue_lane(self._name)
        async for ids in scan_set(self._access.commands, self._keys.slots(lane)):
            self._in_flight += await self._cancel(ids)
        await self._cancel_line(self._keys.lane(lane))
        await self._cancel_delayed()
        # The line is given turns, so that new members need not stand behind what is dropped there.
        await self._call((), ADMIT_TURNS)
        if self._fault is not None:
            raise member_error(self._fault)

    @property
    def _is_over(self) -> bool:
        return self._members <= self._in_flight or time.monotonic() >= self._ends_s

    async def _cancel_line(self, line: bytes) -> None:
        # From the tail: what leaves at the head does not move what is still to be read.
        end = -1
        while not self._is_over:
            ids = await self._access.commands.ask("LRANGE", line, end - CANCEL_TOGETHER + 1, end)
            if not ids:
                return
            await self._cancel(ids)
            end -= CANCEL_TOGETHER

    async def _cancel_delayed(self) -> None:
        due_ms, last = "0", b""
        while not self._is_over:
            reply, _ = await self._access.runner.run(
                "list_timers",
                [self._keys.meta, self._keys.timers],
                [STORAGE_VERSION, due_ms, last, TIMERS_TOGETHER],
            )
            if len(reply) == 1:
                return
            last, due_ms = reply[-2:]
            await self._cancel(reply[1::2])

    async def _cancel(self, ids: Sequence[bytes]) -> int:
        """Cancel those of these that are members and wait; returns how many members are in flight."""
        return sum([await self._call(ids[at : at + CANCEL_TOGETHER]) for at in range(0, len(ids), CANCEL_TOGETHER)])

    async def _call(self, ids: Sequence[bytes], turns: int = 0) -> int:
        access = self._access
        args: list[Argument] = [STORAGE_VERSION, int(access.is_logged), access.finished_retention_ms]
        args += [self._name, self._deleted_ms, turns, *ids]
        reply, _ = await access.runner.run("cancel_members", [self._keys.meta, self._keys.log], args)
        _, _, in_flight, self._members, *faults = reply
        self._fault = self._fault or (faults[0] if faults else None)
        return in_flight
