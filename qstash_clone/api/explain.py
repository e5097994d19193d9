"""Why a message has not been delivered yet, or what became of it: in fields, and in one sentence."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from qstash_clone.api.responses import UNFINISHED_TEXT
from qstash_clone.domain.message import AttemptRecord, State, StoredMessage
from qstash_clone.ids import format_message_id
from qstash_clone.storage.interface import HeldUpBy, Whereabouts


class Reason(StrEnum):
    """The one word for it; docs/protocol/explain.md lists them."""

    DELAYED = "delayed"
    RETRY = "retry"
    NO_WORKER = "no_worker"
    PAUSED = "paused"
    QUEUE = "queue"
    PARALLELISM = "parallelism"
    RATE = "rate"
    LANE = "lane"
    READY = "ready"
    IN_FLIGHT = "in_flight"
    CANCEL_REQUESTED = "cancel_requested"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELED = "canceled"


_WIRE_STATES = {
    State.DELAYED: "DELAYED",
    State.QUEUED: "WAITING",
    State.ACTIVE: "ACTIVE",
    State.DELIVERED: "DELIVERED",
    State.FAILED: "FAILED",
    State.CANCELED: "CANCELED",
}


def explain(where: Whereabouts, *, active_since_ms: int | None, lease_ms: int) -> dict[str, Any]:
    """What `GET /v2/messages/{id}/explain` answers.

    `active_since_ms` is when the attempt under way began, if that is known; `lease_ms` how long a worker may be
    silent before its messages go to another one.
    """
    stored = where.stored
    reason, sentence = _reason(where, active_since_ms, lease_ms)
    fields: dict[str, Any] = {
        "messageId": format_message_id(stored.id),
        "state": _WIRE_STATES[stored.state],
        "reason": reason,
        "explanation": sentence,
        "now": where.now_ms,
        "createdAt": stored.created_ms,
        "notBefore": stored.not_before_ms,
        "endedAt" if stored.state.is_final else "dueAt": stored.due_ms,
        "attempts": stored.retried,
        "maxRetries": stored.message.max_retries,
        "cancelRequested": stored.cancel_requested,
        "lane": {
            "name": where.lane,
            "waiting": where.lane_waiting,
            "admitted": where.lane_admitted,
            "isParked": where.is_lane_parked,
        },
        "isAdmitted": where.is_admitted,
        "workers": where.workers,
        "capacity": where.capacity,
        "freePlaces": where.free_places,
    }
    if stored.state is State.ACTIVE and active_since_ms is not None:
        fields["activeSince"] = active_since_ms
    if stored.last_attempt is not None:
        fields["lastAttempt"] = _attempt_fields(stored.last_attempt)
    return fields


def _reason(where: Whereabouts, active_since_ms: int | None, lease_ms: int) -> tuple[Reason, str]:
    stored = where.stored
    match stored.state:
        case State.DELAYED if stored.due_ms > where.now_ms:
            return _later(where)
        case State.DELAYED | State.QUEUED:
            return _due(where)
        case State.ACTIVE:
            return _in_flight(where, active_since_ms, lease_ms)
        case State.DELIVERED:
            return Reason.DELIVERED, f"It was delivered at {_time(stored.due_ms)}{_after(stored)}."
        case State.FAILED:
            return Reason.FAILED, f"It failed at {_time(stored.due_ms)} and is a dead letter: {_error(stored)}."
        case State.CANCELED:
            return Reason.CANCELED, f"It was cancelled at {_time(stored.due_ms)}."


def _later(where: Whereabouts) -> tuple[Reason, str]:
    stored = where.stored
    when = f"{_time(stored.due_ms)}, in {_span(stored.due_ms - where.now_ms)}"
    if not stored.retried:
        return Reason.DELAYED, f"It was published to be delivered not before {when}.{_absent(where)}"
    return (
        Reason.RETRY,
        f"Attempt {stored.retried} of {stored.message.max_retries + 1} failed ({_error(stored)}); "
        f"the next one is due at {when}.{_absent(where)}",
    )


def _due(where: Whereabouts) -> tuple[Reason, str]:
    stored = where.stored
    since = f"It has been due since {_time(stored.due_ms)}"
    if not where.workers:
        return Reason.NO_WORKER, f"{since}, but no worker is alive: start one."
    if stored.state is State.QUEUED and not where.is_admitted:
        if where.held_up_by is not HeldUpBy.NOTHING:
            reason, why = _held_up(where, where.held_up_by)
            return reason, f"{since} and waits, because {why}."
        if where.is_lane_parked:
            why = "as many as it may have at the moment"
        elif where.free_places <= 0:
            why = f"and all {where.capacity} places of the workers are taken"
        else:
            why = "and its turn is next"
        return Reason.LANE, (
            f"{since} and waits for a place of its lane {where.lane}: {where.lane_waiting} messages wait there, "
            f"{where.lane_admitted} are admitted or being delivered, {why}."
        )
    return Reason.READY, f"{since} and is about to be taken by a worker."


def _held_up(
    where: Whereabouts, by: Literal[HeldUpBy.PAUSE, HeldUpBy.SLOTS, HeldUpBy.PARALLELISM, HeldUpBy.RATE]
) -> tuple[Reason, str]:
    kind, _, name = where.lane.partition(":")
    lane = f"{'queue' if kind == 'q' else 'flow-control key'} {name}"
    match by:
        case HeldUpBy.PAUSE:
            return Reason.PAUSED, f"the {lane} is paused"
        case HeldUpBy.SLOTS:
            return Reason.QUEUE, (
                f"as many messages of the {lane} as may be under way have not ended, their retries and callbacks "
                f"included; {where.lane_waiting} wait for their turn"
            )
        case HeldUpBy.PARALLELISM:
            return Reason.PARALLELISM, (
                f"{where.lane_admitted} calls with the {lane} are under way, as many as its parallelism allows; "
                f"{where.lane_waiting} messages wait"
            )
        case HeldUpBy.RATE:
            ends = "" if where.held_until_ms is None else f", which ends at {_time(where.held_until_ms)}"
            return Reason.RATE, (
                f"the rate of the {lane} allows no more calls in this period{ends}; {where.lane_waiting} messages wait"
            )


def _in_flight(where: Whereabouts, active_since_ms: int | None, lease_ms: int) -> tuple[Reason, str]:
    stored = where.stored
    began = "" if active_since_ms is None else f" since {_time(active_since_ms)}"
    text = (
        f"Attempt {stored.retried + 1} of {stored.message.max_retries + 1} is under way{began} and may take "
        f"{_span(stored.message.timeout_ms)}; if its worker is lost, another one begins again after {_span(lease_ms)}"
    )
    if stored.cancel_requested:
        return Reason.CANCEL_REQUESTED, f"{text}. Its cancellation was requested and takes effect if the attempt fails."
    return Reason.IN_FLIGHT, f"{text}.{_absent(where)}"


def _absent(where: Whereabouts) -> str:
    return "" if where.workers else " No worker is alive at the moment."


def _after(stored: StoredMessage) -> str:
    failed = stored.retried - 1
    return f", after {failed} failed attempt{'s' if failed > 1 else ''}" if failed > 0 else ""


def _error(stored: StoredMessage) -> str:
    return UNFINISHED_TEXT if stored.last_attempt is None else stored.last_attempt.error.rstrip(".")


def _attempt_fields(attempt: AttemptRecord) -> dict[str, Any]:
    return {"status": attempt.status, "error": attempt.error, "duration": attempt.duration_ms}


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _span(ms: int) -> str:
    if ms < 1000:
        return f"{ms} ms"
    seconds = -(-ms // 1000)
    parts = [(seconds // 86_400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    return " ".join([f"{number} {unit}" for number, unit in parts if number][:2])
