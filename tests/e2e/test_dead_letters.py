"""What could not be delivered: to be listed, looked at, deleted and tried again."""

from typing import Any

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.receiver import Receiver


async def test_a_dead_letter_shows_the_message_and_the_last_answer(client: Client, receiver: Receiver) -> None:
    receiver.respond(500, body=b"first")
    receiver.respond(404, headers=(("X-Reason", "gone"), ("x-reason", "really")), body=b"404 Not Found")
    message_id = await client.publish(
        f"{receiver.url}/p",
        b"\xff\xfe",
        [
            ("Upstash-Retries", "1"),
            ("Upstash-Retry-Delay", "1 * retried"),
            ("Upstash-Label", "l"),
            ("Upstash-Forward-A", "b"),
        ],
    )
    letter = await _dead_letter(client, message_id)
    assert (await client.call("GET", f"/v2/dlq/{letter['dlqId']}")).json() == letter
    assert letter["responseHeader"]["X-Reason"] == ["gone", "really"]
    del letter["responseHeader"], letter["createdAt"], letter["notBefore"], letter["dlqId"]
    assert letter == {
        "messageId": message_id,
        "url": f"{receiver.url}/p",
        "method": "POST",
        "header": {"A": ["b"]},
        "bodyBase64": "//4=",
        "maxRetries": 1,
        "retryDelayExpression": "1 * retried",
        "label": "l",
        "labels": ["l"],
        "callerIP": "127.0.0.1",
        "callerIp": "127.0.0.1",
        "responseStatus": 404,
        "responseBody": "404 Not Found",
    }


async def test_an_answer_that_is_no_text_is_shown_in_base64(client: Client, receiver: Receiver) -> None:
    receiver.respond(500, body=b"\x00\xff")
    letter = await _dead_letter(client, await client.publish(receiver.url, b"", [("Upstash-Retries", "0")]))
    assert letter["responseBodyBase64"] == "AP8="
    assert "responseBody" not in letter


async def test_a_dead_letter_is_deleted_once(client: Client, receiver: Receiver) -> None:
    receiver.respond(500)
    letter = await _dead_letter(client, await client.publish(receiver.url, b"", [("Upstash-Retries", "0")]))
    target = f"/v2/dlq/{letter['dlqId']}"
    assert (await client.call("DELETE", target)).status == 200
    assert (await client.call("DELETE", target)).status == 404
    assert (await client.call("GET", target)).status == 404
    assert await client.dead_letter_of(letter["messageId"]) is None


async def test_a_dead_letter_is_retried_as_a_fresh_message(client: Client, receiver: Receiver) -> None:
    receiver.respond(500, times=2)
    message_id = await client.publish(
        f"{receiver.url}/p",
        b"\xff body",
        [
            ("Content-Type", "a/b"),
            ("Upstash-Method", "PUT"),
            ("Upstash-Retries", "1"),
            ("Upstash-Retry-Delay", "0"),
            ("Upstash-Forward-X-Key", "v"),
        ],
    )
    letter = await _dead_letter(client, message_id)
    answer = await client.call("POST", f"/v2/dlq/retry/{letter['dlqId']}")
    assert answer.status == 201
    new_id = answer.json()["messageId"]
    assert new_id != message_id
    _, _, request = await receiver.wait_for(3)
    assert (request.method, request.target, request.body) == ("PUT", "/p", b"\xff body")
    assert request.values("Content-Type") == ["a/b"]
    assert request.values("X-Key") == ["v"]
    assert request.values("Upstash-Retried") == ["0"]
    assert request.values("Upstash-Message-Id") == [new_id]
    assert (await client.call("GET", f"/v2/dlq/{letter['dlqId']}")).status == 404
    assert (await client.call("POST", f"/v2/dlq/retry/{letter['dlqId']}")).status == 404


async def test_the_list_is_read_in_pages(client: Client, receiver: Receiver) -> None:
    receiver.respond(500, times=None)
    ids = [await client.publish(receiver.url, b"", [("Upstash-Retries", "0")]) for _ in range(5)]
    for message_id in ids:
        await _dead_letter(client, message_id)
    for order in ("earliestFirst", "latestFirst"):
        found: list[str] = []
        target = base = f"/v2/dlq?count=2&order={order}"
        while True:
            page = (await client.call("GET", target)).json()
            assert 1 <= len(page["messages"]) <= 2
            found += [letter["messageId"] for letter in page["messages"]]
            if "cursor" not in page:
                break
            target = f"{base}&cursor={page['cursor']}"
        assert len(found) == len(set(found))
        assert set(ids) <= set(found)


async def test_bodies_of_a_list_can_be_trimmed(client: Client, receiver: Receiver) -> None:
    receiver.respond(404, body=b"404 Not Found")
    message_id = await client.publish(receiver.url, b"a long body", [("Upstash-Retries", "0")])
    await _dead_letter(client, message_id)
    for trim, expected in (("5", ("a lon", "404 N")), ("0", (None, None)), ("-1", (None, None))):
        page = (await client.call("GET", f"/v2/dlq?messageId={message_id}&trimBody={trim}")).json()
        [letter] = page["messages"]
        assert (letter.get("body"), letter.get("responseBody")) == expected, trim


async def test_unknown_dead_letters_and_bad_parameters(client: Client) -> None:
    for method, target in (("GET", "/v2/dlq/1-0"), ("DELETE", "/v2/dlq/x"), ("POST", "/v2/dlq/retry/1725323658779-0")):
        assert "not found" in (await client.call(method, target)).error
    for query in ("count=0", "count=x", "cursor=nonsense", "order=random", "mistyped=1", "host=e.com"):
        answer = await client.call("GET", f"/v2/dlq?{query}")
        assert answer.status == 400, query
        assert query.split("=")[0] in answer.error


async def _dead_letter(client: Client, message_id: str) -> dict[str, Any]:
    letter = await eventually(lambda: client.dead_letter_of(message_id))
    assert letter is not None
    return letter
