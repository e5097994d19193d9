"""Callbacks: planned by the worker that made the attempt, settled with it, delivered like any other message."""

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from qstash_clone.domain.delivery import OutgoingRequest
from qstash_clone.domain.message import CallbackSpec, Extras, State
from qstash_clone.domain.outcome import AttemptResult
from qstash_clone.ids import MessageId, format_message_id
from qstash_clone.observability import MESSAGES_QUARANTINED
from tests.worker.rig import Rig

CALLBACK = CallbackSpec(url="http://callback.example/done")
FAILURE_CALLBACK = CallbackSpec(url="http://failures.example/")


def reports(rig: Rig, host: str = "callback.example") -> list[dict[str, Any]]:
    """The bodies of the callbacks that were sent to a host."""
    return [msgspec.json.decode(one.body) for one in rig.transport.requests if one.url.split("/")[2] == host]


def answering(rig: Rig, *statuses: int) -> Callable[[OutgoingRequest], Awaitable[AttemptResult]]:
    """The receiver of messages answers with these in turn, that of callbacks with 200."""
    left = list(statuses)

    async def answer(request: OutgoingRequest) -> AttemptResult:
        if "receiver.example" not in request.url:
            return await rig.transport.ok(request)
        return AttemptResult(status=left.pop(0), body=b"answer", duration_ms=1)

    return answer


async def test_a_success_is_reported(rig: Rig) -> None:
    message_id = await rig.publish(b"source", extras=Extras(callback=CALLBACK))
    await rig.deliver_all()
    [report] = reports(rig)
    assert (report["status"], report["retried"], report["sourceMessageId"]) == (200, 0, format_message_id(message_id))
    assert base64.b64decode(report["sourceBody"]) == b"source"
    assert base64.b64decode(report["body"]) == b"fine"
    assert "dlqId" not in report
    assert await rig.state(message_id) is State.DELIVERED


async def test_every_attempt_is_reported_and_the_last_failure_twice(
    rig: Rig, move_clock: Callable[[int], Awaitable[None]]
) -> None:
    extras = Extras(callback=CALLBACK, failure_callback=FAILURE_CALLBACK)
    message_id = await rig.publish(retries=1, retry_delay="1000", extras=extras)
    rig.transport.answer = answering(rig, 500, 502)
    await rig.deliver_all()
    assert [(one["status"], one["retried"]) for one in reports(rig)] == [(500, 0)]
    await move_clock(1_000)
    await rig.worker.loops.timers[0].step()
    await rig.deliver_all()
    assert [(one["status"], one["retried"]) for one in reports(rig)] == [(500, 0), (502, 1)]
    [failure] = reports(rig, "failures.example")
    [entry] = (await rig.real_store.admin.list_dead_letters(cursor=None, count=10, newest_first=True)).entries
    assert (failure["dlqId"], failure["status"], entry.stored.id) == (entry.dlq_id, 502, message_id)


async def test_a_callback_is_not_reported_itself(rig: Rig) -> None:
    await rig.publish(extras=Extras(callback=CALLBACK, failure_callback=FAILURE_CALLBACK))
    await rig.deliver_all()
    assert len(rig.transport.requests) == 2


async def test_a_callback_that_fails_is_retried_and_dead_lettered_like_any_message(rig: Rig) -> None:
    callback = msgspec.structs.replace(CALLBACK, max_retries=0)
    await rig.publish(retries=5, extras=Extras(callback=callback, failure_callback=FAILURE_CALLBACK))

    async def answer(request: OutgoingRequest) -> AttemptResult:
        return await (rig.transport.ok if "receiver.example" in request.url else rig.transport.fail)(request)

    rig.transport.answer = answer
    await rig.deliver_all()
    [entry] = (await rig.real_store.admin.list_dead_letters(cursor=None, count=10, newest_first=True)).entries
    assert entry.stored.message.url == CALLBACK.url
    assert reports(rig, "failures.example") == []


async def test_a_cancelled_attempt_is_not_reported(rig: Rig) -> None:
    message_id = await rig.publish(extras=Extras(callback=CALLBACK))

    async def answer(request: OutgoingRequest) -> AttemptResult:
        await rig.real_store.admin.cancel(message_id)
        return await rig.transport.fail(request)

    rig.transport.answer = answer
    await rig.deliver_all()
    assert reports(rig) == []


async def test_a_large_source_is_reported_whole(rig: Rig) -> None:
    body = bytes(range(256)) * 2048
    await rig.publish(body, extras=Extras(callback=CALLBACK))
    await rig.deliver_all()
    [report] = reports(rig)
    assert base64.b64decode(report["sourceBody"]) == body


async def test_a_bug_while_planning_costs_the_callbacks_only(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*arguments: object) -> None:
        raise RuntimeError("a bug")

    message_id = await rig.publish(extras=Extras(callback=CALLBACK))
    monkeypatch.setattr("worker.deliver.plan_callbacks", explode)
    await rig.deliver_all()
    assert await rig.state(message_id) is State.DELIVERED
    assert len(rig.transport.requests) == 1


async def test_a_settlement_that_is_tried_again_stores_its_callbacks_once(rig: Rig) -> None:
    await rig.publish(extras=Extras(callback=CALLBACK))
    rig.store.fail_after("settle")
    await rig.claims.step()
    while len(rig.worker.holdings):
        rig.clock.advance(100)
        await rig.worker.loops.heartbeat.step()
    await rig.deliver_all()
    assert len(reports(rig)) == 1


async def lose(rig: Rig, times: int) -> None:
    """So many workers die with everything that is ready."""
    for _ in range(times):
        await rig.steal()
    await rig.age_leases()
    rig.open_gate()


def attempts_of(rig: Rig, message_id: MessageId) -> int:
    return sum(format_message_id(message_id) in str(request.headers) for request in rig.transport.requests)


async def test_a_message_that_kills_its_workers_is_given_up_and_reported(rig: Rig) -> None:
    extras = Extras(callback=CALLBACK, failure_callback=FAILURE_CALLBACK)
    message_id = await rig.publish(bytes(100_000), extras=extras)
    before = MESSAGES_QUARANTINED.value
    await lose(rig, rig.settings.max_claims)
    await rig.deliver_all()
    assert MESSAGES_QUARANTINED.value == before + 1
    assert attempts_of(rig, message_id) == 0
    [report], [failure] = reports(rig), reports(rig, "failures.example")
    [entry] = (await rig.real_store.admin.list_dead_letters(cursor=None, count=10, newest_first=True)).entries
    assert (entry.stored.id, entry.dlq_id) == (message_id, failure["dlqId"])
    assert (report["status"], failure["status"], failure["retried"]) == (0, 0, 0)
    assert base64.b64decode(failure["sourceBody"]) == bytes(100_000)


async def test_a_worker_that_dies_while_giving_up_leaves_it_to_the_next(rig: Rig) -> None:
    message_id = await rig.publish(extras=Extras(failure_callback=FAILURE_CALLBACK))
    await lose(rig, rig.settings.max_claims + 2)
    await rig.deliver_all()
    assert attempts_of(rig, message_id) == 0
    assert len(reports(rig, "failures.example")) == 1
    assert await rig.state(message_id) is State.FAILED


async def test_what_cannot_even_be_reported_is_given_up_without(rig: Rig) -> None:
    """It may be the report that kills the workers."""
    message_id = await rig.publish(extras=Extras(failure_callback=FAILURE_CALLBACK))
    await lose(rig, 2 * rig.settings.max_claims)
    await rig.deliver_all()
    assert await rig.state(message_id) is State.FAILED
    assert rig.transport.requests == []


async def test_giving_up_what_was_cancelled_meanwhile_is_no_quarantine(rig: Rig) -> None:
    message_id = await rig.publish(extras=Extras(failure_callback=FAILURE_CALLBACK))
    await lose(rig, rig.settings.max_claims)
    before = MESSAGES_QUARANTINED.value
    await rig.real_store.admin.cancel(message_id)
    await rig.deliver_all()
    assert MESSAGES_QUARANTINED.value == before
    assert rig.transport.requests == []
