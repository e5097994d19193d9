"""What the api and the workers ask of the store.

Every method is one atomic script (or one read) on one partition and is safe to repeat: the store itself repeats a
call whose reply was lost, with the same ids. All raise `StorageUnavailable` when Redis does not answer within the
store's patience, and `StorageFull` when a write is refused for memory.
"""

from collections.abc import Awaitable, Sequence
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from qstash_clone.domain.filters import EVERYTHING, Filter
from qstash_clone.domain.log import LogEntry
from qstash_clone.domain.message import (
    Claim,
    DeadLetter,
    Deduplication,
    Message,
    NewMessage,
    Settlement,
    SigningKeys,
    StoredMessage,
)
from qstash_clone.domain.overrides import AT_ONCE, Delay
from qstash_clone.ids import MessageId

FOR_EVER_MS: Final = 1 << 50


class SettleResult(StrEnum):
    """What became of a settlement."""

    SETTLED = "settled"
    CANCELED = "canceled"
    """Settled, and the message ended because its cancellation had been requested."""
    STALE = "stale"
    """Another worker has the message by now; nothing was changed."""


class CancelResult(StrEnum):
    CANCELED = "canceled"
    REQUESTED = "requested"
    """An attempt is under way; the message ends with it."""
    ALREADY_REQUESTED = "already_requested"
    NOT_FOUND = "not_found"


class ClaimBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What one call of `claim` took."""

    claims: list[Claim]
    now_ms: int
    """Redis's own clock during the call, whatever that of messages says."""
    signing_keys: SigningKeys
    dead_lettered: list[MessageId]
    """Messages that cannot be read and were claimed too often: they went to the dead letter queue instead."""
    rang: bool
    """A doorbell was among the entries: a timer may be due earlier than expected."""


class PromoteReport(msgspec.Struct, frozen=True, kw_only=True):
    promoted: int
    next_due_ms: int | None
    """Due time of the earliest timer left, or the end of a rate window that a lane waits for."""
    now_ms: int
    """By the clock of messages."""
    real_ms: int
    """By Redis's own."""
    is_frozen: bool = False
    """That clock stands still: nothing becomes due by waiting."""


class DeadLetterPage(msgspec.Struct, frozen=True, kw_only=True):
    entries: list[DeadLetter]
    cursor: str | None
    """None on the last page."""


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes for metrics and readiness; summed over partitions."""

    waiting_timers: int
    ready: int
    in_flight: int
    lanes_waiting: int
    """Lanes that have messages waiting, those that are blocked included."""
    lanes_blocked: int
    """Lanes whose messages wait because of a pause or of their own limits."""
    dead_letters: int
    workers: int
    capacity: int
    """Deliveries at once of all live workers."""
    used_memory_bytes: int
    max_memory_bytes: int


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a publish."""

    id: MessageId
    """Of the message stored, or of the earlier one that this publish repeats; of a fan-out that of the first."""
    is_duplicate: bool = False
    originals: tuple[tuple[MessageId, str], ...] = ()
    """Of a repeated fan-out: id and destination of each message of the earlier one."""


class DeduplicationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Publishes that repeat this one are not stored until it expires."""

    expires_ms: int
    """Unix time."""
    message_id: MessageId | None = None
    """Of the first message; None where it was a schedule that was created."""
    schedule_id: str | None = None


class LogPage(msgspec.Struct, frozen=True, kw_only=True):
    entries: list[LogEntry]
    cursor: str | None
    """None when nothing more can follow. A page may be short, even empty, and still have one: the work of a request
    is bounded."""


class MessagePage(msgspec.Struct, frozen=True, kw_only=True):
    messages: list[StoredMessage]
    cursor: str | None


class HeldUpBy(StrEnum):
    """What keeps a lane from letting the next message go, whatever places there are."""

    NOTHING = ""
    PAUSE = "paused"
    SLOTS = "slots"
    """Of a queue: other members hold all of them."""
    PARALLELISM = "parallelism"
    RATE = "rate"


class Whereabouts(msgspec.Struct, frozen=True, kw_only=True):
    """Why a message has not been delivered yet."""

    stored: StoredMessage
    now_ms: int
    is_admitted: bool
    """It holds a place of its lane: it is in the ready stream or in flight."""
    lane: str
    """Where it waits, or has its place."""
    held_up_by: HeldUpBy
    held_until_ms: int | None
    """When the window of the rate ends, if one is open."""
    lane_waiting: int
    lane_admitted: int
    is_lane_parked: bool
    free_places: int
    workers: int
    capacity: int


class PublishStore(Protocol):
    """Used by the api's hot path."""

    def new_message_id(self, deduplication: Deduplication | None = None, lanes: Sequence[str] = ()) -> MessageId:
        """A fresh id, on the partition where the limited `lanes` of the message are (`Route.limited_lanes`, and those
        of its callbacks); without lanes on the one that decides about repeats of `deduplication`; without either on
        the one that publishes currently go to. For members of a queue ids are in the order of the calls, also where
        one moment is due for several. Raises `InvalidRequest` for lanes that live apart."""
        ...

    def new_message_ids(
        self, count: int, deduplication: Deduplication | None = None, lanes: Sequence[str] = ()
    ) -> list[MessageId]:
        """As `new_message_id`, for the messages of one fan-out: all on one partition."""
        ...

    def decides_elsewhere(self, message: NewMessage) -> bool:
        """Whether it takes several steps to store this message, because another partition decides about its repeats.
        Then it may be overtaken by whatever is published before it is stored."""
        ...

    def publish(self, message: NewMessage) -> Awaitable[Published]:
        """Store one message; once this returns it is in Redis, and on disk as Redis is configured.

        Concurrent calls travel together. A message whose id is stored already counts as stored. Of any number of
        publishes with one `deduplication.digest` within its window exactly one is stored, in the step that decides.
        """
        ...

    def fan_out(self, messages: Sequence[NewMessage]) -> Awaitable[Published]:
        """Store these messages of one partition in one step, all or none, and decide about repeats once for all of
        them: `deduplication` is that of the first."""
        ...


class DeliveryStore(Protocol):
    """Used by the workers."""

    @property
    def partitions(self) -> int:
        """How many partitions there are; they are numbered from 0."""
        ...

    def new_message_id(self, partition: int) -> MessageId:
        """A fresh id on this partition, for a callback of one of its messages."""
        ...

    async def heartbeat(self, consumer: str, capacity: int) -> None:
        """Report a live worker and the deliveries it can hold at once, in all partitions; admits what has room."""
        ...

    async def leave(self, consumer: str) -> None:
        """Take a worker out that has nothing in flight any more."""
        ...

    async def wait(self, partition: int, consumer: str, limit: int, timeout_ms: int) -> Sequence[bytes]:
        """Block until there are new entries and take up to `limit` of them; they are to be passed to `claim`.

        Uses a connection of its own. Returns an empty sequence after `timeout_ms`.
        """
        ...

    async def claim(
        self,
        partition: int,
        consumer: str,
        limit: int,
        *,
        taken: Sequence[bytes] = (),
        reclaim: bool = False,
        reclaim_until_ms: int = FOR_EVER_MS,
    ) -> ClaimBatch:
        """Lease up to `limit` messages: the `taken` entries, new ones, and with `reclaim` those of expired leases.

        One that was claimed too often without a result (`Claim.claims`) comes as well: it is to be settled as failed
        instead of delivered. A call that Redis gets to only after `reclaim_until_ms`, by its own clock, reclaims
        nothing: whatever held it up has held up the renewals of live workers too.
        """
        ...

    async def fetch_body(self, claim: Claim) -> bytes:
        """The whole body of a claim whose body was too large to come with it."""
        ...

    async def extend(self, partition: int, consumer: str, claims: Sequence[Claim]) -> list[Claim]:
        """Renew the leases of these claims (one partition's); return the ones that were lost."""
        ...

    async def settle(self, settlement: Settlement) -> SettleResult:
        """Write the end of an attempt and store its callbacks; concurrent calls travel together."""
        ...

    async def release(self, claims: Sequence[Claim]) -> None:
        """Hand unfinished claims (one partition's) back at once, without using up an attempt."""
        ...

    async def promote(self, partition: int, limit: int) -> PromoteReport:
        """Move up to `limit` due timers to their lanes."""
        ...

    async def expire(self, partition: int, limit: int) -> int:
        """Drop up to about `limit` each of log entries, dead letters, deduplication records and departed workers that
        are past their time or too many; returns how many."""
        ...


class AdminStore(Protocol):
    """Used by the api's other routes."""

    async def get_message(self, message_id: MessageId) -> StoredMessage | None:
        """The message; None if it is unknown, cancelled, or ended longer ago than the grace period."""
        ...

    async def cancel(self, message_id: MessageId) -> CancelResult: ...

    async def list_dead_letters(
        self, selection: Filter = EVERYTHING, *, cursor: str | None, count: int, newest_first: bool
    ) -> DeadLetterPage:
        """Raises `InvalidRequest` for a cursor that is none."""
        ...

    async def get_dead_letter(self, dlq_id: str) -> DeadLetter | None: ...

    async def delete_dead_letter(self, dlq_id: str) -> bool: ...

    async def retry_dead_letter(self, dlq_id: str) -> MessageId | None:
        """Publish a dead letter again under a fresh id and remove it from the queue, in one step."""
        ...

    async def cancel_many(self, message_ids: Sequence[MessageId]) -> int:
        """How many of these were newly cancelled or asked to be; unknown and finished ones are passed over."""
        ...

    async def cancel_matching(self, selection: Filter, *, limit: int | None) -> int:
        """Cancel pending messages, oldest first where they wait; at most `limit`, and at most what one request may
        look at."""
        ...

    async def list_pending(self, selection: Filter, *, cursor: str | None, count: int) -> MessagePage:
        """Messages that are not final. Raises `InvalidRequest` for a cursor that is none."""
        ...

    async def locate(self, message_id: MessageId) -> Whereabouts | None:
        """As `get_message`, with what is known of its lane."""
        ...

    async def read_log(self, selection: Filter, *, cursor: str | None, count: int, newest_first: bool) -> LogPage:
        """Raises `InvalidRequest` for a cursor that is none."""
        ...

    async def get_dead_letters(self, dlq_ids: Sequence[str]) -> list[DeadLetter | None]: ...

    async def delete_dead_letters(self, dlq_ids: Sequence[str]) -> int:
        """How many there were; absent ones are passed over."""
        ...

    async def retry_dead_letter_as(
        self, dead_letter: DeadLetter, message: Message, delay: Delay = AT_ONCE
    ) -> MessageId | None:
        """As `retry_dead_letter`, with other options and later; the body stays the stored one. Raises `InvalidRequest`
        for a flow-control key that lives in another partition."""
        ...

    async def get_deduplication(self, digest: bytes) -> DeduplicationRecord | None: ...

    async def clear_deduplication(self, digest: bytes) -> bool: ...

    async def get_signing_keys(self) -> SigningKeys: ...

    async def rotate_signing_keys(self) -> SigningKeys:
        """The new pair; it is stored when this returns and signs from the next claim on."""
        ...

    async def stats(self) -> Stats: ...

    async def check_durable_write(self) -> None:
        """Raise unless the store can take a message durably right now."""
        ...
