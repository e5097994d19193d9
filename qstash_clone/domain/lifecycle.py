"""The life of a message as data: its states, what leads from one to another, and what each step writes to the log."""

from enum import StrEnum

import msgspec

from qstash_clone.domain.message import State


class LogEvent(StrEnum):
    """An entry of a message's log; the value is the letter that is stored."""

    CREATED = "C"
    """Accepted and stored."""
    ACTIVE = "A"
    """An attempt starts."""
    DELIVERED = "D"
    ERROR = "E"
    """An attempt failed; carries why."""
    RETRY = "R"
    """Directly after ERROR if another attempt follows; carries when."""
    FAILED = "F"
    """No further attempt; the message is dead-lettered."""
    CANCEL_REQUESTED = "Q"
    CANCELED = "X"

    @property
    def wire_name(self) -> str:
        """As the API spells it; `CANCELED` has one L there."""
        return self.name


class Transition(msgspec.Struct, frozen=True):
    """A step that a message may take; each one is a single script in the store."""

    verb: str
    sources: frozenset[State]
    """Empty: the message comes into being."""
    target: State
    writes: tuple[LogEvent, ...] = ()
    """In this order; steps that only move a message between waiting places write nothing."""


_WAITING = frozenset({State.DELAYED, State.QUEUED})
_ACTIVE = frozenset({State.ACTIVE})
_CLAIMABLE = frozenset({State.QUEUED, State.ACTIVE})

TRANSITIONS = (
    Transition("publish for later", frozenset(), State.DELAYED, (LogEvent.CREATED,)),
    Transition("publish", frozenset(), State.QUEUED, (LogEvent.CREATED,)),
    Transition("come due", frozenset({State.DELAYED}), State.QUEUED),
    Transition("claim", frozenset({State.QUEUED}), State.ACTIVE, (LogEvent.ACTIVE,)),
    # A lost lease: the attempt starts once more, under a new generation.
    Transition("reclaim", _ACTIVE, State.ACTIVE, (LogEvent.ACTIVE,)),
    # A worker that stops hands the attempt back unused.
    Transition("release", _ACTIVE, State.QUEUED),
    Transition("deliver", _ACTIVE, State.DELIVERED, (LogEvent.DELIVERED,)),
    Transition("retry", _ACTIVE, State.DELAYED, (LogEvent.ERROR, LogEvent.RETRY)),
    # Also without an attempt: claimed again and again without a result, the message may be what ends the workers.
    Transition("fail", _ACTIVE, State.FAILED, (LogEvent.ERROR, LogEvent.FAILED)),
    Transition("cancel", _WAITING, State.CANCELED, (LogEvent.CANCEL_REQUESTED, LogEvent.CANCELED)),
    # The attempt under way is not cut off. If it succeeds the message is delivered after all.
    Transition("request cancellation", _ACTIVE, State.ACTIVE, (LogEvent.CANCEL_REQUESTED,)),
    Transition("cancel after a failed attempt", _ACTIVE, State.CANCELED, (LogEvent.ERROR, LogEvent.CANCELED)),
    # The attempt under way was handed back, or its worker was lost: the cancellation wins.
    Transition("cancel instead of claiming", _CLAIMABLE, State.CANCELED, (LogEvent.CANCELED,)),
)
