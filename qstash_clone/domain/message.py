"""The unit of work and the values that travel with it from publish to settle."""

from enum import StrEnum

import msgspec

from qstash_clone.ids import MessageId

Headers = tuple[tuple[str, str], ...]
"""Header lines in order; names canonical (`X-Api-Key`), values the bytes of the wire decoded as latin-1."""


class FlowControl(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The limits that a message brings for its key; at least one of the two numbers is given."""

    key: str
    parallelism: int | None = None
    """Attempts in flight at once."""
    rate: int | None = None
    """Attempts that may start in one period."""
    period_s: int = 1


class CallbackSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where and how the result of an attempt is reported; None stands for what the message itself has."""

    url: str
    method: str = "POST"
    headers: Headers = ()
    max_retries: int | None = None
    timeout_ms: int | None = None
    """None is the default of a message."""
    retry_delay_expression: str | None = None
    delay_ms: int = 0
    labels: tuple[str, ...] | None = None
    flow_control: FlowControl | None = None


class Redaction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the API shows only as a hash."""

    body: bool = False
    all_headers: bool = False
    header_names: tuple[str, ...] = ()
    """Canonical."""


class Extras(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What few messages have. Stored by name, so a new field may stand anywhere and has a default."""

    callback: CallbackSpec | None = None
    failure_callback: CallbackSpec | None = None
    redaction: Redaction | None = None
    source_message_id: bytes | None = None
    """Of a callback: the message whose attempt it reports."""
    flow_control: FlowControl | None = None
    """As published; the key's limits of today may be others."""
    url_group: str | None = None
    """The URL group it was published to."""
    endpoint_name: str | None = None
    schedule_id: str | None = None
    """Of a message that a schedule has published, and of its callbacks."""
    api: str | None = None
    """`llm` for a message that was published to `api/llm`."""


class Message(msgspec.Struct, frozen=True, array_like=True):
    """What a publisher asked for; it never changes after it was accepted.

    Stored as one array: a new field goes to the end and has a default, so that older records still decode.
    """

    url: str
    """The destination exactly as published."""
    method: str = "POST"
    headers: Headers = ()
    """Forwarded headers without their prefix, and the content type if there is one."""
    caller_ip: str = ""
    max_retries: int = 3
    timeout_ms: int = 900_000
    """Of one attempt, from connecting to the last byte of the answer."""
    retry_delay_expression: str | None = None
    """As published; None means the default backoff."""
    labels: tuple[str, ...] = ()
    extras: Extras | None = None
    """One byte where there are none: most messages have none."""


class State(StrEnum):
    """Where a message is in its life; the value is the letter stored in its record."""

    DELAYED = "t"
    """Waits in the timers for its time: a delay, or the next attempt."""
    QUEUED = "q"
    """Due: in the waiting list of its lane, or admitted to the ready stream."""
    ACTIVE = "a"
    """Claimed by a worker; an attempt is under way."""
    DELIVERED = "d"
    FAILED = "f"
    """Dead-lettered."""
    CANCELED = "c"

    @property
    def is_final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset({State.DELIVERED, State.FAILED, State.CANCELED})


class Deduplication(msgspec.Struct, frozen=True, kw_only=True):
    """What identifies a repeat of a publish."""

    digest: bytes
    """16 bytes, of a given id or of the content; see `domain.deduplication`."""
    window_ms: int


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be stored."""

    id: MessageId
    message: Message
    body: bytes
    lane: str
    """Its route, see `domain.lanes`: `h:<host>[:<port>]` for a plain destination."""
    delay_ms: int = 0
    """From the moment it is stored, by Redis's clock."""
    not_before_ms: int | None = None
    """Unix time; wins over `delay_ms`."""
    deduplication: Deduplication | None = None


class CallbackMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A callback to be stored by the settlement whose attempt it reports."""

    message: NewMessage
    dlq_id_at: int | None = None
    """Offset in the body at which the id of the source's dead letter, known only to the store, is put in."""


class AttemptRecord(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a failed attempt; stored with the message as one array, so new fields go to the end."""

    status: int
    """0 if there was no HTTP answer."""
    error: str
    """One sentence for people."""
    headers: Headers = ()
    """Of the answer."""
    body: bytes = b""
    """Of the answer, up to a limit."""
    duration_ms: int = 0


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message as the store holds it."""

    id: MessageId
    message: Message
    body: bytes
    lane: str
    """Its route, see `domain.lanes`."""
    state: State
    cancel_requested: bool
    generation: int
    claims: int
    """Claims since the last settled attempt."""
    retried: int
    """Attempts that ended: 0 before the first one ends."""
    created_ms: int
    not_before_ms: int
    due_ms: int
    """When it became or becomes due; once final, when it ended."""
    last_attempt: AttemptRecord | None
    """The newest failed attempt."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A message taken by this worker, and the right to deliver it while the lease lasts."""

    partition: int
    entry_id: bytes
    """Of its entry in the ready stream."""
    id: MessageId
    generation: int
    """Fencing token: settling with an older one changes nothing."""
    retried: int
    claims: int
    """1 on the first claim of this attempt; more mean that an earlier worker lost its lease."""
    created_ms: int
    due_ms: int
    message: Message
    body: bytes
    body_bytes: int
    """Length of the whole body; where `body` is shorter it is fetched before the delivery."""
    not_before_ms: int = 0
    """When the first attempt was due."""
    lane: str = ""
    """Its route."""
    start_within_ms: int = 0
    """From the moment of the claim, whose rate window counts the attempt; 0 for no limit. An attempt that has not
    begun by then is handed back: it would arrive in the next window, which may be full."""


class SettlementKind(StrEnum):
    """What an attempt led to."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FAILED = "failed"


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one attempt, as decided by `outcome` and written by `settle.lua`."""

    claim: Claim
    kind: SettlementKind
    delay_ms: int = 0
    """Until the next attempt, for RETRY."""
    attempt: AttemptRecord | None = None
    """For RETRY and FAILED."""
    callbacks: tuple[CallbackMessage, ...] = ()
    """Stored together with the settlement, unless the message turns out to be cancelled."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that could not be delivered, and its place in the dead letter queue."""

    dlq_id: str
    """`<unix ms>-<sequence>`."""
    stored: StoredMessage


class SigningKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The key that signs, and the one that will after the next rotation."""

    current: str
    next: str
