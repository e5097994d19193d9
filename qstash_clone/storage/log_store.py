"""Reading the log of transitions, see docs/explanation/log.md."""

from typing import Final

from qstash_clone.domain.filters import Filter
from qstash_clone.domain.lifecycle import LogEvent
from qstash_clone.domain.log import LogEntry
from qstash_clone.domain.message import AttemptRecord, StoredMessage
from qstash_clone.ids import MessageId
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.codec import decode_attempts, decode_record
from qstash_clone.storage.interface import LogPage
from qstash_clone.storage.places import parse_cursor
from qstash_clone.storage.records import Records
from qstash_clone.storage.selection import Found, collect_page, record_filter
from qstash_clone.storage.stream_walk import StreamEntry, StreamWalk

SLACK_MS: Final = 2_000
"""By which the time in a record and the time of an entry of the same script may differ."""

_EVENTS: Final = {ord(event.value): event for event in LogEvent}
_ID_BYTES: Final = 12


class LogStore:
    """The part of `AdminStore` that reads the log."""

    def __init__(self, access: StoreAccess) -> None:
        self._access = access

    async def read_log(self, selection: Filter, *, cursor: str | None, count: int, newest_first: bool) -> LogPage:
        """One page, in the order of time."""
        after = parse_cursor(cursor)
        records = Records(self._access)
        from_ms, to_ms = selection.from_ms, selection.to_ms
        partitions = range(self._access.partitions)
        if selection.message_ids is not None:
            lives = await self._lives(selection.message_ids)
            if not lives:
                return LogPage(entries=[], cursor=None)
            partitions = sorted({self._access.partition_of(message_id) for message_id in lives})
            from_ms = max(from_ms or 0, min(first_ms for first_ms, _ in lives.values()))
            ends = [last_ms for _, last_ms in lives.values() if last_ms is not None]
            if len(ends) == len(lives):
                to_ms = max(ends) if to_ms is None else min(to_ms, max(ends))
        walk = StreamWalk(
            self._access.commands,
            [(partition, keys.log, keys) for partition in partitions for keys in [self._access.keys[partition]]],
            self._access.partitions,
            newest_first=newest_first,
            after=after,
            from_ms=from_ms,
            to_ms=to_ms,
        )
        found, last = await collect_page(
            walk,
            records,
            count,
            identify=_Identifier(selection),
            accepts=record_filter(selection),
            takes_all=selection.selects_everything,
        )
        entries = _join(found, records)
        outrun = {entry.stored.id for entry in entries if entry.event is LogEvent.ERROR and entry.attempt is None}
        if outrun:
            # Their records were read for earlier entries, before the attempt ended that a later entry tells of.
            await records.read_again(outrun)
            entries = _join(found, records)
        return LogPage(entries=entries, cursor=None if last is None else str(last))

    async def _lives(self, message_ids: frozenset[MessageId]) -> dict[MessageId, tuple[int, int | None]]:
        """When the entries of these messages can have been written; nothing of those that are gone."""
        # Not for the page: an attempt may end between now and the reading of its entry.
        records = Records(self._access)
        await records.peek(message_ids)
        lives: dict[MessageId, tuple[int, int | None]] = {}
        for message_id in message_ids:
            stored = records.peeked(message_id)
            if stored is not None:
                lives[message_id] = (stored.created_ms - SLACK_MS, _last_entry_ms(stored))
        return lives


def _last_entry_ms(stored: StoredMessage) -> int | None:
    if stored.state.is_final:
        return stored.due_ms + SLACK_MS
    # Before the first claim there is nothing but the entry of its creation.
    return stored.created_ms + SLACK_MS if stored.generation == 0 else None


class _Identifier:
    """Tells which message a log entry is about, if its own content lets it be selected."""

    def __init__(self, selection: Filter) -> None:
        events = _EVENTS.values() if selection.events is None else selection.events
        self._letters = {ord(event.value) for event in events}
        self._ids = selection.message_ids

    def __call__(self, entry: StreamEntry) -> MessageId | None:
        if entry.value[0] not in self._letters:
            return None
        message_id = MessageId(entry.value[1 : 1 + _ID_BYTES])
        return message_id if self._ids is None or message_id in self._ids else None


def _join(found: list[Found], records: Records) -> list[LogEntry]:
    """The entries with their messages as they are now."""
    stored: dict[MessageId, StoredMessage] = {}
    attempts: dict[MessageId, list[AttemptRecord]] = {}
    entries: list[LogEntry] = []
    for one in found:
        record = records.whole(one.message_id)
        if record is None:
            continue
        if one.message_id not in stored:
            stored[one.message_id] = decode_record(one.message_id, record)
        message = stored[one.message_id]
        event, details = _EVENTS[one.entry.value[0]], one.entry.value[1 + _ID_BYTES :]
        attempt, next_delivery_ms = None, None
        match event:
            case LogEvent.ERROR:
                if one.message_id not in attempts:
                    attempts[one.message_id] = decode_attempts(record)
                number = int.from_bytes(details, "big")
                kept = attempts[one.message_id]
                attempt = kept[number - 1] if 1 <= number <= len(kept) else None
            case LogEvent.RETRY:
                next_delivery_ms = int.from_bytes(details, "big")
            case LogEvent.CREATED if message.not_before_ms > message.created_ms:
                next_delivery_ms = message.not_before_ms
            case _:
                pass
        entries.append(
            LogEntry(
                time_ms=one.entry.place.ms,
                event=event,
                stored=message,
                attempt=attempt,
                next_delivery_ms=next_delivery_ms,
            )
        )
    return entries
