"""Reading and managing: messages, dead letters, signing keys, sizes."""

import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from qstash_clone.domain.message import DeadLetter, SigningKeys, State, StoredMessage
from qstash_clone.errors import InvalidRequest, StorageFull, StorageUnavailable
from qstash_clone.ids import MessageId, MessageIdGenerator
from qstash_clone.storage.codec import STORAGE_VERSION, decode_record
from qstash_clone.storage.commands import Argument, RedisCommands
from qstash_clone.storage.interface import CancelResult, DeadLetterPage, Stats
from qstash_clone.storage.keys import CONSUMER_GROUP, PartitionKeys
from qstash_clone.storage.partitions import buckets_of, partition_of
from qstash_clone.storage.scripts import REPLAY_WINDOW_MS, ScriptRunner

_ALPHANUMERIC: Final = string.ascii_letters + string.digits
FREE_BYTES_NEEDED: Final = 1_048_576
"""Below this much room under `maxmemory` the store counts as full: one message may be as large."""
PAGE_BYTES: Final = 8_388_608
"""Records on one page of dead letters, or a single larger one: reading and encoding more at once would hold everybody
else up."""


def new_signing_key() -> str:
    """`sig_` and 28 random alphanumerics."""
    return "sig_" + "".join(secrets.choice(_ALPHANUMERIC) for _ in range(28))


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """Where a dead letter is: its id sorts by time, then by sequence."""

    ms: int
    sequence: int
    """Of the stream entry, times the number of partitions, plus the partition."""

    def __str__(self) -> str:
        return f"{self.ms}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> "_Place | None":
        ms, dash, sequence = text.partition("-")
        digits = ms + sequence
        if not dash or not (ms and sequence and digits.isascii() and digits.isdigit()) or len(text) > 40:
            return None
        place = cls(int(ms), int(sequence))
        return place if str(place) == text and place.ms < 1 << 63 and place.sequence < 1 << 62 else None


class RedisAdminStore:
    """`AdminStore` on Redis."""

    def __init__(
        self,
        commands: RedisCommands,
        runner: ScriptRunner,
        keys: Sequence[PartitionKeys],
        ids: MessageIdGenerator,
        *,
        message_grace_ms: int,
    ) -> None:
        self._commands = commands
        self._runner = runner
        self._keys = keys
        self._ids = ids
        self._message_grace_ms = message_grace_ms

    async def _read(self, keys: PartitionKeys, message_id: MessageId) -> tuple[bytes | None, int]:
        """A record and the store's time."""
        record, time, offset = await self._commands.ask_all(
            [("GET", keys.message(message_id)), ("TIME",), ("HGET", keys.meta, "off")]
        )
        return record, time[0] * 1000 + time[1] // 1000 + int(offset or 0)

    async def get_message(self, message_id: MessageId) -> StoredMessage | None:
        keys = self._keys[partition_of(message_id, len(self._keys))]
        record, now_ms = await self._read(keys, message_id)
        if record is None:
            return None
        stored = decode_record(message_id, record)
        if stored.state is State.CANCELED:
            return None
        if stored.state.is_final and now_ms - stored.due_ms > self._message_grace_ms:
            return None
        return stored

    async def cancel(self, message_id: MessageId) -> CancelResult:
        keys = self._keys[partition_of(message_id, len(self._keys))]
        reply, is_repeated = await self._runner.run(
            "cancel",
            [keys.meta, keys.timers, keys.ring, keys.parked, keys.log],
            [STORAGE_VERSION, message_id, max(self._message_grace_ms, REPLAY_WINDOW_MS)],
        )
        word = reply[0].decode()
        if word == "already_canceled":
            # The reply of an earlier try of this very call may be the one that was lost.
            return CancelResult.CANCELED if is_repeated else CancelResult.NOT_FOUND
        if word == "already_requested" and is_repeated:
            return CancelResult.REQUESTED
        return CancelResult(word)

    def _locate(self, place: _Place) -> tuple[PartitionKeys, str]:
        sequence, partition = divmod(place.sequence, len(self._keys))
        return self._keys[partition], f"{place.ms}-{sequence}"

    async def list_dead_letters(self, *, cursor: str | None, count: int, newest_first: bool) -> DeadLetterPage:
        after = None if cursor is None else _Place.parse(cursor)
        if cursor is not None and after is None:
            raise InvalidRequest(f'cursor: "{cursor[:100]}" was not returned by an earlier answer')
        commands: list[Sequence[Argument]] = []
        for partition, keys in enumerate(self._keys):
            first, last = _bounds(after, partition, len(self._keys), newest_first=newest_first)
            # One more than asked for tells whether a further page follows.
            command = ("XREVRANGE", keys.dlq, last, first) if newest_first else ("XRANGE", keys.dlq, first, last)
            commands.append((*command, "COUNT", count + 1))
        candidates: list[tuple[_Place, PartitionKeys, MessageId]] = []
        for partition, found in enumerate(await self._commands.ask_all(commands)):
            for entry_id, fields in found:
                ms, _, sequence = entry_id.decode().partition("-")
                place = _Place(int(ms), int(sequence) * len(self._keys) + partition)
                candidates.append((place, self._keys[partition], MessageId(fields[b"i"])))
        candidates.sort(key=lambda candidate: candidate[0], reverse=newest_first)
        page = candidates[:count]
        sizes = await self._commands.ask_all([("STRLEN", keys.message(message_id)) for _, keys, message_id in page])
        ends = [end for end, total_bytes in enumerate(accumulate(sizes), 1) if total_bytes <= PAGE_BYTES]
        page = page[: max(ends, default=1)]
        records = await self._commands.ask_all([("GET", keys.message(message_id)) for _, keys, message_id in page])
        entries = [
            DeadLetter(dlq_id=str(place), stored=decode_record(message_id, record))
            for (place, _, message_id), record in zip(page, records, strict=True)
            if record is not None
        ]
        return DeadLetterPage(entries=entries, cursor=str(page[-1][0]) if len(candidates) > len(page) else None)

    async def get_dead_letter(self, dlq_id: str) -> DeadLetter | None:
        place = _Place.parse(dlq_id)
        if place is None:
            return None
        keys, entry = self._locate(place)
        found = await self._commands.ask("XRANGE", keys.dlq, entry, entry)
        if not found:
            return None
        message_id = MessageId(found[0][1][b"i"])
        record, _ = await self._read(keys, message_id)
        return None if record is None else DeadLetter(dlq_id=dlq_id, stored=decode_record(message_id, record))

    async def delete_dead_letter(self, dlq_id: str) -> bool:
        place = _Place.parse(dlq_id)
        if place is None:
            return False
        keys, entry = self._locate(place)
        reply, is_repeated = await self._runner.run(
            "delete_dead_letter", [keys.meta, keys.dlq], [STORAGE_VERSION, entry]
        )
        # Not there any more after a lost reply: most probably because the lost reply said "deleted".
        return reply[0] == b"deleted" or is_repeated

    async def retry_dead_letter(self, dlq_id: str) -> MessageId | None:
        place = _Place.parse(dlq_id)
        if place is None:
            return None
        keys, entry = self._locate(place)
        partition = place.sequence % len(self._keys)
        new_id = self._ids.next_id(*buckets_of(partition, len(self._keys)))
        reply, _ = await self._runner.run(
            "retry_dead_letter",
            [keys.meta, keys.ready, keys.ring, keys.log, keys.dlq],
            [STORAGE_VERSION, entry, new_id, max(self._message_grace_ms, REPLAY_WINDOW_MS)],
        )
        return new_id if reply[0] == b"stored" else None

    async def get_signing_keys(self) -> SigningKeys:
        return (await self._signing_keys())[0]

    async def _signing_keys(self) -> tuple[SigningKeys, int]:
        """The pair of the first partition, which decides, and its revision."""
        current, following, revision = await self._commands.ask("HMGET", self._keys[0].meta, "ck", "nk", "kr")
        if revision is None:
            # Redis was emptied: any script makes it ready again, with the configured pair.
            await self.check_durable_write()
            current, following, revision = await self._commands.ask("HMGET", self._keys[0].meta, "ck", "nk", "kr")
        return SigningKeys(current=current.decode(), next=following.decode()), int(revision)

    async def rotate_signing_keys(self) -> SigningKeys:
        old, revision = await self._signing_keys()
        wanted = SigningKeys(current=old.next, next=new_signing_key())
        stored = wanted
        for keys in self._keys:
            reply, _ = await self._runner.run(
                "rotate_keys", [keys.meta], [STORAGE_VERSION, revision + 1, stored.current, stored.next]
            )
            # Of two rotations at once the first one wins, and both answer with its pair.
            stored = SigningKeys(current=reply[1].decode(), next=reply[2].decode())
        return stored

    async def stats(self) -> Stats:
        timers = ready = in_flight = lanes = dead_letters = workers = capacity = 0
        commands: list[Sequence[Argument]] = []
        for keys in self._keys:
            commands += [
                ("ZCARD", keys.timers),
                ("XLEN", keys.ready),
                ("XPENDING", keys.ready, CONSUMER_GROUP),
                ("LLEN", keys.ring),
                ("SCARD", keys.parked),
                ("XLEN", keys.dlq),
                ("ZCARD", keys.workers),
                ("HGET", keys.meta, "cap"),
            ]
        *sizes, memory = await self._commands.ask_all([*commands, ("INFO", "memory")])
        for at in range(0, len(sizes), 8):
            timers += sizes[at]
            in_flight += sizes[at + 2]["pending"]
            ready += sizes[at + 1] - sizes[at + 2]["pending"]
            lanes += sizes[at + 3] + sizes[at + 4]
            dead_letters += sizes[at + 5]
            workers = max(workers, sizes[at + 6])
            capacity += int(sizes[at + 7] or 0)
        return Stats(
            waiting_timers=timers,
            ready=ready,
            in_flight=in_flight,
            lanes_waiting=lanes,
            dead_letters=dead_letters,
            workers=workers,
            capacity=capacity,
            used_memory_bytes=memory["used_memory"],
            max_memory_bytes=memory.get("maxmemory", 0),
        )

    async def check_durable_write(self) -> None:
        persistence, memory = await self._commands.ask_all([("INFO", "persistence"), ("INFO", "memory")])
        if persistence.get("aof_enabled") and persistence.get("aof_last_write_status") == "err":
            raise StorageUnavailable("Redis cannot write its append-only file; is its disk full?")
        limit = memory.get("maxmemory", 0)
        if limit and memory["used_memory"] + FREE_BYTES_NEEDED > limit:
            raise StorageFull(f"Redis is at its memory limit of {limit} bytes.")
        # A real write through the same path as a publish: a script that changes nothing but must be allowed to.
        keys = self._keys[0]
        await self._runner.run("probe", [keys.meta], [STORAGE_VERSION])


def _bounds(after: _Place | None, partition: int, partitions: int, *, newest_first: bool) -> tuple[str, str]:
    """First and last entry id of a partition's stream that may be on the page behind `after`."""
    if after is None:
        return "-", "+"
    sequence, of_partition = divmod(after.sequence, partitions)
    place = f"{after.ms}-{sequence}"
    # Entries of one millisecond are ordered by sequence, then partition.
    if newest_first:
        return "-", place if partition < of_partition else f"({place}"
    return place if partition > of_partition else f"({place}", "+"
