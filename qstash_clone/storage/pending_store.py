"""Pending messages by filter: listing and cancelling them, with bounded work."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from qstash_clone.domain.filters import Filter
from qstash_clone.domain.message import State, StoredMessage
from qstash_clone.ids import MessageId
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.codec import decode_record
from qstash_clone.storage.interface import MessagePage
from qstash_clone.storage.message_store import CANCEL_TOGETHER, cancel_together, count_newly_cancelled
from qstash_clone.storage.pending_walk import STATES, PendingWalk, Position
from qstash_clone.storage.records import PAGE_BYTES, Records
from qstash_clone.storage.selection import READ_AT_ONCE, Work

MAX_CANCELLING_S: Final = 2.0
"""After which a call without a limit answers with what it did so far."""

_PENDING: Final = frozenset(state for state in State if not state.is_final)
_Candidates = Sequence[tuple[MessageId, Position]]


class PendingStore:
    """The part of `AdminStore` that selects among the messages that are not final."""

    def __init__(self, access: StoreAccess) -> None:
        self._access = access

    async def list_pending(self, selection: Filter, *, cursor: str | None, count: int) -> MessagePage:
        behind = Position() if cursor is None else Position.parse(cursor, self._access.partitions)
        records, work = Records(self._access), Work()
        page: dict[MessageId, None] = {}
        page_bytes = 0
        async for candidates, states in self._candidates(selection, behind, count + 1):
            await records.peek(message_id for message_id, _ in candidates)
            for message_id, position in candidates:
                stored = records.peeked(message_id)
                # One that moved on during the request is met again.
                if stored and stored.state in states and selection.matches(stored) and message_id not in page:
                    size_bytes = records.size_bytes(message_id)
                    if page and (len(page) >= count or page_bytes + size_bytes > PAGE_BYTES):
                        return MessagePage(messages=await _shown(records, page), cursor=behind.cursor())
                    page[message_id] = None
                    page_bytes += size_bytes
                behind = position
            work.add(len(candidates))
            if work.is_enough:
                return MessagePage(messages=await _shown(records, page), cursor=behind.cursor())
            records.keep_only(page)
        return MessagePage(messages=await _shown(records, page), cursor=None)

    async def cancel_matching(self, selection: Filter, *, limit: int | None) -> int:
        work, cancelled = Work(), 0
        async for candidates, states in self._candidates(selection, Position(), READ_AT_ONCE):
            # States change all the time: what was read for one batch is of no use to the next.
            records = Records(self._access)
            await records.peek(message_id for message_id, _ in candidates)
            chosen = [
                message_id
                for message_id, _ in candidates
                if (stored := records.peeked(message_id)) is not None
                and stored.state in states
                and not stored.cancel_requested
                and selection.matches(stored)
            ]
            cancelled += await self._cancel(chosen, None if limit is None else limit - cancelled)
            work.add(len(candidates))
            # Nothing cancelled means to callers that nothing is left, so that may be said only at the end.
            is_enough = work.seconds >= MAX_CANCELLING_S if limit is None else cancelled >= limit or work.is_enough
            if cancelled and is_enough:
                break
        return cancelled

    async def _cancel(self, message_ids: Sequence[MessageId], limit: int | None) -> int:
        """Cancel messages of one partition until `limit` of them were; returns how many were."""
        count = at = 0
        while at < len(message_ids) and (limit is None or count < limit):
            together = CANCEL_TOGETHER if limit is None else min(CANCEL_TOGETHER, limit - count)
            part = message_ids[at : at + together]
            results = await cancel_together(self._access, self._access.partition_of(part[0]), part)
            count += count_newly_cancelled(results)
            at += len(part)
        return count

    async def _candidates(
        self, selection: Filter, behind: Position, count: int
    ) -> AsyncIterator[tuple[_Candidates, frozenset[State]]]:
        """Batches of ids of one partition each, and the states in which they count."""
        if selection.message_ids is None:
            walk = PendingWalk(self._access, behind)
            while True:
                stage, steps = await walk.next(min(count, READ_AT_ONCE))
                if not steps:
                    return
                yield steps, STATES[stage]
        # Ids begin with what decides their partition, so in their order they come partition by partition.
        named = sorted(message_id for message_id in selection.message_ids if message_id > behind.id)
        for partition in range(self._access.partitions):
            own = [message_id for message_id in named if self._access.partition_of(message_id) == partition]
            for at in range(0, len(own), READ_AT_ONCE):
                yield [(one, Position(id=one)) for one in own[at : at + READ_AT_ONCE]], _PENDING


async def _shown(records: Records, page: dict[MessageId, None]) -> list[StoredMessage]:
    """The messages of a page, but those that ended since they were looked at."""
    await records.complete(page)
    found = [(message_id, records.whole(message_id)) for message_id in page]
    stored = [decode_record(message_id, record) for message_id, record in found if record is not None]
    return [one for one in stored if not one.state.is_final]
