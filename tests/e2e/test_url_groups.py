"""URL groups: one publish becomes a message for each endpoint, and from then on each goes its own way."""

import json
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.eventually import eventually
from tests.support.receiver import Receiver


class Group:
    """A URL group of a test's own."""

    def __init__(self, client: Client, receiver: Receiver) -> None:
        self.name = f"group-{receiver.port}"
        self._client = client
        self._url = receiver.url

    async def add(self, *paths: str, **named: str) -> None:
        """Endpoints by their paths, then those with a name."""
        endpoints = [{"url": self._url + path} for path in paths]
        endpoints += [{"url": self._url + path, "name": name} for name, path in named.items()]
        await self.send("POST", "/endpoints", {"endpoints": endpoints})

    async def send(self, method: str, path: str = "", fields: object = None) -> Any:
        return await self._client.send(method, f"/v2/topics/{self.name}{path}", fields)

    async def endpoints(self) -> list[dict[str, str]]:
        return (await self.send("GET"))["endpoints"]


@pytest.fixture
def group(client: Client, receiver: Receiver) -> Group:
    return Group(client, receiver)


async def test_each_endpoint_gets_a_message(client: Client, receiver: Receiver, group: Group) -> None:
    await group.add("/one?a=b", "/two", third="/three")
    headers = [("Upstash-Callback", f"{receiver.url}/callback"), ("Upstash-Forward-X", "1"), ("Upstash-Label", "all")]
    answer = await client.call("POST", f"/v2/publish/{group.name}", headers, b"body")
    assert answer.status == 200
    results = answer.json()
    assert [result["url"] for result in results] == [receiver.url + path for path in ("/one?a=b", "/two", "/three")]
    requests = {request.target: request for request in await receiver.wait_for(6) if request.path != "/callback"}
    for result in results:
        request = requests[result["url"].removeprefix(receiver.url)]
        assert request.header("Upstash-Message-Id") == result["messageId"]
        assert (request.body, request.values("X")) == (b"body", ["1"])
        assert request.values("Upstash-Topic-Name") == [group.name]
    message = await client.message(results[2]["messageId"])
    assert message is not None
    assert (message["topicName"], message["urlGroup"], message["endpointName"]) == (group.name, group.name, "third")
    callbacks = [json.loads(request.body) for request in receiver.requests if request.path == "/callback"]
    assert {(told["topicName"], told.get("endpointName")) for told in callbacks} == {
        (group.name, None),
        (group.name, "third"),
    }
    events = (await client.send("GET", f"/v2/events?topicName={group.name}&state=CREATED"))["events"]
    assert len(events) >= 3


async def test_each_endpoint_is_retried_on_its_own(client: Client, receiver: Receiver, group: Group) -> None:
    await group.add("/works", "/recovers", down="/down")
    receiver.respond(500, path="/recovers", times=2)
    receiver.respond(500, path="/down", times=None)
    headers = [("Upstash-Retries", "2"), ("Upstash-Retry-Delay", "0")]
    results = (await client.call("POST", f"/v2/publish/{group.name}", headers)).json()
    letter = await eventually(lambda: client.dead_letter_of(results[2]["messageId"]))
    assert letter is not None
    assert (letter["topicName"], letter["endpointName"]) == (group.name, "down")
    await receiver.wait_for(3, path="/recovers")
    counts = {path: sum(request.path == path for request in receiver.requests) for path in ("/works", "/down")}
    assert counts == {"/works": 1, "/down": 3}
    letters = (await client.send("GET", f"/v2/dlq?topicName={group.name}"))["messages"]
    assert [each["messageId"] for each in letters] == [results[2]["messageId"]]
    await client.send("POST", f"/v2/dlq/retry/{letter['dlqId']}")
    request = (await receiver.wait_for(4, path="/down"))[-1]
    assert request.values("Upstash-Topic-Name") == [group.name]


async def test_default_headers_count_where_the_publisher_says_nothing(
    client: Client, receiver: Receiver, group: Group
) -> None:
    await group.add("/hook")
    defaults = {
        "Upstash-Retries": "7",
        "upstash-forward-x-from": ["group"],
        "Upstash-Header-Forward": "true",
        "Content-Type": "text/x-default",
    }
    await group.send("PATCH", fields={"headers": defaults})

    async def published(query: str = "", *headers: tuple[str, str]) -> dict[str, Any]:
        [result] = (await client.call("POST", f"/v2/publish/{group.name}{query}", headers, b"x")).json()
        message = await client.message(result["messageId"])
        assert message is not None
        return message

    plain = await published("", ("X-Webhook", "push"))
    assert plain["maxRetries"] == 7
    assert (
        plain["header"].items()
        >= {"X-Webhook": ["push"], "X-From": ["group"], "Content-Type": ["text/x-default"]}.items()
    )
    assert (await published("?upstash-retries=6"))["maxRetries"] == 6
    own = await published("?upstash-retries=6", ("Upstash-Retries", "5"), ("Upstash-Header-Forward", "false"))
    assert (own["maxRetries"], own["header"]) == (5, {"X-From": ["group"], "Content-Type": ["text/x-default"]})

    for bad in ({"Upstash-Retries": "many"}, {"X-Other": "1"}, {"Upstash-Delay": ["1h", 2]}):
        answer = await client.call("PATCH", f"/v2/topics/{group.name}", body=json.dumps({"headers": bad}).encode())
        assert answer.status == 400, bad
        assert answer.error
    assert (await published())["maxRetries"] == 7
    await group.send("PATCH", fields={"headers": {"Upstash-Retries": "1"}})
    replaced = await published("", ("X-Webhook", "push"))
    assert (replaced["maxRetries"], replaced.get("header", {})) == (1, {})
    missing = await client.call("PATCH", "/v2/topics/no-such-group", body=b'{"headers": {}}')
    assert missing.status == 404


async def test_a_deleted_group_leaves_its_messages_and_is_published_to_no_more(
    client: Client, receiver: Receiver, group: Group
) -> None:
    await group.add("/one", "/two")
    await client.call("POST", f"/v2/publish/{group.name}", [("Upstash-Delay", "1s")])
    await group.send("DELETE")
    for target in (f"publish/{group.name}", f"enqueue/queue-{receiver.port}/{group.name}"):
        answer = await client.call("POST", f"/v2/{target}")
        assert (answer.status, answer.error) == (404, f"topic {group.name} not found")
    [result] = await client.send("POST", "/v2/batch", [{"destination": group.name}])
    assert result == {"error": f"topic {group.name} not found"}
    assert (await client.call("GET", f"/v2/topics/{group.name}")).status == 404
    await group.send("DELETE")
    await receiver.wait_for(2)


async def test_endpoints_come_and_go(client: Client, receiver: Receiver, group: Group) -> None:
    url = receiver.url
    await group.add("/one", two="/two")
    created = await group.send("GET")
    assert created.keys() == {"name", "createdAt", "updatedAt", "endpoints"}
    assert created["endpoints"] == [{"url": f"{url}/one"}, {"url": f"{url}/two", "name": "two"}]
    assert created in await client.send("GET", "/v2/topics")
    # By its address it gets a name, by its name it gets an address.
    await group.add("/four", **{"the first": "/one", "two": "/three"})
    changed = await group.send("GET")
    assert changed["endpoints"] == [
        {"url": f"{url}/one", "name": "the first"},
        {"url": f"{url}/three", "name": "two"},
        {"url": f"{url}/four"},
    ]
    assert (changed["createdAt"], changed["updatedAt"] >= created["updatedAt"]) == (created["createdAt"], True)
    for bad in ([], [{"url": f"{url}/five"}, {"name": "no url"}], [{"url": "ftp://x"}]):
        answer = await client.call(
            "POST", f"/v2/topics/{group.name}/endpoints", body=json.dumps({"endpoints": bad}).encode()
        )
        assert answer.status == 400, bad
    assert await group.endpoints() == changed["endpoints"]
    gone = [{"name": "two"}, {"url": f"{url}/one", "name": "another"}, {"url": "http://never.added"}]
    await group.send("DELETE", "/endpoints", {"endpoints": gone})
    assert await group.endpoints() == [{"url": f"{url}/one", "name": "the first"}, {"url": f"{url}/four"}]
    await group.send("DELETE", "/endpoints", {"endpoints": [{"url": f"{url}/one"}, {"url": f"{url}/four"}]})
    assert (await client.call("GET", f"/v2/topics/{group.name}")).status == 404


async def test_a_repeat_is_recognised_for_the_whole_group(client: Client, receiver: Receiver, group: Group) -> None:
    await group.add("/one", "/two")
    headers = [("Upstash-Deduplication-Id", group.name)]
    first = await client.call("POST", f"/v2/publish/{group.name}", headers)
    again = await client.call("POST", f"/v2/publish/{group.name}", headers)
    assert (first.status, again.status) == (200, 202)
    assert again.json() == [{**result, "deduplicated": True} for result in first.json()]
    await client.pass_by(receiver)
    await receiver.wait_for(3)
    assert len(receiver.requests) == 3


async def test_a_group_is_enqueued_in_the_order_of_its_endpoints(
    client: Client, receiver: Receiver, group: Group
) -> None:
    await group.add(*(f"/{number}" for number in range(5)))
    receiver.respond(500, path="/1")
    headers = [("Upstash-Retry-Delay", "0")]
    results = (await client.call("POST", f"/v2/enqueue/{group.name}/{group.name}", headers)).json()
    assert len(results) == 5
    await receiver.wait_for(6)
    assert [request.path for request in receiver.requests] == ["/0", "/1", "/1", "/2", "/3", "/4"]


async def test_a_batch_answers_for_a_group_with_an_array(client: Client, receiver: Receiver, group: Group) -> None:
    await group.add("/one", "/two")
    items = [
        {"destination": group.name, "body": "a"},
        {"destination": f"{receiver.url}/three"},
        {"destination": group.name, "queue": group.name, "headers": {"Upstash-Method": "PUT"}},
        {"destination": f"{receiver.url}/never", "headers": {"Upstash-Cron": "0 0 1 1 *"}},
    ]
    published, url, enqueued, schedule = await client.send("POST", "/v2/batch", items)
    assert [result["url"] for result in published] == [f"{receiver.url}/one", f"{receiver.url}/two"]
    assert url["url"] == f"{receiver.url}/three"
    assert list(schedule) == ["scheduleId"]
    requests = await receiver.wait_for(5)
    ids = {request.header("Upstash-Message-Id") for request in requests}
    assert ids == {result["messageId"] for result in [*published, url, *enqueued]}
    assert sum(request.method == "PUT" for request in requests) == 2
    await client.send("DELETE", f"/v2/schedules/{schedule['scheduleId']}")
