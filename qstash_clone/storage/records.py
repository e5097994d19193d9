"""Reads many message records at once: what a filter looks at first, the rest of the chosen ones later."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from qstash_clone.domain.message import StoredMessage
from qstash_clone.errors import StorageError
from qstash_clone.ids import MessageId
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.codec import HEAD_BYTES, body_range, decode_record
from qstash_clone.storage.commands import Argument

PEEK_BYTES: Final = 4_096
"""Holds most records wholly, and of nearly all what a filter looks at."""
READ_TOGETHER: Final = 250
"""Replies of one round trip: 1 MiB at most while peeking."""
PAGE_BYTES: Final = 8 * 1_048_576
"""A page ends before its messages are larger than this, whatever its count: reading and encoding more at once would
hold everybody else up."""

KEPT_BESIDES: Final = 5_000
"""Records kept for entries that may follow, those of one message being near one another: 20 MiB at most."""


class Records:
    """The records read during one request."""

    def __init__(self, access: StoreAccess) -> None:
        self._access = access
        self._read: dict[MessageId, bytes] = {}
        self._sizes: dict[MessageId, int] = {}
        """Of those read in part."""
        self._peeked: dict[MessageId, StoredMessage | None] = {}

    async def peek(self, message_ids: Iterable[MessageId]) -> None:
        """Read the beginnings of records that were not looked at before."""
        wanted = [message_id for message_id in dict.fromkeys(message_ids) if message_id not in self._read]
        for at in range(0, len(wanted), READ_TOGETHER):
            part = wanted[at : at + READ_TOGETHER]
            found = await self._ask([("GETRANGE", self._key(one), 0, PEEK_BYTES - 1) for one in part])
            self._read |= zip(part, found, strict=True)
            cut = [one for one, record in zip(part, found, strict=True) if len(record) == PEEK_BYTES]
            if cut:
                self._sizes |= zip(cut, await self._ask([("STRLEN", self._key(one)) for one in cut]), strict=True)
        too_long = [one for one in self._sizes.keys() & set(wanted) if body_range(self._read[one])[0] > PEEK_BYTES]
        await self.complete(too_long)

    async def complete(self, message_ids: Iterable[MessageId]) -> None:
        """Read the rest of records that were read in part."""
        wanted = [message_id for message_id in dict.fromkeys(message_ids) if message_id in self._sizes]
        at = 0
        while at < len(wanted):
            end, total_bytes = at, 0
            while end < len(wanted) and (end == at or total_bytes + self._sizes[wanted[end]] <= PAGE_BYTES):
                total_bytes += self._sizes[wanted[end]]
                end += 1
            part = wanted[at:end]
            self._read |= zip(part, await self._ask([("GET", self._key(one)) for one in part]), strict=True)
            for one in part:
                self._read[one] = self._read[one] or b""
                del self._sizes[one]
            at = end

    async def read_again(self, message_ids: Collection[MessageId]) -> None:
        """Read records anew, wholly."""
        for one in message_ids:
            del self._read[one]
            self._sizes.pop(one, None)
            self._peeked.pop(one, None)
        await self.peek(message_ids)
        await self.complete(message_ids)

    def keep_only(self, message_ids: Collection[MessageId]) -> None:
        """Forget all others, if they are many."""
        if len(self._read) > len(message_ids) + KEPT_BESIDES:
            for one in [one for one in self._read if one not in message_ids]:
                del self._read[one]
                self._sizes.pop(one, None)
                self._peeked.pop(one, None)

    def size_bytes(self, message_id: MessageId) -> int:
        """Of the whole record; 0 if there is none."""
        return self._sizes.get(message_id) or len(self._read[message_id])

    def peeked(self, message_id: MessageId) -> StoredMessage | None:
        """A message that was peeked at, perhaps without all of its body and attempts; None if there is none, or none
        that this release can read."""
        if message_id not in self._peeked:
            self._peeked[message_id] = self._decode(message_id)
        return self._peeked[message_id]

    def whole(self, message_id: MessageId) -> bytes | None:
        """A record that was peeked at and completed; None if there is none."""
        return self._read[message_id] or None

    def _decode(self, message_id: MessageId) -> StoredMessage | None:
        record = self._read[message_id]
        if len(record) < HEAD_BYTES:
            return None
        if message_id in self._sizes:
            # The attempts behind the body may be cut anywhere.
            record = record[: body_range(record)[1] + 1]
        try:
            return decode_record(message_id, record)
        except StorageError:
            # Written by a later release, which shows it; here it must not take the others along.
            return None

    def _key(self, message_id: MessageId) -> bytes:
        return self._access.keys_of(message_id).message(message_id)

    async def _ask(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        return await self._access.commands.ask_all(commands)
