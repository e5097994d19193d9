"""The log of transitions, and what selects entries of it, messages and dead letters."""

import msgspec

from qstash_clone.domain.lifecycle import LogEvent
from qstash_clone.domain.message import AttemptRecord, StoredMessage


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One transition of one message."""

    time_ms: int
    event: LogEvent
    stored: StoredMessage
    """As it is now, not as it was then."""
    attempt: AttemptRecord | None = None
    """On ERROR."""
    next_delivery_ms: int | None = None
    """On RETRY, and on CREATED of a delayed message."""
