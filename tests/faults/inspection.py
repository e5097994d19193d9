"""Looks behind the service into Redis: what is in flight with whom, and what is left at the end."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import redis.asyncio

from qstash_clone.domain.lanes import flow_control_lane
from qstash_clone.domain.lifecycle import LogEvent
from qstash_clone.ids import MessageId, format_message_id
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import CONSUMER_GROUP, PartitionKeys

_NOTES_OF_LANES = frozenset({b"ring", b"parked", b"blocked", b"windows"})
_ID_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What is left in a store; all zero once everything ended."""

    timers: int
    ready: int
    in_flight: int
    dead_letters: int
    lanes: int
    """Waiting lines, sets of admitted messages, and where lanes with waiting messages are noted."""
    slots: int
    """Sets of members that hold slots of a queue, of what is in flight under a key, and of callbacks not final yet."""
    records: int
    """Of messages that have not ended: a record that will not expire by itself."""

    @property
    def is_empty(self) -> bool:
        return not (self.timers or self.ready or self.in_flight or self.lanes or self.slots or self.records)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateWindow:
    """A rate window of a flow-control key, at one moment."""

    started_ms: int
    """Unix time, by Redis's clock."""
    counted: int
    """Attempts so far."""
    is_idle: bool
    """The rate would let more start, the workers have places for more, and yet no message of the key is on its way to
    them."""


class Inspector:
    """Reads one store with one partition, which has a Redis of its own."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.redis_url
        self._keys = PartitionKeys(settings.key_namespace, 0, 1)
        self._client: Any = None

    async def _redis(self) -> Any:
        if self._client is None:
            self._client = redis.asyncio.Redis.from_url(self._url)  # pyright: ignore[reportUnknownMemberType]
        return self._client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; the next question opens another one."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def consumer_of(self, pid: int) -> str | None:
        """The name under which the worker with this pid claims; None before it claimed anything."""
        client = await self._redis()
        names = [row["name"].decode() for row in await client.xinfo_consumers(self._keys.ready, CONSUMER_GROUP)]
        return next((name for name in names if _pid_in(name) == pid), None)

    async def pid_of(self, message_id: str) -> int | None:
        """The pid of the worker that has this message in flight."""
        pending = await self._pending()
        found = await self._messages_of([entry_id for entry_id, _ in pending])
        consumers = (consumer for (_, consumer), one in zip(pending, found, strict=True) if one == message_id)
        return next(map(_pid_in, consumers), None)

    async def count_in_flight(self, pid: int | None = None) -> int:
        """How many messages are claimed and not settled, by one worker or by all."""
        return len(await self._pending(pid))

    async def in_flight(self, pid: int | None = None) -> set[str]:
        """The ids of messages that are claimed and not settled, by one worker or by all."""
        ids = await self._messages_of([entry_id for entry_id, _ in await self._pending(pid)])
        return {message_id for message_id in ids if message_id is not None}

    async def _pending(self, pid: int | None = None) -> list[tuple[bytes, str]]:
        """Entry and consumer of what is claimed and not settled."""
        consumer = None if pid is None else await self.consumer_of(pid)
        if pid is not None and consumer is None:
            return []
        client = await self._redis()
        rows = await client.xpending_range(self._keys.ready, CONSUMER_GROUP, "-", "+", 100_000, consumername=consumer)
        return [(row["message_id"], row["consumer"].decode()) for row in rows]

    async def _messages_of(self, entry_ids: list[bytes]) -> list[str | None]:
        """The messages of entries of the ready stream, all asked for at once; None for a doorbell."""
        async with (await self._redis()).pipeline(transaction=False) as pipeline:
            for entry_id in entry_ids:
                pipeline.xrange(self._keys.ready, entry_id, entry_id)
            found: list[list[tuple[bytes, dict[bytes, bytes]]]] = await pipeline.execute()
        fields = [entries[0][1] if entries else {} for entries in found]
        return [format_message_id(MessageId(one[b"i"])) if b"i" in one else None for one in fields]

    async def remains(self) -> Remains:
        """What is in the store right now."""
        client, keys = await self._redis(), self._keys
        names: list[bytes] = [name[len(keys.prefix) :] for name in await client.keys(keys.prefix + b"*")]
        records = [name for name in names if name.startswith(b"m") and name != b"meta"]
        async with client.pipeline(transaction=False) as pipeline:
            for name in records:
                pipeline.pttl(keys.prefix + name)
            lifetimes_ms = await pipeline.execute()
        return Remains(
            timers=await client.zcard(keys.timers),
            ready=await client.xlen(keys.ready),
            in_flight=(await client.xpending(keys.ready, CONSUMER_GROUP))["pending"],
            dead_letters=await client.xlen(keys.dlq),
            lanes=sum(name.startswith((b"l:", b"r:", b"a:")) or name in _NOTES_OF_LANES for name in names),
            slots=sum(name.startswith((b"s:", b"i:")) or _is_of_callbacks(name) for name in names),
            records=sum(lifetime_ms == -1 for lifetime_ms in lifetimes_ms),
        )

    async def entries(self, event: LogEvent) -> list[tuple[int, str]]:
        """When (unix ms, by Redis's clock) this happened to which message, by the log; oldest first."""
        letter = event.value.encode()
        found: list[tuple[bytes, dict[bytes, bytes]]] = await (await self._redis()).xrange(self._keys.log)
        return [
            (int(entry_id.split(b"-")[0]), format_message_id(MessageId(fields[b"e"][1 : 1 + _ID_BYTES])))
            for entry_id, fields in found
            if fields[b"e"].startswith(letter)
        ]

    async def rate_window(self, key: str) -> RateWindow | None:
        """The rate window of a flow-control key that was opened last; None before the first."""
        lane = flow_control_lane(key)
        async with (await self._redis()).pipeline(transaction=True) as pipeline:
            pipeline.hmget(self._keys.limits(lane), "ws", "wc", "r")
            pipeline.scard(self._keys.admitted(lane))
            pipeline.scard(self._keys.in_flight(lane))
            pipeline.hget(self._keys.meta, "cap")
            pipeline.xlen(self._keys.ready)
            (started_ms, counted, rate), admitted, in_flight, capacity, ready = await pipeline.execute()
        if started_ms is None:
            return None
        has_place = admitted < int(capacity) - ready
        is_idle = has_place and admitted == in_flight and int(counted) < int(rate)
        return RateWindow(started_ms=int(started_ms), counted=int(counted), is_idle=is_idle)

    async def is_empty(self) -> bool:
        """Whether every message has ended and nothing of them stays for ever."""
        return (await self.remains()).is_empty


def _is_of_callbacks(name: bytes) -> bool:
    """`k` and the id of a member."""
    return name.startswith(b"k") and len(name) == 1 + _ID_BYTES


def _pid_in(consumer: str) -> int:
    """Workers are called `<host>-<pid>-<random>`."""
    return int(consumer.rsplit("-", 2)[1])
