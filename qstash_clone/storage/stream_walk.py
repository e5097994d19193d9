"""Walks through a stream that is spread over all partitions, as if it were one, in the order of time."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from qstash_clone.storage.access import ask_time, is_stopped, store_time_ms
from qstash_clone.storage.commands import Argument, RedisCommands
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.places import Place, bounds_behind

_SETTLE_S: Final = 0.002
"""Longer than the granularity of entry ids, 1 ms."""


class StreamEntry(msgspec.Struct, frozen=True):
    """An entry of the one field that all entries of its stream have."""

    place: Place
    partition: int
    value: bytes


class StreamWalk:
    """Yields entries in batches. Trimmed or appended to meanwhile, it skips none that stays, and repeats none."""

    def __init__(
        self,
        commands: RedisCommands,
        streams: Sequence[tuple[int, bytes, PartitionKeys]],
        partitions: int,
        *,
        newest_first: bool,
        after: Place | None,
        from_ms: int | None = None,
        to_ms: int | None = None,
    ) -> None:
        """`streams` are the partitions to walk through, with the stream's key in each and its other keys; `after` is
        the last place of an earlier walk in this order, `from_ms` and `to_ms` the times of the oldest and newest
        entries wanted."""
        self._commands = commands
        self._partitions = partitions
        self._newest_first = newest_first
        self._sources = [
            _Source(
                partition,
                key,
                keys,
                *_range(after, partition, partitions, newest_first=newest_first, from_ms=from_ms, to_ms=to_ms),
            )
            for partition, key, keys in streams
        ]
        self._has_looked_again = False

    async def next(self, count: int) -> list[StreamEntry]:
        """The next entries, as many as are found by reading `count` of each partition; none at the end."""
        await self._read([source for source in self._sources if not source.found and not source.is_at_end], count)
        batch = self._merge()
        if not batch and any(source.found for source in self._sources) and not self._has_looked_again:
            # They came so recently that others may still come before them. By now their millisecond is over.
            self._has_looked_again = True
            await asyncio.sleep(_SETTLE_S)
            await self._read([source for source in self._sources if source.is_at_end], count)
            batch = self._merge()
        return batch

    async def _read(self, sources: "Sequence[_Source]", count: int) -> None:
        if not sources:
            return
        verb = "XREVRANGE" if self._newest_first else "XRANGE"
        commands: list[Sequence[Argument]] = []
        for source in sources:
            # The time first: what is appended after it has this time or a later one.
            commands += [*ask_time(source.keys), (verb, source.key, source.start, source.end, "COUNT", count)]
        replies = await self._commands.ask_all(commands)
        for at, source in enumerate(sources):
            time, moves, entries = replies[3 * at : 3 * at + 3]
            source.take(entries, self._partitions)
            source.is_at_end = len(entries) < count
            # While the clock stands still, its millisecond never ends, and waiting for that would show nothing.
            now_ms = store_time_ms(time, moves) + is_stopped(moves)
            source.grows_from_ms = max(now_ms, source.found[-1].place.ms if source.found else 0)

    def _merge(self) -> list[StreamEntry]:
        """What is next for certain: up to where more of a partition has to be read first."""
        batch: list[StreamEntry] = []
        if len(self._sources) == 1:
            batch.extend(self._sources[0].found)
            self._sources[0].found.clear()
            return batch
        horizon_ms = None
        if not self._newest_first:
            # Reading towards the present, another partition may yet get an entry of this very millisecond.
            horizon_ms = min((one.grows_from_ms for one in self._sources if one.is_at_end), default=None)
        while True:
            if any(not source.found and not source.is_at_end for source in self._sources):
                return batch
            left = [source for source in self._sources if source.found]
            if not left:
                return batch
            choose = max if self._newest_first else min
            source = choose(left, key=lambda source: source.found[0].place)
            if horizon_ms is not None and source.found[0].place.ms >= horizon_ms:
                return batch
            batch.append(source.found.popleft())


class _Source:
    """One partition's stream, and what was read of it and not handed out yet."""

    def __init__(self, partition: int, key: bytes, keys: PartitionKeys, start: str, end: str) -> None:
        self.partition = partition
        self.key = key
        self.keys = keys
        self.start = start
        self.end = end
        self.found: deque[StreamEntry] = deque()
        self.is_at_end = False
        self.grows_from_ms = 0
        """Entries appended after the last reading are not older."""

    def take(self, entries: Sequence[Any], partitions: int) -> None:
        for entry_id, fields in entries:
            [value] = fields.values()
            self.found.append(StreamEntry(Place.of_entry(entry_id, self.partition, partitions), self.partition, value))
        if entries:
            self.start = f"({entries[-1][0].decode()}"


def _range(
    after: Place | None,
    partition: int,
    partitions: int,
    *,
    newest_first: bool,
    from_ms: int | None,
    to_ms: int | None,
) -> tuple[str, str]:
    """Start and end of a partition's range, in the order of reading."""
    # An id without a sequence stands for all of its millisecond, at either end of a range.
    first = "-" if from_ms is None else str(_clamped(from_ms))
    last = "+" if to_ms is None else str(_clamped(to_ms))
    if after is None:
        return (last, first) if newest_first else (first, last)
    behind = bounds_behind(after, partition, partitions, newest_first=newest_first)
    # A cursor may come with other bounds than it was issued for; the narrower range wins.
    if newest_first:
        return (behind if to_ms is None or after.ms <= to_ms else last), first
    return (behind if from_ms is None or after.ms >= from_ms else first), last


def _clamped(time_ms: int) -> int:
    return min(max(time_ms, 0), 1 << 62)
