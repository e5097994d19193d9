"""Records of topics from an offset on, for callers that keep their own place; and waiting for them."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple, TypeVar

from qstash_clone.errors import NotFound, StorageUnavailable
from qstash_clone.topics.interface import ReadFrom, TopicGone, TopicStores
from qstash_clone.topics.records import Bounds, Place, Slice, StoredRecord, Topic

_T = TypeVar("_T")

MAX_RACES: Final = 50
"""How often something is tried again because somebody else was faster. Each time somebody was."""


class TopicOffset(NamedTuple):
    """A place in a partition of a topic."""

    topic: str
    partition: int
    offset: int


class Found(NamedTuple):
    """A record, and the partition it is from."""

    place: Place
    record: StoredRecord


class Reader:
    """Reads within the limits of one answer."""

    def __init__(self, stores: TopicStores, *, max_records: int, max_bytes: int) -> None:
        self._stores = stores
        self._max_records = max_records
        self._max_bytes = max_bytes

    async def fetch(self, wanted: Sequence[TopicOffset], timeout_ms: int, departed: asyncio.Event) -> list[Found]:
        """Records from these offsets on, by partition in the order given; none if there are none within this time, or
        until the caller departs. Of two offsets for one partition the first counts.

        Raises `NotFound` for a topic or partition that does not exist.
        """
        offsets: dict[Place, int] = {}
        for topic, partition, offset in wanted:
            offsets.setdefault(Place(topic, partition), offset)
        until_s = time.monotonic() + timeout_ms / 1000
        for _ in range(MAX_RACES):
            topics = await self.find_topics(offsets)
            reads = [ReadFrom(topics[place.topic], place.partition, offset) for place, offset in offsets.items()]
            slices = await self.read(reads)
            while slices is not None:
                found = found_in(offsets, slices)
                left_s = until_s - time.monotonic()
                if found or left_s <= 0 or departed.is_set():
                    return found
                await self.wait(behind(reads, slices), left_s, departed)
                slices = await self.read(reads)
        raise too_many_races("a topic")

    async def find_offsets(
        self, when: Literal["earliest", "latest"] | int, places: Sequence[Place]
    ) -> list[TopicOffset]:
        """First or next offset of partitions, or the first offset from a time in ms on. Raises as `fetch`."""
        for _ in range(MAX_RACES):
            topics = await self.find_topics(places)
            partitions = [(topics[place.topic], place.partition) for place in places]
            if isinstance(when, int):
                offsets = await self._find_by_time(partitions, when)
            else:
                bounds = await self.read_bounds(partitions)
                offsets = None if bounds is None else _edges(when, bounds)
            if offsets is not None:
                return [TopicOffset(*place, offset) for place, offset in zip(places, offsets, strict=True)]
        raise too_many_races("a topic")

    async def _find_by_time(self, partitions: Sequence[tuple[Topic, int]], time_ms: int) -> list[int] | None:
        try:
            return [await self._stores.topics.find_offset(topic, number, time_ms) for topic, number in partitions]
        except TopicGone:
            return None

    async def find_topics(self, places: Iterable[Place]) -> dict[str, Topic]:
        """The topics of these partitions. Raises as `fetch`."""
        topics: dict[str, Topic] = {}
        for name, partition in places:
            if name not in topics:
                topics[name] = await self._find_topic(name)
            count = topics[name].config.partitions
            if not 0 <= partition < count:
                raise NotFound(f"topic {name} has the partitions 0 to {count - 1}, not {partition}")
        return topics

    async def _find_topic(self, name: str) -> Topic:
        topic = await self._stores.topics.get_topic(name)
        if topic is None:
            raise no_topic(name)
        return topic

    async def read(self, reads: Sequence[ReadFrom]) -> list[Slice] | None:
        """Records of each; None if one of the topics was deleted."""
        slices = await self._stores.topics.read(reads, max_records=self._max_records, max_bytes=self._max_bytes)
        return _complete(slices)

    async def read_bounds(self, partitions: Sequence[tuple[Topic, int]]) -> list[Bounds] | None:
        """First and next offset of each; None if one of the topics was deleted."""
        return _complete(await self._stores.topics.read_bounds(partitions))

    async def wait(self, reads: Sequence[ReadFrom], timeout_s: float, departed: asyncio.Event) -> None:
        """Until there are records, the time is over, or the caller is gone."""
        records = asyncio.ensure_future(self._stores.topics.wait_for_records(reads, timeout_s))
        departure = asyncio.ensure_future(departed.wait())
        try:
            await asyncio.wait((records, departure), return_when=asyncio.FIRST_COMPLETED)
            if records.done():
                records.result()
        finally:
            records.cancel()
            departure.cancel()
            await asyncio.gather(records, departure, return_exceptions=True)


def found_in(places: Iterable[Place], slices: Iterable[Slice]) -> list[Found]:
    """All records, each with its place."""
    return [Found(place, record) for place, one in zip(places, slices, strict=True) for record in one.records]


def behind(reads: Sequence[ReadFrom], slices: Sequence[Slice]) -> list[ReadFrom]:
    """Where to wait after nothing was found: not at an offset whose record was dropped, that would be news for ever."""
    return [
        ReadFrom(read.topic, read.partition, max(read.offset, one.bounds.end))
        for read, one in zip(reads, slices, strict=True)
    ]


def no_topic(name: str) -> NotFound:
    """For a name that nothing goes by."""
    return NotFound(f"topic {name[:100]} does not exist")


def too_many_races(what: str) -> StorageUnavailable:
    """For what has changed again each time it was tried."""
    return StorageUnavailable(f"There are too many changes of {what} at once.")


def _edges(when: Literal["earliest", "latest"], bounds: Sequence[Bounds]) -> list[int]:
    return [one.start if when == "earliest" else one.end for one in bounds]


def _complete(found: Sequence[_T | None]) -> list[_T] | None:
    complete = [one for one in found if one is not None]
    return complete if len(complete) == len(found) else None
