"""One page of what a filter selects from a stream, with bounded work."""

import time
from collections.abc import Callable
from typing import Final

import msgspec

from qstash_clone.domain.filters import Filter
from qstash_clone.domain.message import StoredMessage
from qstash_clone.ids import MessageId
from qstash_clone.storage.places import Place
from qstash_clone.storage.records import PAGE_BYTES, Records
from qstash_clone.storage.stream_walk import StreamEntry, StreamWalk

MAX_LOOKED_AT: Final = 50_000
MAX_WORK_S: Final = 0.2
"""What a request looks at, and for how long, before it answers with what it found and a cursor."""
READ_AT_ONCE: Final = 500
"""Entries and their records: a few milliseconds in which this process does nothing else."""

Accepts = Callable[[StoredMessage], bool]


class Work:
    """Counts what one request looks at."""

    def __init__(self) -> None:
        self._looked_at = 0
        self._began_s = time.monotonic()

    def add(self, count: int) -> None:
        self._looked_at += count

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began_s

    @property
    def is_enough(self) -> bool:
        """Whether the request should answer with what it has."""
        return self._looked_at >= MAX_LOOKED_AT or self.seconds >= MAX_WORK_S


class Found(msgspec.Struct, frozen=True):
    """A stream entry that was selected."""

    entry: StreamEntry
    message_id: MessageId


def record_filter(selection: Filter) -> Accepts | None:
    """What the filter asks of the record of a message; None if nothing.

    Ids, events and times are left to whoever walks: they are compared with an entry, not with its message.
    """
    rest = msgspec.structs.replace(selection, message_ids=None, events=None, from_ms=None, to_ms=None)
    return None if rest == Filter() else rest.matches


async def collect_page(
    walk: StreamWalk,
    records: Records,
    count: int,
    *,
    identify: Callable[[StreamEntry], MessageId | None],
    accepts: Accepts | None,
    takes_all: bool,
    needs_attempts: bool = False,
) -> tuple[list[Found], Place | None]:
    """Up to `count` entries whose message exists and is accepted, their records read wholly; and where to go on.

    `identify` names the message of an entry, or None for an entry that is not wanted; `takes_all` says that all are, as
    far as is known. The place is the last one that was looked at; None if nothing follows. The page may be short: by
    what one request may do, or one answer hold.
    """
    work, found, page_bytes = Work(), list[Found](), 0
    last: Place | None = None

    async def page(behind: Place | None) -> tuple[list[Found], Place | None]:
        await records.complete(one.message_id for one in found)
        return found, behind

    while True:
        # One more than asked for tells whether a further page follows.
        batch = await walk.next(min(count + 1, READ_AT_ONCE) if takes_all else READ_AT_ONCE)
        if not batch:
            return await page(None)
        named = [identify(entry) for entry in batch]
        wanted = [message_id for message_id in named if message_id is not None]
        await records.peek(wanted)
        if needs_attempts:
            await records.complete(wanted)
        for entry, message_id in zip(batch, named, strict=True):
            if message_id is not None:
                stored = records.peeked(message_id)
                if stored is not None and (accepts is None or accepts(stored)):
                    size_bytes = records.size_bytes(message_id)
                    if found and (len(found) >= count or page_bytes + size_bytes > PAGE_BYTES):
                        return await page(last)
                    found.append(Found(entry, message_id))
                    page_bytes += size_bytes
            last = entry.place
        work.add(len(batch))
        if work.is_enough:
            return await page(last)
        records.keep_only({one.message_id for one in found})
