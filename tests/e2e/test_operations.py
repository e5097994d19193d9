"""What operators look at: probes, metrics, request ids, and logs that keep secrets."""

import json

from tests.support import documented
from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.processes import System
from tests.support.receiver import Receiver


async def test_probes_need_no_credential(client: Client, system: System) -> None:
    for target in ("/livez", "/readyz", "/metrics"):
        assert (await client.http.request("GET", target)).status == 200
        assert system.workers[0].get(target)[0] == 200
    ready = (await client.http.request("GET", "/readyz")).json()
    assert ready["status"] == "ready"
    assert ready["durability"] == "always"
    assert ready["workers"] == 2


async def test_the_description_is_there_for_everybody(client: Client, system: System) -> None:
    answer = await client.http.request("GET", "/openapi.json")
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.json() == documented.build(system.settings).document
    assert system.settings.token not in answer.body.decode()


async def test_metrics_count_publishes_and_attempts(client: Client, receiver: Receiver, system: System) -> None:
    (api,) = system.apis

    def attempts(outcome: str) -> float:
        return sum(worker.metric(f'attempts_total{{outcome="{outcome}"}}') for worker in system.workers)

    before = (api.metric("messages_published_total"), attempts("delivered"), attempts("retry"), attempts("failed"))
    receiver.respond(500, times=2)
    await client.publish(receiver.url, b"x", [("Upstash-Retries", "1"), ("Upstash-Retry-Delay", "0")])
    await receiver.wait_for(2)
    await client.publish(receiver.url, b"x")
    await receiver.wait_for(3)
    await eventually(
        lambda: (
            (api.metric("messages_published_total"), attempts("delivered"), attempts("retry"), attempts("failed"))
            == (before[0] + 2, before[1] + 1, before[2] + 1, before[3] + 1)
        )
    )
    await eventually(lambda: api.metric("in_flight") == 0 and api.metric("ready") == 0)
    await eventually(lambda: api.metric("dead_letters") >= 1)
    assert api.metric("store_up") == 1


async def test_a_request_id_is_taken_returned_and_logged(client: Client, receiver: Receiver, system: System) -> None:
    answer = await client.call("POST", f"/v2/publish/{receiver.url}", [("X-Request-Id", "mine-1")], b"x")
    assert answer.header("x-request-id") == "mine-1"
    (event,) = await eventually(lambda: system.apis[0].events("message.published", request_id="mine-1"))
    assert event["message_id"] == answer.json()["messageId"]
    assert event["role"] == "api"
    for target, status in (("/v2/keys", 200), ("/v2/messages/x", 404), ("/v2/nothing", 404)):
        answer = await client.call("GET", target, [("X-Request-Id", f"mine-{target}")])
        assert (answer.status, answer.header("x-request-id")) == (status, f"mine-{target}")
        await eventually(lambda target=target: system.apis[0].events(request_id=f"mine-{target}"))


async def test_a_request_without_a_usable_id_gets_one(client: Client, receiver: Receiver, system: System) -> None:
    given: list[str] = []
    for headers in ([], [("X-Request-Id", "with blanks and\ttabs")], [("X-Request-Id", "x" * 1000)]):
        answer = await client.call("POST", f"/v2/publish/{receiver.url}", headers, b"x")
        request_id = answer.header("x-request-id")
        assert request_id
        assert request_id.isprintable()
        assert len(request_id) <= 128
        given.append(request_id)
    assert len(set(given)) == 3
    for request_id in given:
        await eventually(lambda request_id=request_id: system.apis[0].events(request_id=request_id))


async def test_an_attempt_is_one_event(client: Client, receiver: Receiver, system: System) -> None:
    receiver.respond(503)
    message_id = await client.publish(f"{receiver.url}/p?secret=1", b"x", [("Upstash-Retry-Delay", "0")])
    await receiver.wait_for(2)
    first, second = await eventually(lambda: a if len(a := system.attempts(message_id)) == 2 else [])
    assert (first["attempt"], first["status"], first["decision"], first["next_delay_ms"]) == (1, 503, "retry", 0)
    assert (second["attempt"], second["status"], second["decision"]) == (2, 200, "delivered")
    assert first["host"] == receiver.url.removeprefix("http://")
    assert isinstance(first["duration_ms"], int)


async def test_logs_are_json_and_show_neither_secrets_nor_contents(
    client: Client, receiver: Receiver, system: System
) -> None:
    receiver.respond(500, body=b"answer-content", headers=(("X-Answer", "answer-header"),))
    target = f"/v2/publish/{receiver.url}/p?key=query-content&qstash_token={client.settings.token}"
    headers = [("Upstash-Forward-Authorization", "Bearer forwarded-secret")]
    answer = await client.http.request("POST", target, [*headers, ("Upstash-Retry-Delay", "0")], b"body-content")
    await client.http.request("POST", target, [*headers, ("Upstash-Delay", "5x")], b"body-content")
    await client.http.request("POST", target.replace("token=", "token=x"), headers, b"body-content")
    await receiver.wait_for(2)
    await eventually(lambda: len(system.attempts(answer.json()["messageId"])) == 2)
    for process in system.processes:
        text = process.log_text()
        for secret in (
            client.settings.token,
            client.settings.current_signing_key,
            client.settings.next_signing_key,
            "forwarded-secret",
            "body-content",
            "query-content",
            "answer-content",
            "answer-header",
        ):
            assert secret not in text, (process.log.name, secret)
        for line in text.splitlines():
            assert {"time", "level", "event", "role", "pid"} <= json.loads(line).keys(), line


async def test_probes_leave_no_trace_in_the_log(client: Client, system: System) -> None:
    marks = ("before-probes", "after-probes")
    await client.call("GET", "/v2/keys", [("X-Request-Id", marks[0])])
    for path in ("/livez", "/readyz", "/metrics"):
        await client.http.request("GET", path)
    await client.call("GET", "/v2/keys", [("X-Request-Id", marks[1])])
    await eventually(lambda: system.apis[0].events(request_id=marks[1]))
    ids = [event.get("request_id") for event in system.apis[0].events()]
    assert ids.index(marks[1]) == ids.index(marks[0]) + 1
