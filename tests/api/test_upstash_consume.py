"""Upstash's Kafka API, the reading side: every route and error."""

import asyncio
import base64
import gzip
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from qstash_clone.api.app import create_app
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from qstash_clone.topics.consuming import Consumer
from qstash_clone.topics.reading import Reader
from qstash_clone.topics.records import MAX_TIMESTAMP_MS, Record, TopicConfig
from tests.api.conftest import Events, RunningServer
from tests.support.eventually import eventually

SUCCESS = {"result": "Success", "status": 200}
EARLIEST = {"kafka-auto-offset-reset": "earliest"}
BY_HAND = {**EARLIEST, "kafka-enable-auto-commit": "false"}


async def make_topic(store: Store, name: str = "orders", partitions: int = 2) -> None:
    await store.topics.create_topic(name, TopicConfig(partitions=partitions))


async def produce(client: httpx.AsyncClient, *values: str, topic: str = "orders", partition: int = 0) -> list[Any]:
    answer = await client.post(f"/produce/{topic}", json=[{"value": one, "partition": partition} for one in values])
    assert answer.status_code == 200
    return answer.json()


def values(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [record["value"] for record in answer.json()]


def refused(answer: httpx.Response, status: int, text: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    body = answer.json()
    assert set(body) == {"error", "status"}
    assert body["status"] == status
    assert text in body["error"]


async def consume(client: httpx.AsyncClient, instance: str = "a", group: str = "g", **headers: str) -> httpx.Response:
    return await client.get(
        f"/consume/{group}/{instance}/orders?timeout=0",
        headers={name.replace("_", "-"): headers[name] for name in headers},
    )


class TestFetch:
    async def test_a_record_comes_back_with_all_its_fields(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store)
        message = {
            "value": "paid",
            "key": "o-9",
            "partition": 1,
            "timestamp": 1700000000123,
            "headers": [{"key": "h", "value": "1"}, {"key": "h", "value": ""}],
        }
        await client.post("/produce/orders", json=message)
        answer = await client.post("/fetch", json={"topic": "orders", "partition": 1, "offset": 0})
        assert answer.json() == [{"topic": "orders", "offset": 0, **message}]
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"

    async def test_what_is_missing_or_not_utf_8_is_text_all_the_same(
        self, client: httpx.AsyncClient, store: Store
    ) -> None:
        await make_topic(store)
        topic = await store.topics.get_topic("orders")
        assert topic is not None
        records = [Record(None), Record(b"\xffok", b"\xfe", (("n", None), ("b", b"\xfd")))]
        await store.topics.append(topic, 0, records)
        first, second = (await client.post("/fetch", json={"topic": "orders"})).json()
        assert (first["key"], first["value"], first["headers"]) == ("", "", [])
        assert (second["key"], second["value"]) == ("\ufffd", "\ufffdok")
        assert second["headers"] == [{"key": "n", "value": ""}, {"key": "b", "value": "\ufffd"}]

    @pytest.mark.parametrize("method", ["GET", "POST"])
    @pytest.mark.parametrize("path", ["/fetch", "/fetch/", "/FETCH"])
    async def test_the_single_triple_comes_first_then_the_list_and_doubles_once(
        self, client: httpx.AsyncClient, store: Store, method: str, path: str
    ) -> None:
        await make_topic(store)
        await make_topic(store, "audit")
        await produce(client, "o0", "o1")
        await produce(client, "a0", topic="audit", partition=1)
        body = {
            "topic": "audit",
            "partition": 1,
            "topicPartitionOffsets": [
                {"topic": "orders", "partition": 0, "offset": 1},
                {"topic": "orders", "partition": 0, "offset": 0},
            ],
        }
        assert values(await client.request(method, path, json=body)) == ["a0", "o1"]

    async def test_nothing_is_found_behind_the_end(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store)
        await produce(client, "x")
        for offset in (1, 50, MAX_TIMESTAMP_MS):
            body = {"topic": "orders", "offset": offset, "timeout": 0, "unknown": 1, "topicPartitionOffsets": None}
            assert values(await client.post("/fetch", json=body)) == []

    async def test_a_record_that_arrives_meanwhile_ends_the_wait(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store)
        fetching = asyncio.ensure_future(client.post("/fetch", json={"topic": "orders", "timeout": 60_000}))
        await produce(client, "x")
        assert values(await fetching) == ["x"]

    async def test_an_answer_has_its_limits(self, settings: Settings, store: Store, client: httpx.AsyncClient) -> None:
        await make_topic(store)
        await produce(client, *["x"] * 600)
        assert len(values(await client.post("/fetch", json={"topic": "orders"}))) == 500

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (b"", "the body is empty"),
            (b"{", "not JSON"),
            (b"[]", "Expected `object`"),
            (b"{}", "topic or topicPartitionOffsets is required"),
            (b'{"partition":1}', "topic or topicPartitionOffsets is required"),
            (b'{"topicPartitionOffsets":[]}', "topic or topicPartitionOffsets is required"),
            (
                b'{"topicPartitionOffsets":[{"topic":"orders","partition":0}]}',
                "`offset` - at `$.topicPartitionOffsets[0]`",
            ),
            (b'{"topicPartitionOffsets":[{"topic":"orders","partition":null,"offset":0}]}', "[0].partition"),
            (b'{"topic":"a/b"}', "no name of a topic"),
            (b'{"topic":""}', "no name of a topic"),
            (b'{"topic":5}', "$.topic"),
            (b'{"topic":"orders","partition":-1}', "$.partition"),
            (b'{"topic":"orders","partition":2147483648}', "$.partition"),
            (b'{"topic":"orders","offset":-1}', "$.offset"),
            (b'{"topic":"orders","offset":1.0}', "$.offset"),
            (b'{"topic":"orders","offset":"1"}', "$.offset"),
            (b'{"topic":"orders","offset":true}', "$.offset"),
            (b'{"topic":"orders","timeout":-1}', "$.timeout"),
            (b'{"topic":"orders","timeout":1.5}', "$.timeout"),
        ],
    )
    async def test_bad_input(self, client: httpx.AsyncClient, store: Store, body: bytes, text: str) -> None:
        await make_topic(store)
        refused(await client.post("/fetch", content=body), 400, text)

    async def test_too_many_partitions(self, client: httpx.AsyncClient) -> None:
        triple = {"topic": "orders", "partition": 0, "offset": 0}
        refused(await client.post("/fetch", json={"topicPartitionOffsets": [triple] * 1001}), 400, "1000 partitions")
        refused(await client.post("/fetch", content=b" " * (1024 * 1024 + 1)), 413)

    async def test_unknown_places(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store)
        refused(await client.post("/fetch", json={"topic": "nowhere"}), 404, "topic nowhere does not exist")
        refused(await client.post("/fetch", json={"topic": "orders", "partition": 2}), 404, "partitions 0 to 1")

    async def test_trailing_commas_a_mark_and_gzip(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store)
        await produce(client, "x")
        body = b'\xef\xbb\xbf{"topicPartitionOffsets":[{"topic":"orders","partition":0,"offset":0,},],}'
        assert values(await client.post("/fetch", content=body)) == ["x"]
        headers = {"content-encoding": "gzip"}
        assert values(await client.post("/fetch", content=gzip.compress(body), headers=headers)) == ["x"]


class TestConsume:
    async def test_three_forms_are_one(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store)
        await produce(client, "x")
        body = {"topic": "orders", "topics": ["orders"], "timeout": 0}
        assert values(await client.get("/consume/g1/a/orders?timeout=0", headers=EARLIEST)) == ["x"]
        assert values(await client.post("/consume/g2/a/orders/?timeout=0", headers=EARLIEST, content=b"?")) == ["x"]
        await store.topics.change_topic("orders", TopicConfig(partitions=4))
        assert values(await client.post("/consume/g3/a", headers=EARLIEST, json=body)) == ["x"]
        assert values(await client.request("GET", "/consume/g4/a/", headers=EARLIEST, json=body)) == ["x"]

    async def test_latest_is_where_the_first_call_found_the_end(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store)
        await produce(client, "before")
        assert values(await consume(client)) == []
        await produce(client, "between")
        assert values(await consume(client)) == ["between"]
        assert values(await consume(client)) == []

    async def test_two_instances_share_and_one_that_goes_leaves_its_part(
        self, client: httpx.AsyncClient, store: Store
    ) -> None:
        await make_topic(store, partitions=4)
        for instance in ("a", "b"):
            await consume(client, instance)
        owned = [{"topic": "orders", "partitions": [0, 1]}], [{"topic": "orders", "partitions": [2, 3]}]
        assert (await client.get("/consumers")).json() == [
            {"name": "g", "instances": [{"name": "a", "topics": owned[0]}, {"name": "b", "topics": owned[1]}]}
        ]
        for partition in range(4):
            await produce(client, f"p{partition}", partition=partition)
        found = values(await consume(client, "a"))
        assert found == ["p0", "p1"]
        assert (await client.post("/delete-consumer/g/a")).json() == SUCCESS
        found += values(await consume(client, "b"))
        assert found == ["p0", "p1", "p2", "p3"]
        (group,) = (await client.get("/consumers")).json()
        assert group["instances"] == [{"name": "b", "topics": [{"topic": "orders", "partitions": [0, 1, 2, 3]}]}]

    async def test_what_was_not_committed_comes_again(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store)
        await produce(client, "x", "y")
        for _ in range(2):
            assert values(await client.get("/consume/g/a/orders?timeout=0", headers=BY_HAND)) == ["x", "y"]
            await client.delete("/delete-consumer/g/a")
        await client.get("/consume/g/a/orders?timeout=0", headers=BY_HAND)
        assert (await client.post("/commit/g/a")).json() == SUCCESS
        await client.delete("/delete-consumer/g/a")
        assert values(await client.get("/consume/g/a/orders?timeout=0", headers=BY_HAND)) == []

    async def test_none_asks_for_a_commit(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store, partitions=1)
        await produce(client, "x", "y")
        headers = {"kafka-auto-offset-reset": "none"}
        refused(await client.get("/consume/g/a/orders", headers=headers), 400, "no offset stored for partition 0")
        await client.post("/commit/g/a", json={"topic": "orders", "partition": 0, "offset": 1})
        assert values(await client.get("/consume/g/a/orders", headers=headers)) == ["y"]

    async def test_a_name_is_what_its_segment_decodes_to(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store)
        await client.get("/consume/my%20gr%C3%BCp%2F1/a%20b/orders?timeout=0")
        (group,) = (await client.get("/consumers")).json()
        assert (group["name"], group["instances"][0]["name"]) == ("my grüp/1", "a b")
        assert (await client.post("/delete-consumer/my gr%C3%BCp%2f1/a b")).json() == SUCCESS

    @pytest.mark.parametrize(
        ("headers", "text"),
        [
            ({"Kafka-Enable-Auto-Commit": "yes"}, "Kafka-Enable-Auto-Commit"),
            ({"Kafka-Enable-Auto-Commit": ""}, "Kafka-Enable-Auto-Commit"),
            ({"Kafka-Auto-Commit-Interval": "0"}, "Kafka-Auto-Commit-Interval"),
            ({"Kafka-Auto-Commit-Interval": "-5"}, "Kafka-Auto-Commit-Interval"),
            ({"Kafka-Auto-Commit-Interval": "5s"}, "Kafka-Auto-Commit-Interval"),
            ({"Kafka-Auto-Offset-Reset": "first"}, "Kafka-Auto-Offset-Reset"),
            ({"Kafka-Auto-Offset-Reset": "Latest"}, "Kafka-Auto-Offset-Reset"),
            ({"Kafka-Session-Timeout-Ms": "5999"}, "Kafka-Session-Timeout-Ms"),
            ({"Kafka-Session-Timeout-Ms": "1800001"}, "Kafka-Session-Timeout-Ms"),
        ],
    )
    async def test_bad_headers(
        self, client: httpx.AsyncClient, store: Store, headers: dict[str, str], text: str
    ) -> None:
        await make_topic(store)
        refused(await client.get("/consume/g/a/orders", headers=headers), 400, text)
        assert (await client.get("/consumers")).json() == []

    async def test_good_headers(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store)
        headers = {
            "Kafka-Enable-Auto-Commit": "FALSE",
            "Kafka-Auto-Commit-Interval": "1",
            "Kafka-Auto-Offset-Reset": "earliest",
            "Kafka-Session-Timeout-Ms": "6000",
        }
        for _ in range(2):
            assert values(await client.get("/consume/g/a/orders?timeout=0", headers=headers)) == []

    @pytest.mark.parametrize(
        ("path", "body", "status", "text"),
        [
            ("/consume/g/a", b"", 400, "the body is empty"),
            ("/consume/g/a", b"{}", 400, "topic or topics is required"),
            ("/consume/g/a", b'{"topics":[]}', 400, "topic or topics is required"),
            ("/consume/g/a", b'{"topics":["orders",5]}', 400, "$.topics[1]"),
            ("/consume/g/a", b'{"topics":"orders"}', 400, "$.topics"),
            ("/consume/g/a", b'{"topic":"?"}', 400, "no name of a topic"),
            ("/consume/g/a", b'{"topic":"orders","timeout":-1}', 400, "$.timeout"),
            ("/consume/g/a", b'{"topics":["orders","nowhere"]}', 404, "topic nowhere does not exist"),
            ("/consume/g/a/nowhere", b"", 404, "topic nowhere does not exist"),
            ("/consume/g/a/no%2Fwhere", b"", 400, "no name of a topic"),
            ("/consume/g/a/%ff", b"", 400, "topic: not valid UTF-8"),
            ("/consume/g%/a/orders", b"", 400, "group: a percent sign"),
            ("/consume//a/orders", b"", 400, "group: a name has"),
            ("/consume/g//orders", b"", 400, "instance: a name has"),
            (f"/consume/g/{'i' * 256}/orders", b"", 400, "instance: a name has"),
            ("/consume/g/a/orders?timeout=-1", b"", 400, "timeout: '-1'"),
            ("/consume/g/a/orders?timeout=", b"", 400, "timeout: ''"),
            ("/consume/g/a/orders?timeout=1e3", b"", 400, "timeout"),
            ("/consume/g", b"", 404, "no such path"),
            ("/consume/g/a/orders/more", b"", 404, "no such path"),
        ],
    )
    async def test_bad_requests_create_nothing(
        self, client: httpx.AsyncClient, store: Store, path: str, body: bytes, status: int, text: str
    ) -> None:
        await make_topic(store)
        refused(await client.post(path, content=body), status, text)
        assert await store.groups.list_groups() == []

    async def test_there_are_at_most_as_many_instances_as_partitions(
        self, client: httpx.AsyncClient, store: Store
    ) -> None:
        await make_topic(store, partitions=1)
        assert values(await consume(client, "a")) == []
        answer = await consume(client, "b")
        refused(answer, 429, "as many consumer instances as partitions")
        assert answer.headers["retry-after"] == "1"

    async def test_a_client_that_leaves_gets_no_records(
        self, server: RunningServer, store: Store, settings: Settings
    ) -> None:
        """However it leaves: what it waited for is there for its next call."""
        await make_topic(store, partitions=1)
        headers = {"authorization": f"Bearer {settings.token}"}
        head = f"GET /consume/g/a/orders?timeout=60000 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {settings.token}"
        async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
            for number, is_polite in enumerate((True, False)):
                async with await server.connect() as connection:
                    await connection.send(head.encode() + b"\r\n\r\n")
                    await eventually(lambda: store.groups.list_groups())
                    if is_polite:
                        connection.writer.write_eof()
                        assert (await connection.receive()).json == []
                    else:
                        connection.writer.transport.abort()
                await eventually(lambda: not server.server.server_state.tasks)
                await produce(client, f"m{number}")
                assert values(await consume(client)) == [f"m{number}"]

    async def test_a_server_that_stops_ends_waits_with_an_answer(
        self, server: RunningServer, store: Store, settings: Settings
    ) -> None:
        await make_topic(store, partitions=1)
        head = f"Host: a\r\nAuthorization: Bearer {settings.token}\r\n"
        body = b'{"topic":"orders","timeout":60000}'
        consuming = f"GET /consume/g/a/orders?timeout=60000 HTTP/1.1\r\n{head}\r\n".encode()
        fetching = f"POST /fetch HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        async with await server.connect() as one, await server.connect() as other:
            await one.send(consuming)
            await other.send(fetching)
            await eventually(lambda: store.groups.list_groups())
            await eventually(lambda: len(server.server.server_state.tasks) == 2)
            server.server.should_exit = True
            for connection in (one, other):
                answer = await connection.receive()
                assert (answer.status, answer.json, answer.headers["connection"]) == (200, [], "close")
        await eventually(server.task.done)


class TestCommit:
    @pytest.mark.parametrize("body", [b"", b"  \n", b"null", b"[]"])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_nothing_means_everything_that_was_handed_out(
        self, client: httpx.AsyncClient, store: Store, body: bytes, method: str
    ) -> None:
        await make_topic(store)
        await produce(client, "x", "y")
        await client.get("/consume/g/a/orders?timeout=0", headers=BY_HAND)
        await produce(client, "z")
        assert (await client.request(method, "/commit/g/a", content=body)).json() == SUCCESS
        answer = await client.post("/committed/g/a", json=[{"topic": "orders", "partition": 0}])
        assert answer.json() == [{"topic": "orders", "partition": 0, "offset": 2}]

    async def test_an_offset_is_stored_as_given(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store)
        await consume(client)
        one = {"topic": "orders", "partition": 0, "offset": 41}
        other = {"topic": "orders", "partition": 1, "offset": 0}
        assert (await client.post("/commit/g/a", json=one)).json() == SUCCESS
        assert (await client.post("/commit/g/a/", json=[{**one, "offset": 40}, other])).json() == SUCCESS
        places = [{"topic": "orders", "partition": partition} for partition in (1, 0)]
        assert (await client.post("/committed/g/a", json=places)).json() == [other, {**one, "offset": 40}]

    @pytest.mark.parametrize(
        ("path", "body", "status", "text"),
        [
            ("/commit/g/a", b"{}", 400, "missing required field"),
            ("/commit/g/a", b"5", 400, "the body is not what it should be"),
            ("/commit/g/a", b'{"topic":"orders","partition":0,"offset":-1}', 400, "$.offset"),
            ("/commit/g/a", b'[{"topic":"orders","partition":0,"offset":null}]', 400, "$[0].offset"),
            ("/commit/g/a", b'{"topic":"..","partition":0,"offset":1}', 400, "no name of a topic"),
            ("/commit/g/a", b'{"topic":"nowhere","partition":0,"offset":1}', 404, "topic nowhere"),
            ("/commit/g/a", b'{"topic":"orders","partition":2,"offset":1}', 404, "partitions 0 to 1"),
            ("/commit/g/b", b"", 404, "consumer instance b of group g does not exist"),
            ("/commit/h/a", b'{"topic":"orders","partition":0,"offset":1}', 404, "consumer instance a of group h"),
            ("/commit/g", b"", 404, "no such path"),
        ],
    )
    async def test_bad_requests(
        self, client: httpx.AsyncClient, store: Store, path: str, body: bytes, status: int, text: str
    ) -> None:
        await make_topic(store)
        await consume(client)
        refused(await client.post(path, content=body), status, text)
        answer = await client.post("/committed/g/a", json={"topic": "orders", "partition": 0})
        assert answer.json()[0]["offset"] == 0


class TestInstances:
    @pytest.mark.parametrize("method", ["POST", "DELETE"])
    async def test_a_deleted_instance_is_gone_and_its_commits_are_not(
        self, client: httpx.AsyncClient, store: Store, method: str
    ) -> None:
        await make_topic(store)
        await consume(client)
        assert (await client.request(method, "/delete-consumer/g/a")).json() == SUCCESS
        assert (await client.get("/consumers")).json() == []
        refused(await client.request(method, "/delete-consumer/g/a"), 404, "consumer instance a of group g")
        answer = await client.post("/committed/g/a", json={"topic": "orders", "partition": 0})
        assert answer.json() == [{"topic": "orders", "partition": 0, "offset": 0}]

    async def test_groups_and_instances_come_in_the_order_of_their_names(
        self, client: httpx.AsyncClient, store: Store
    ) -> None:
        await make_topic(store, partitions=1)
        await make_topic(store, "audit", 4)
        for group, instance in (("h", "b"), ("h", "a"), ("g", "z")):
            await consume(client, instance, group)
        assert (await client.get("/consumers/")).json() == [
            {"name": "g", "instances": [{"name": "z", "topics": [{"topic": "orders", "partitions": [0]}]}]},
            {
                "name": "h",
                "instances": [
                    {"name": "a", "topics": [{"topic": "orders", "partitions": [0]}]},
                    {"name": "b", "topics": []},
                ],
            },
        ]


class TestOffsets:
    async def test_of_groups(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store)
        await make_topic(store, "audit")
        place = {"topic": "audit", "partition": 1}
        for body in (place, [place], [place, place]):
            answer = await client.request("GET", "/committed/new/a?timeout=0", json=body)
            expected = [{**place, "offset": -1}] * (len(body) if isinstance(body, list) else 1)
            assert answer.json() == expected
        assert await store.groups.list_groups() == []

    async def test_by_time(self, client: httpx.AsyncClient, store: Store) -> None:
        await make_topic(store)
        times = (5, 9, 7, 12)
        await client.post(
            "/produce/orders", json=[{"value": "x", "partition": 0, "timestamp": time_ms} for time_ms in times]
        )
        body = {"topic": "orders", "partition": 0}
        expected = {"0": 0, "5": 0, "8": 1, "10": 3, "13": 4, "earliest": 0, "latest": 4, "1700000000": 4}
        for when, offset in expected.items():
            answer = await client.post(f"/offsets/{when}", json=body)
            assert answer.json() == [{**body, "offset": offset}], when
        answer = await client.request("GET", "/offsets/latest/?timeout=5", json=[{**body, "partition": 1}, body])
        assert [one["offset"] for one in answer.json()] == [0, 4]

    @pytest.mark.parametrize(
        ("path", "body", "status", "text"),
        [
            ("/offsets/first", b'{"topic":"orders","partition":0}', 400, "neither earliest nor latest"),
            ("/offsets/-1", b'{"topic":"orders","partition":0}', 400, "neither earliest nor latest"),
            ("/offsets/9007199254740992", b'{"topic":"orders","partition":0}', 400, "neither earliest nor latest"),
            ("/offsets/1?timeout=x", b'{"topic":"orders","partition":0}', 400, "timeout: 'x'"),
            ("/offsets/latest", b"", 400, "the body is empty"),
            ("/offsets/latest", b"[]", 400, "at least one topic and partition"),
            ("/offsets/latest", b"null", 400, "the body is not what it should be"),
            ("/offsets/latest", b'{"topic":"orders"}', 400, "partition"),
            ("/offsets/latest", b'{"topic":"orders","partition":2}', 404, "partitions 0 to 1"),
            ("/offsets/5", b'{"topic":"nowhere","partition":0}', 404, "topic nowhere"),
            ("/offsets", b"", 404, "no such path"),
            ("/committed/g/a", b"", 400, "the body is empty"),
            ("/committed/g/a", b"[]", 400, "at least one topic and partition"),
            ("/committed/g/a", b'[{"partition":0}]', 400, "$[0]"),
            ("/committed/g/a", b'{"topic":"orders","partition":2}', 404, "partitions 0 to 1"),
            ("/committed/g/a", b'{"topic":"nowhere","partition":0}', 404, "topic nowhere"),
            ("/committed/g/a?timeout=-1", b'{"topic":"orders","partition":0}', 400, "timeout"),
            ("/committed/%00%/a", b"", 400, "group"),
        ],
    )
    async def test_bad_requests(
        self, client: httpx.AsyncClient, store: Store, path: str, body: bytes, status: int, text: str
    ) -> None:
        await make_topic(store)
        refused(await client.post(path, content=body), status, text)


REQUESTS = [
    ("POST", "/fetch", b'{"topic":"orders","timeout":0}'),
    ("GET", "/consume/g/a/orders?timeout=0", b""),
    ("POST", "/consume/g/a", b'{"topic":"orders","timeout":0}'),
    ("POST", "/commit/g/a", b""),
    ("POST", "/commit/g/a", b'{"topic":"orders","partition":0,"offset":0}'),
    ("POST", "/committed/g/a", b'{"topic":"orders","partition":0}'),
    ("POST", "/offsets/latest", b'{"topic":"orders","partition":0}'),
    ("DELETE", "/delete-consumer/g/a", b""),
]


class TestRights:
    @pytest.fixture
    async def scoped(self, settings: Settings, store: Store) -> AsyncIterator[httpx.AsyncClient]:
        """Calls an api that knows tokens for some topics; the user name chooses nothing."""
        credentials = (
            "consume-only:orders:orders-reader-token-0001",
            "consume-only:ord*:prefix-reader-token-0001",
            "consume-only:audit:audit-reader-token-00001",
            "produce-only:*:some-producer-token-0001",
        )
        app = create_app(
            replace(settings, topic_credentials=credentials, read_only_tokens=("read-only-token-00000001",)), store
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
            yield client

    @pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
    async def test_who_may_what(
        self, scoped: httpx.AsyncClient, client: httpx.AsyncClient, store: Store, method: str, path: str, body: bytes
    ) -> None:
        await make_topic(store)
        is_looking = path.startswith(("/fetch", "/committed", "/offsets"))
        for token, is_allowed in {
            "orders-reader-token-0001": True,
            "prefix-reader-token-0001": True,
            "read-only-token-00000001": is_looking,
            "audit-reader-token-00001": False,
            "some-producer-token-0001": False,
        }.items():
            await consume(client)
            answer = await scoped.request(method, path, content=body, auth=("anybody", token))
            if is_allowed:
                assert answer.status_code == 200, answer.text
            else:
                refused(answer, 403, "forbidden")

    @pytest.mark.parametrize(("method", "path", "body"), [*REQUESTS, ("GET", "/consumers", b"")])
    async def test_without_a_credential(self, scoped: httpx.AsyncClient, method: str, path: str, body: bytes) -> None:
        wrong = base64.b64encode(b"user:wrong").decode()
        for headers in ({}, {"authorization": f"Basic {wrong}"}, {"authorization": "Bearer wrong"}):
            answer = await scoped.request(method, path, content=body, headers=headers)
            refused(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Basic")

    async def test_consumers_are_those_of_ones_topics(
        self, scoped: httpx.AsyncClient, client: httpx.AsyncClient, store: Store
    ) -> None:
        await make_topic(store)
        await make_topic(store, "audit")
        body = {"topics": ["audit", "orders"], "timeout": 0}
        await client.post("/consume/g/a", json=body)
        await client.post("/consume/h/a", json={"topic": "audit", "timeout": 0})
        seen = (await scoped.get("/consumers", auth=("u", "orders-reader-token-0001"))).json()
        assert seen == [
            {"name": "g", "instances": [{"name": "a", "topics": [{"topic": "orders", "partitions": [0, 1]}]}]}
        ]
        assert len((await scoped.get("/consumers", auth=("u", "read-only-token-00000001"))).json()) == 2
        refused(await scoped.get("/consumers", auth=("u", "some-producer-token-0001")), 403)

    async def test_an_instance_of_other_topics_too_is_not_ones_own(
        self, scoped: httpx.AsyncClient, client: httpx.AsyncClient, store: Store
    ) -> None:
        await make_topic(store)
        await make_topic(store, "audit")
        await client.post("/consume/g/a", json={"topics": ["audit", "orders"], "timeout": 0})
        for path in ("/commit/g/a", "/delete-consumer/g/a"):
            refused(await scoped.post(path, auth=("u", "orders-reader-token-0001")), 403, "audit")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("HEAD", "/consume/g/a/orders", "GET, POST"),
        ("DELETE", "/fetch", "GET, POST"),
        ("PUT", "/commit/g/a", "GET, POST"),
        ("GET", "/delete-consumer/g/a", "DELETE, POST"),
        ("POST", "/consumers", "GET"),
        ("HEAD", "/offsets/latest", "GET, POST"),
    ],
)
async def test_other_methods(client: httpx.AsyncClient, store: Store, method: str, path: str, allowed: str) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert await store.groups.list_groups() == []


async def test_a_wait_has_its_limit(settings: Settings, store: Store) -> None:
    await make_topic(store)
    app = create_app(replace(settings, max_read_wait_ms=1000), store)
    headers = {"authorization": f"Bearer {settings.token}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a", headers=headers) as client:
        answers = await asyncio.gather(
            client.post("/fetch", json={"topic": "orders", "timeout": 10**15}),
            client.get("/consume/g/a/orders?timeout=99999999"),
        )
    assert [values(answer) for answer in answers] == [[], []]


async def test_a_store_that_does_not_answer_in_time(
    client: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_topic(store)

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Reader, "find_offsets", never)
    monkeypatch.setattr(Consumer, "committed", never)
    for path in ("/offsets/latest?timeout=0", "/committed/g/a?timeout=1"):
        answer = await client.post(path, json={"topic": "orders", "partition": 0})
        refused(answer, 503)
        assert answer.headers["retry-after"] == "1"


async def test_what_is_logged(client: httpx.AsyncClient, store: Store, events: Events) -> None:
    await make_topic(store)
    await consume(client)
    await client.get("/consume/g/a/nowhere")
    logged = [(event["route"], event["status"]) for event in events() if "route" in event]
    assert logged == [("consume", 200), ("consume", 404)]
