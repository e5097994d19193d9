"""What the api and the workers ask of the store.

Every method is one atomic script (or one read) on one partition and is safe to repeat: the store itself repeats a
call whose reply was lost, with the same ids. All raise `StorageUnavailable` when Redis does not answer within the
store's patience, and `StorageFull` when a write is refused for memory.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from qstash_clone.domain.message import Claim, DeadLetter, NewMessage, Settlement, SigningKeys, StoredMessage
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
    """Redis's clock during the call."""
    signing_keys: SigningKeys
    dead_lettered: list[MessageId]
    """Messages that were claimed too often without a result and went to the dead letter queue instead."""
    rang: bool
    """A doorbell was among the entries: a timer may be due earlier than expected."""


class PromoteReport(msgspec.Struct, frozen=True, kw_only=True):
    promoted: int
    next_due_ms: int | None
    """Due time of the earliest timer left, by Redis's clock."""
    now_ms: int


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
    """Lanes that have messages waiting."""
    dead_letters: int
    workers: int
    capacity: int
    """Deliveries at once of all live workers."""
    used_memory_bytes: int
    max_memory_bytes: int


class PublishStore(Protocol):
    """Used by the api's hot path."""

    def new_message_id(self) -> MessageId:
        """A fresh id on the partition that publishes currently go to."""
        ...

    async def publish(self, message: NewMessage) -> None:
        """Store one message; once this returns it is in Redis, and on disk as Redis is configured.

        Concurrent calls travel together. A message whose id is stored already counts as stored.
        """
        ...


class DeliveryStore(Protocol):
    """Used by the workers."""

    @property
    def partitions(self) -> int:
        """How many partitions there are; they are numbered from 0."""
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

        A call that Redis gets to only after `reclaim_until_ms`, by its own clock, reclaims nothing: whatever held it
        up has held up the renewals of live workers too.
        """
        ...

    async def fetch_body(self, claim: Claim) -> bytes:
        """The whole body of a claim whose body was too large to come with it."""
        ...

    async def extend(self, partition: int, consumer: str, claims: Sequence[Claim]) -> list[Claim]:
        """Renew the leases of these claims (one partition's); return the ones that were lost."""
        ...

    async def settle(self, settlement: Settlement) -> SettleResult:
        """Write the end of an attempt; concurrent calls travel together."""
        ...

    async def release(self, claims: Sequence[Claim]) -> None:
        """Hand unfinished claims (one partition's) back at once, without using up an attempt."""
        ...

    async def promote(self, partition: int, limit: int) -> PromoteReport:
        """Move up to `limit` due timers to their lanes."""
        ...

    async def expire(self, partition: int, limit: int) -> int:
        """Drop up to about `limit` log entries, dead letters and departed workers that are past their time;
        returns how many."""
        ...


class AdminStore(Protocol):
    """Used by the api's other routes."""

    async def get_message(self, message_id: MessageId) -> StoredMessage | None:
        """The message; None if it is unknown, cancelled, or ended longer ago than the grace period."""
        ...

    async def cancel(self, message_id: MessageId) -> CancelResult: ...

    async def list_dead_letters(self, *, cursor: str | None, count: int, newest_first: bool) -> DeadLetterPage:
        """Raises `InvalidRequest` for a cursor that is none."""
        ...

    async def get_dead_letter(self, dlq_id: str) -> DeadLetter | None: ...

    async def delete_dead_letter(self, dlq_id: str) -> bool: ...

    async def retry_dead_letter(self, dlq_id: str) -> MessageId | None:
        """Publish a dead letter again under a fresh id and remove it from the queue, in one step."""
        ...

    async def get_signing_keys(self) -> SigningKeys: ...

    async def rotate_signing_keys(self) -> SigningKeys:
        """The new pair; it is stored when this returns and signs from the next claim on."""
        ...

    async def stats(self) -> Stats: ...

    async def check_durable_write(self) -> None:
        """Raise unless the store can take a message durably right now."""
        ...
