"""One claim, one signed request, one settlement; what goes wrong stays with that message."""

import time
from collections.abc import Awaitable, Callable

import jwt
import pytest

from qstash_clone.domain.delivery import OutgoingRequest
from qstash_clone.domain.message import Extras, FlowControl, State
from qstash_clone.domain.outcome import AttemptResult
from qstash_clone.observability import ATTEMPTS, LEASES_LOST
from tests.conftest import CURRENT_KEY
from tests.support.eventually import eventually
from tests.worker.rig import Rig


async def test_the_request_is_signed_with_the_stores_current_key_and_clock(
    rig: Rig, move_clock: Callable[[int], object]
) -> None:
    await rig.publish(b"signed")
    await rig.claims.step()
    await rig.idle()
    [request] = rig.transport.requests
    headers = dict(request.headers)
    token = jwt.decode(headers["Upstash-Signature"], CURRENT_KEY, algorithms=["HS256"])
    assert token["sub"] == "http://receiver.example/path"
    assert abs(token["iat"] - rig.clock.now_ms() // 1000) <= 2
    assert token["exp"] == token["iat"] + 300


async def test_a_rotated_key_signs_the_next_claim(rig: Rig) -> None:
    keys = await rig.real_store.admin.rotate_signing_keys()
    await rig.publish()
    await rig.claims.step()
    await rig.idle()
    token = dict(rig.transport.requests[0].headers)["Upstash-Signature"]
    jwt.decode(token, keys.current, algorithms=["HS256"])


async def test_the_time_of_issue_follows_redis_and_not_this_machine(rig: Rig) -> None:
    rig.clock.advance(3_600_000)
    await rig.publish()
    await rig.claims.step()
    await rig.idle()
    token = dict(rig.transport.requests[0].headers)["Upstash-Signature"]
    assert abs(jwt.decode(token, CURRENT_KEY, algorithms=["HS256"])["iat"] - time.time()) <= 2


async def test_a_moved_clock_of_messages_leaves_signatures_alone(
    rig: Rig, move_clock: Callable[[int], Awaitable[None]]
) -> None:
    await move_clock(3_600_000)
    await rig.publish()
    await rig.claims.step()
    await rig.idle()
    token = dict(rig.transport.requests[0].headers)["Upstash-Signature"]
    assert abs(jwt.decode(token, CURRENT_KEY, algorithms=["HS256"])["iat"] - time.time()) <= 2


async def test_signatures_are_unique(rig: Rig) -> None:
    for _ in range(5):
        await rig.publish()
    await rig.claims.step()
    await rig.idle()
    tokens = [dict(request.headers)["Upstash-Signature"] for request in rig.transport.requests]
    ids = {jwt.decode(token, CURRENT_KEY, algorithms=["HS256"])["jti"] for token in tokens}
    assert len(ids) == len(tokens) == 5


async def test_the_llm_upstream_gets_its_key_and_only_with_messages_to_it(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(llm_base_url="http://llm.example", llm_api_key="k3y-0123456789")
    await rig.start()
    url = "http://llm.example/v1/chat/completions"
    await rig.publish(b"plain", url=url)
    message_id = await rig.publish(b"llm", url=url, extras=Extras(api="llm"))
    await rig.deliver_all()
    keys = {request.body: dict(request.headers).get("Authorization") for request in rig.transport.requests}
    assert keys == {b"plain": None, b"llm": "Bearer k3y-0123456789"}
    stored = await rig.real_store.admin.get_message(message_id)
    assert stored is not None
    assert "k3y" not in repr(stored)


async def test_a_message_for_an_llm_upstream_of_the_past_is_not_sent(rig: Rig) -> None:
    message_id = await rig.publish(url="http://llm.example/v1/chat/completions", extras=Extras(api="llm"), retries=0)
    await rig.deliver_all()
    assert rig.transport.requests == []
    stored = await rig.real_store.admin.get_message(message_id)
    assert stored is not None
    assert stored.state is State.FAILED
    assert stored.last_attempt is not None
    assert stored.last_attempt.error == "the LLM upstream that this message was accepted for is configured no more"


async def test_a_body_too_large_to_come_with_the_claim_is_fetched(rig: Rig) -> None:
    body = bytes(range(256)) * 1024
    message_id = await rig.publish(body)
    rig.store.fail_before("fetch_body")
    await rig.claims.step()
    await eventually(lambda: rig.store.calls["fetch_body"] == 1)
    await eventually(lambda: rig.clock.sleeping)
    rig.clock.advance(100)
    await rig.idle()
    assert rig.transport.bodies == [body]
    assert await rig.state(message_id) is State.DELIVERED


async def test_a_body_that_cannot_be_fetched_leaves_the_message_to_its_lease(rig: Rig) -> None:
    message_id = await rig.publish(b"x" * 100_000)
    rig.store.fail_before("fetch_body", times=1_000)
    await rig.claims.step()
    before = LEASES_LOST.value
    await eventually(lambda: rig.clock.sleeping)
    rig.clock.advance(rig.settings.lease_ms + 1)
    await rig.idle()
    assert rig.transport.requests == []
    assert LEASES_LOST.value == before + 1
    assert await rig.state(message_id) is State.ACTIVE


async def test_a_failed_attempt_is_retried_with_its_own_delay(rig: Rig) -> None:
    message_id = await rig.publish(retry_delay="1000")
    rig.transport.answer = rig.transport.fail
    before = ATTEMPTS.value("retry")
    await rig.claims.step()
    await rig.idle()
    assert await rig.state(message_id) is State.DELAYED
    assert ATTEMPTS.value("retry") == before + 1


async def test_the_last_failed_attempt_makes_a_dead_letter(rig: Rig) -> None:
    message_id = await rig.publish(retries=0)
    rig.transport.answer = rig.transport.fail
    await rig.claims.step()
    await rig.idle()
    assert await rig.state(message_id) is State.FAILED
    page = await rig.real_store.admin.list_dead_letters(cursor=None, count=10, newest_first=False)
    attempt = page.entries[0].stored.last_attempt
    assert attempt is not None
    assert (attempt.status, attempt.body) == (500, b"broken")


async def test_a_bug_while_sending_is_a_failed_attempt_of_that_message_only(rig: Rig) -> None:
    async def explode(request: OutgoingRequest) -> AttemptResult:
        if request.body == b"bad":
            raise RuntimeError("a bug")
        return await rig.transport.ok(request)

    rig.transport.answer = explode
    bad = await rig.publish(b"bad")
    good = await rig.publish(b"good")
    await rig.claims.step()
    await rig.idle()
    assert await rig.state(bad) is State.DELAYED
    assert await rig.state(good) is State.DELIVERED
    stored = await rig.real_store.admin.get_message(bad)
    assert stored is not None
    assert stored.last_attempt is not None
    assert stored.last_attempt.error == "the request could not be made (RuntimeError)"
    assert rig.worker.slots.free == 10


async def test_a_bug_after_the_exchange_leaves_the_message_to_its_lease(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*arguments: object, **options: object) -> None:
        raise RuntimeError("a bug")

    message_id = await rig.publish()
    with monkeypatch.context() as patch:
        patch.setattr("worker.deliver.decide", explode)
        await rig.claims.step()
        await rig.idle()
    assert await rig.state(message_id) is State.ACTIVE
    assert rig.worker.slots.free == 10
    await rig.age_leases()
    rig.open_gate()
    await rig.claims.step()
    await rig.idle()
    assert await rig.state(message_id) is State.DELIVERED


async def test_an_attempt_does_not_begin_on_an_expired_lease_that_was_lost(rig: Rig) -> None:
    await rig.publish()
    await rig.start()
    batch = await rig.store.claim(0, rig.consumer, 1)
    await rig.steal()
    rig.worker.slots.take(1)
    rig.worker.deliverer.start(batch.claims[0], CURRENT_KEY, rig.clock.monotonic_ms())
    await rig.idle()
    assert rig.transport.requests == []
    assert rig.worker.slots.free == 10


async def test_an_expired_lease_that_nobody_took_is_renewed_before_the_attempt(rig: Rig) -> None:
    message_id = await rig.publish()
    batch = await rig.store.claim(0, rig.consumer, 1)
    rig.worker.slots.take(1)
    rig.worker.deliverer.start(batch.claims[0], CURRENT_KEY, rig.clock.monotonic_ms())
    await rig.idle()
    assert rig.store.calls["extend"] == 1
    assert await rig.state(message_id) is State.DELIVERED


async def test_an_expired_lease_that_cannot_be_renewed_is_left(rig: Rig) -> None:
    await rig.publish()
    batch = await rig.store.claim(0, rig.consumer, 1)
    rig.worker.slots.take(1)
    rig.store.fail_before("extend")
    rig.worker.deliverer.start(batch.claims[0], CURRENT_KEY, rig.clock.monotonic_ms())
    await rig.idle()
    assert rig.transport.requests == []


async def test_an_attempt_does_not_begin_after_the_rate_window_that_counts_it(rig: Rig) -> None:
    limits = Extras(flow_control=FlowControl(key="key", rate=1, period_s=1))
    message_id = await rig.publish(lane="f:key", extras=limits)
    await rig.claims.step()
    rig.clock.advance(1_001)
    await rig.idle()
    assert rig.transport.requests == []
    assert await rig.state(message_id) is State.QUEUED
    await rig.claims.step()
    await rig.idle()
    assert rig.transport.requests == [], "the window is still open by Redis's clock, and used up"
    assert await rig.state(message_id) is State.QUEUED


async def test_the_time_that_its_claim_took_is_part_of_the_rate_window(rig: Rig) -> None:
    limits = Extras(flow_control=FlowControl(key="key", rate=1, period_s=1))
    message_id = await rig.publish(lane="f:key", extras=limits)
    rig.store.on_call = lambda name: rig.clock.advance(1_001) if name == "claim" else None
    await rig.claims.step()
    await rig.idle()
    assert rig.transport.requests == [], "by Redis's clock, as this worker knows it, the window has only begun"
    assert await rig.state(message_id) is State.QUEUED


async def test_what_cannot_be_handed_back_is_left_to_its_lease(rig: Rig) -> None:
    limits = Extras(flow_control=FlowControl(key="key", rate=1, period_s=1))
    message_id = await rig.publish(lane="f:key", extras=limits)
    await rig.claims.step()
    rig.clock.advance(1_001)
    rig.store.fail_before("release")
    await rig.idle()
    assert rig.transport.requests == []
    assert await rig.state(message_id) is State.ACTIVE
