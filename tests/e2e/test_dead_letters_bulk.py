"""Many dead letters at once: listed, deleted and tried again, with other options if asked to."""

import asyncio

import pytest
from qstash import AsyncQStash
from qstash.dlq import DlqMessage

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.receiver import Receiver


async def fail(sdk: AsyncQStash, receiver: Receiver, count: int, label: str, path: str = "/p") -> list[DlqMessage]:
    """Dead letters, oldest first."""
    receiver.respond(404, body=b"404 Not Found", times=count)
    await asyncio.gather(
        *(
            sdk.message.publish(
                url=f"{receiver.url}{path}", body="payload", retries=0, label=label, headers={"X-A": "a", "X-B": "b"}
            )
            for _ in range(count)
        )
    )

    async def letters() -> list[DlqMessage]:
        found = (await sdk.dlq.list(filter={"label": label})).messages
        return found if len(found) == count else []

    return await eventually(letters)


async def test_every_filter_selects(sdk: AsyncQStash, client: Client, receiver: Receiver) -> None:
    one, other = f"one-{receiver.port}", f"other-{receiver.port}"
    [first] = await fail(sdk, receiver, 1, one, "/one?q")
    [second] = await fail(sdk, receiver, 1, other, "/two")
    entered_ms = int(second.dlq_id.partition("-")[0])
    either = f"label={one},{other}"
    for query, expected in (
        (either, [first, second]),
        (f"{either}&order=latestFirst", [second, first]),
        (f"{either}&count=1", [first]),
        (f"messageId={second.message_id}", [second]),
        (f"dlqIds={second.dlq_id},1-0&label=ignored", [second]),
        (f"url={receiver.url}/one%3Fq", [first]),
        (f"{either}&responseStatus=404&responseStatus=999", [first, second]),
        (f"{either}&responseStatus=500", list[DlqMessage]()),
        (f"{either}&callerIp=127.0.0.1", [first, second]),
        (f"{either}&callerIP=192.0.2.1", list[DlqMessage]()),
        (f"{either}&fromDate={entered_ms}", [second]),
        (f"{either}&toDate=1", list[DlqMessage]()),
        (f"{either}&topicName=t", list[DlqMessage]()),
        (f"{either}&queueName=q", list[DlqMessage]()),
        (f"{either}&scheduleId=s", list[DlqMessage]()),
        (f"{either}&flowControlKey=k", list[DlqMessage]()),
        ("source=workflow", list[DlqMessage]()),
    ):
        answer = await client.call("GET", f"/v2/dlq?{query}")
        assert answer.status == 200, answer
        assert [letter["dlqId"] for letter in answer.json()["messages"]] == [one.dlq_id for one in expected], query
    for query in ("lable=x", "host=x", "path=/", "state=FAILED", "messageIds=x", "label=", "responseStatus=x"):
        for method, target in (("GET", "/v2/dlq"), ("DELETE", "/v2/dlq"), ("POST", "/v2/dlq/retry")):
            answer = await client.call(method, f"{target}?{query}")
            assert answer.status == 400, (method, query)
            assert query.partition("=")[0] in answer.error
    assert await sdk.dlq.delete_many([first.dlq_id, second.dlq_id]) == 2


async def test_deleting(sdk: AsyncQStash, client: Client, receiver: Receiver) -> None:
    label = f"deleting-{receiver.port}"
    letters = [letter.dlq_id for letter in await fail(sdk, receiver, 5, label)]
    assert await sdk.dlq.delete_many([letters[0], letters[1], "1-0"]) == 2
    assert await sdk.dlq.delete_many(letters[:2]) == 0
    assert await sdk.dlq.delete_many([]) == 0
    page = (await client.call("DELETE", f"/v2/dlq?label={label}&count=2")).json()
    assert (page["deleted"], set(page)) == (2, {"deleted", "cursor"})
    rest = (await client.call("DELETE", f"/v2/dlq?label={label}&cursor={page['cursor']}")).json()
    assert rest == {"deleted": 1}
    assert (await client.call("DELETE", f"/v2/dlq?label={label}")).json() == {"deleted": 0}


async def test_retrying_by_ids_is_all_or_nothing(sdk: AsyncQStash, client: Client, receiver: Receiver) -> None:
    label = f"retrying-{receiver.port}"
    one, other = [letter.dlq_id for letter in await fail(sdk, receiver, 2, label)]
    answer = await client.call("POST", f"/v2/dlq/retry?dlqIds={one}&dlqIds=1-0&dlqIds={other}")
    assert answer.status == 404
    assert "1-0" in answer.error
    answer = await client.call("POST", f"/v2/dlq/retry?dlqIds={one}&dlqIds={other}")
    assert answer.status == 201
    assert set(answer.json()) == {"responses"}
    ids = {result["messageId"] for result in answer.json()["responses"]}
    requests = (await receiver.wait_for(4))[2:]
    assert {request.header("Upstash-Message-Id") for request in requests} == ids
    assert {request.body for request in requests} == {b"payload"}
    assert {request.header("Upstash-Retried") for request in requests} == {"0"}
    assert await sdk.dlq.delete_many([one, other]) == 0


async def test_retrying_by_filter(sdk: AsyncQStash, client: Client, receiver: Receiver) -> None:
    label = f"filter-{receiver.port}"
    await fail(sdk, receiver, 3, label)
    page = (await client.call("POST", f"/v2/dlq/retry?label={label}&count=2")).json()
    assert (len(page["responses"]), set(page)) == (2, {"responses", "cursor"})
    answer = await client.call("POST", f"/v2/dlq/retry?label={label}&cursor={page['cursor']}")
    assert (answer.status, len(answer.json()["responses"]), set(answer.json())) == (201, 1, {"responses"})
    await receiver.wait_for(6)
    answer = await client.call("POST", f"/v2/dlq/retry?label={label}")
    assert (answer.status, answer.json()) == (201, {"responses": []})


@pytest.mark.parametrize("is_bulk", [False, True], ids=["one", "bulk"])
async def test_retrying_with_other_options(sdk: AsyncQStash, client: Client, receiver: Receiver, is_bulk: bool) -> None:
    label = f"options-{receiver.port}"
    [letter] = await fail(sdk, receiver, 1, label)
    target = f"/v2/dlq/retry?dlqIds={letter.dlq_id}" if is_bulk else f"/v2/dlq/retry/{letter.dlq_id}"
    answer = await client.call(
        "POST",
        target,
        [
            ("Upstash-Method", "PUT"),
            ("Upstash-Retries", "7"),
            ("Upstash-Timeout", "9s"),
            ("Upstash-Retry-Delay", "5000"),
            ("Upstash-Label", "relabelled"),
            ("Upstash-Forward-X-B", "new"),
            ("Upstash-Forward-X-C", "more"),
            ("Upstash-Callback", f"{receiver.url}/callback"),
        ],
    )
    assert answer.status == 201
    result = answer.json()["responses"][0] if is_bulk else answer.json()
    assert result["url"] == f"{receiver.url}/p"
    request = (await receiver.wait_for(2, path="/p"))[1]
    assert (request.method, request.body) == ("PUT", b"payload")
    assert [request.header(name) for name in ("X-A", "X-B", "X-C")] == ["a", "new", "more"]
    (callback,) = await receiver.wait_for(1, path="/callback")
    assert result["messageId"] in callback.body.decode()
    [created] = (await client.call("GET", f"/v2/events?messageId={result['messageId']}&state=CREATED")).json()["events"]
    assert (created["maxRetries"], created["timeout"], created["retryDelayExpr"]) == (7, 9000, "5000")
    assert created["labels"] == ["relabelled"]


async def test_a_retry_and_a_delete_at_the_same_time(sdk: AsyncQStash, client: Client, receiver: Receiver) -> None:
    label = f"race-{receiver.port}"
    letters = await fail(sdk, receiver, 10, label)
    deleted, retried = 0, 0
    answers = await asyncio.gather(
        *(
            client.call(method, f"{path}/{letter.dlq_id}")
            for letter in letters
            for method, path in (("DELETE", "/v2/dlq"), ("POST", "/v2/dlq/retry"))
        )
    )
    for remove, retry in zip(answers[::2], answers[1::2], strict=True):
        assert {remove.status, retry.status} in ({200, 404}, {404, 201}), "exactly one of them"
        deleted += remove.status == 200
        retried += retry.status == 201
    assert deleted + retried == 10
    await receiver.wait_for(10 + retried)
