"""What a worker reports of each message: metrics, and one wide event per attempt."""

import logging
from typing import Any

from qstash_clone.domain.message import Claim, Settlement, SettlementKind
from qstash_clone.domain.outcome import AttemptResult
from qstash_clone.domain.schedules import Firing, StoredSchedule
from qstash_clone.ids import MessageId, format_message_id
from qstash_clone.observability import (
    ATTEMPT_DURATION,
    ATTEMPT_SETTLED,
    ATTEMPTS,
    DELIVERY_LATENESS,
    LEASE_LOST,
    LEASES_LOST,
    MESSAGE_QUARANTINED,
    MESSAGES_QUARANTINED,
    REDELIVERIES,
    SCHEDULE_FAILED,
    SCHEDULE_FIRED,
    SCHEDULE_LATENESS,
    SCHEDULE_MISSED,
    SCHEDULE_STUCK,
    SCHEDULES_FAILED,
    SCHEDULES_FIRED,
    SCHEDULES_HELD,
    SCHEDULES_MISSED,
    TIMERS_PROMOTED,
    describe,
    emit,
    is_enabled,
)
from qstash_clone.storage.interface import SettleResult
from worker.events import DELIVERY_CRASHED, WINDOW_MISSED


def attempt_begins(claim: Claim, now_ms: int) -> None:
    """An attempt is about to begin; `now_ms` is by the clock of messages."""
    if claim.claims > 1:
        REDELIVERIES.inc()
    else:
        DELIVERY_LATENESS.observe((now_ms - claim.due_ms) / 1000)


def window_missed(claim: Claim) -> None:
    """The rate window in which an attempt was counted ended before the attempt could begin; it was handed back."""
    emit(WINDOW_MISSED, level=logging.DEBUG, **_facts_of(claim))


def attempt_settled(settlement: Settlement, result: AttemptResult, settled: SettleResult) -> None:
    """An attempt ended and is recorded."""
    decision = settlement.kind.value if settled is SettleResult.SETTLED else settled.value
    ATTEMPTS.inc(decision)
    ATTEMPT_DURATION.observe(result.duration_ms / 1000)
    if not is_enabled(logging.INFO):
        return
    claim = settlement.claim
    more: dict[str, Any] = {}
    if result.error is not None:
        more["error"] = result.error
    if settlement.kind is SettlementKind.RETRY:
        more["next_delay_ms"] = settlement.delay_ms
    if claim.claims > 1:
        more["claims"] = claim.claims
    if settlement.callbacks and settled is SettleResult.SETTLED:
        more["callbacks"] = len(settlement.callbacks)
    emit(
        ATTEMPT_SETTLED,
        message_id=format_message_id(claim.id),
        host=host_of(claim.message.url),
        attempt=claim.retried + 1,
        status=result.status,
        duration_ms=result.duration_ms,
        decision=decision,
        **more,
    )


def lease_lost(claim: Claim, when: str) -> None:
    """The message of this claim belongs to another worker by now, or soon will; a receiver may see it twice."""
    LEASES_LOST.inc()
    emit(LEASE_LOST, level=logging.WARNING, when=when, **_facts_of(claim))


def attempt_stale(claim: Claim) -> None:
    """An attempt ended after another worker had taken the message over; its result was not recorded."""
    ATTEMPTS.inc("stale")
    lease_lost(claim, "before the attempt was settled")


def quarantined(message_id: MessageId) -> None:
    """A message was claimed too often without a result and is a dead letter now."""
    MESSAGES_QUARANTINED.inc()
    emit(MESSAGE_QUARANTINED, level=logging.ERROR, message_id=format_message_id(message_id))


def delivery_crashed(claim: Claim, error: Exception) -> None:
    """A bug of this service met one message."""
    emit(DELIVERY_CRASHED, level=logging.ERROR, **_facts_of(claim), traceback=describe(error))


def promoted(count: int) -> None:
    """Due timers were moved to their lanes."""
    if is_enabled(logging.DEBUG):
        emit(TIMERS_PROMOTED, level=logging.DEBUG, count=count)


def schedule_fired(firing: Firing, now_ms: int) -> None:
    """An instant of a schedule is done, whether it published something or not."""
    schedule_id = firing.stored.schedule.id
    if firing.has_missed:
        SCHEDULES_MISSED.inc()
        emit(
            SCHEDULE_MISSED,
            level=logging.WARNING,
            schedule_id=schedule_id,
            first_missed_ms=firing.stored.next_fire_ms,
            made_up_ms=None if firing.is_too_late else firing.instant_ms,
        )
    if firing.is_too_late:
        return
    if firing.error is not None:
        SCHEDULES_FAILED.inc()
        emit(
            SCHEDULE_FAILED,
            level=logging.WARNING,
            schedule_id=schedule_id,
            instant_ms=firing.instant_ms,
            error=firing.error,
        )
        return
    SCHEDULES_FIRED.inc()
    lateness_ms = now_ms - firing.instant_ms
    SCHEDULE_LATENESS.observe(lateness_ms / 1000)
    if is_enabled(logging.INFO):
        emit(
            SCHEDULE_FIRED,
            schedule_id=schedule_id,
            instant_ms=firing.instant_ms,
            lateness_ms=lateness_ms,
            messages=len(firing.messages),
            message_id=format_message_id(firing.messages[0].id),
        )


def schedule_stuck(stored: StoredSchedule, error: Exception) -> None:
    """A due schedule could not be fired; it will be tried again."""
    emit(SCHEDULE_STUCK, level=logging.ERROR, schedule_id=stored.schedule.id, error=str(error) or repr(error))


def schedule_unreadable(fault: str) -> None:
    """A due schedule could not be read; it will be tried again."""
    emit(SCHEDULE_STUCK, level=logging.ERROR, error=fault)


def schedules_held(count: int) -> None:
    """Redis is full: due schedules wait until it has room. Said once, not at every try."""
    emit(SCHEDULES_HELD, level=logging.ERROR, count=count)


def host_of(url: str) -> str:
    """Host and port of a stored URL, without the credentials or the path it may carry."""
    authority = url.split("/", 3)[2]
    return authority.split("?", 1)[0].split("#", 1)[0].rpartition("@")[2]


def _facts_of(claim: Claim) -> dict[str, Any]:
    return {
        "message_id": format_message_id(claim.id),
        "host": host_of(claim.message.url),
        "attempt": claim.retried + 1,
        "claims": claim.claims,
    }
