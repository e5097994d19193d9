"""The server on the wire: raw targets, limits, deadlines, broken and impolite clients."""

import asyncio
from typing import Any

import pytest

from qstash_clone.api.protocol import ApiProtocol
from qstash_clone.settings import Settings
from qstash_clone.storage import schedule_store
from qstash_clone.storage.store import Store
from tests.api.conftest import RunningServer
from tests.api.raw import Answer, Connection
from tests.conftest import TOKEN
from tests.support.eventually import eventually

AUTH = f"Authorization: Bearer {TOKEN}\r\n".encode()
OVERSIZE = 1_048_577


def publish(target: bytes = b"/v2/publish/https://e.com/", body: bytes = b"hi", headers: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST " + target + b" HTTP/1.1\r\nHost: api\r\n" + AUTH + headers + length + b"\r\n" + body


async def once(server: RunningServer, data: bytes) -> Answer:
    async with await server.connect() as connection:
        return await connection.exchange(data)


async def waiting_messages(store: Store) -> int:
    stats = await store.admin.stats()
    return stats.ready + stats.waiting_timers + stats.lanes_waiting


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("/v2/publish/https://e.com/p?q=1", "https://e.com/p?q=1"),
        ("//v2/publish/https://e.com/p", "https://e.com/p"),
        ("/V2/PUBLISH/https://e.com/p", "https://e.com/p"),
        ("/v2/publish/https://e.com//a//b/", "https://e.com//a//b/"),
        ("/v2/publish/https://e.com/a/../b/./c", "https://e.com/a/../b/./c"),
        ("/v2/publish/https://e.com/a%2Fb%20c", "https://e.com/a%2Fb%20c"),
        ("/v2/publish/https%3A%2F%2Fe.com%2Fp%3Fq%3D1?x=2", "https://e.com/p?q=1&x=2"),
        ("/v2/publish/https:/e.com/p", "https://e.com/p"),
        ("/v2/publish/http://[::1]:3000/p", "http://[::1]:3000/p"),
        ("/v2/publish/https://e.com/p?a=?b&c=/d", "https://e.com/p?a=?b&c=/d"),
        ("http://api:8080/v2/publish/https://e.com/p?q=1", "https://e.com/p?q=1"),
    ],
)
async def test_the_raw_target_survives(server: RunningServer, target: str, url: str) -> None:
    answer = await once(server, publish(target.encode()))
    assert (answer.status, answer.json.get("url")) == (200, url), answer.body


@pytest.mark.parametrize("target", [b"/v2/keys", b"//v2/keys", b"/V2/KEYS", b"http://api/v2/keys"])
async def test_other_routes_work_on_the_raw_target_too(server: RunningServer, target: bytes) -> None:
    assert (await once(server, b"GET " + target + b" HTTP/1.1\r\nHost: api\r\n" + AUTH + b"\r\n")).status == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/v2/publish/https://e.com/#a", 400),
        (b"/v2/publish/https://e.com/?a#b", 400),
        (b"/v2/publish/https://e.com/\xc3\xa9", 400),
        (b"/v2/publish/https://e.com/\xff", 400),
        (b"http://api", 404),
        (b"http://api?x", 404),
        (b"/v2/messages/a%2Fb", 404),
    ],
)
async def test_a_strange_target_is_refused(server: RunningServer, store: Store, target: bytes, status: int) -> None:
    answer = await once(server, publish(target).replace(b"POST", b"GET" if status == 404 else b"POST"))
    assert answer.status == status
    assert answer.error
    assert await waiting_messages(store) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\x00c\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT e.com:443 HTTP/1.1\r\nHost: e.com\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_what_is_no_http_gets_a_400_in_json(server: RunningServer, data: bytes) -> None:
    async with await server.connect() as connection:
        answer = await connection.exchange(data)
        assert answer.status == 400
        assert answer.error
        assert answer.headers["connection"] == "close"
        assert answer.headers["x-request-id"]
        assert await connection.is_closed()


async def test_common_headers(server: RunningServer) -> None:
    answer = await once(server, publish())
    assert answer.headers["server"] == "qstash-clone"
    assert answer.headers["date"].endswith(" GMT")
    assert answer.headers["content-type"] == "application/json"


SCHEDULES = b"GET /v2/schedules HTTP/1.1\r\nHost: api\r\n" + AUTH + b"\r\n"


@pytest.mark.parametrize("count", [0, 3])
async def test_an_answer_of_unknown_length_leaves_the_connection_usable(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(schedule_store, "READ_TOGETHER", 1)
    create = publish(b"/v2/schedules/https://e.com/", headers=b"Upstash-Cron: 0 * * * *\r\n")
    async with await server.connect() as connection:
        ids = {(await connection.exchange(create)).json["scheduleId"] for _ in range(count)}
        for _ in range(2):
            answer = await connection.exchange(SCHEDULES)
            assert answer.status == 200
            assert "content-length" not in answer.headers
            assert len(answer.json) == count
            assert {each["scheduleId"] for each in answer.json} == ids


async def test_the_head_of_an_answer_of_unknown_length_comes_alone(server: RunningServer) -> None:
    async with await server.connect() as connection:
        await connection.send(SCHEDULES.replace(b"GET", b"HEAD"))
        assert (await connection.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert (await connection.exchange(publish())).status == 200


async def test_an_answer_of_unknown_length_ends_with_the_connection_in_http_1_0(server: RunningServer) -> None:
    async with await server.connect() as connection:
        await connection.send(SCHEDULES.replace(b"HTTP/1.1", b"HTTP/1.0"))
        head, _, body = (await connection.reader.read()).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"transfer-encoding" not in head
    assert body == b"[]"


@pytest.mark.parametrize(
    "head",
    [
        b"".join(b"X-%d: 1\r\n" % number for number in range(300)),
        b"X: " + b"a" * 70_000 + b"\r\n",
        b"X" * 70_000 + b": a\r\n",
        b"".join(b"X-%d: %b\r\n" % (number, b"a" * 1000) for number in range(100)),
    ],
    ids=["many", "long value", "long name", "large together"],
)
async def test_too_many_headers_are_a_431(server: RunningServer, store: Store, head: bytes) -> None:
    async with await server.connect() as connection:
        answer = await connection.exchange(publish(headers=head))
        assert answer.status == 431
        assert "256 headers" in answer.error or "65536 bytes" in answer.error
        assert await connection.is_closed()
    assert await waiting_messages(store) == 0


async def test_a_long_target_is_a_431(server: RunningServer) -> None:
    assert (await once(server, publish(b"/v2/publish/https://e.com/" + b"a" * 70_000))).status == 431


async def test_headers_up_to_the_limit_are_fine(server: RunningServer) -> None:
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(253))
    assert (await once(server, publish(headers=many))).status == 200
    large = b"X: " + b"a" * 65_000 + b"\r\n"
    assert (await once(server, publish(headers=large))).status == 200


async def test_twenty_megabytes_of_headers_get_their_answer(server: RunningServer) -> None:
    """The answer must reach a client that is still sending, and the rest must not be kept."""
    async with await server.connect() as connection:
        await connection.send(b"POST / HTTP/1.1\r\nX: ")
        for _ in range(20):
            await connection.send(b"a" * 1_000_000)
        assert (await connection.receive()).status == 431


async def test_a_client_that_never_stops_sending_is_cut_off(server: RunningServer) -> None:
    server.config.discard_bytes = 100_000
    async with await server.connect() as connection:
        with pytest.raises(ConnectionError):  # noqa: PT012 (how many are taken is up to the kernel's buffers)
            for _ in range(1000):
                await connection.send(b"a" * 100_000)


async def test_headers_in_small_pieces(server: RunningServer) -> None:
    data = publish(headers=b"X: " + b"a" * 2000 + b"\r\n", body=b"b" * 1000)
    async with await server.connect() as connection:
        for start in range(0, len(data), 100):
            await connection.send(data[start : start + 100])
            await asyncio.sleep(0)
        assert (await connection.receive()).status == 200


async def test_trailers_change_nothing(server: RunningServer, store: Store) -> None:
    head = b"POST /v2/publish/https://e.com/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    trailers = b"Upstash-Delay: 1h\r\n" + AUTH
    async with await server.connect() as connection:
        assert (await connection.exchange(head + b"\r\n2\r\nhi\r\n0\r\n" + trailers + b"\r\n")).status == 401
        answer = await connection.exchange(head + AUTH + b"\r\n2\r\nhi\r\n0\r\n" + trailers + b"\r\n")
        assert answer.status == 200
    stats = await store.admin.stats()
    assert stats.waiting_timers == 0


async def test_endless_trailers_are_refused(server: RunningServer, store: Store) -> None:
    head = b"POST /v2/publish/https://e.com/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + AUTH
    async with await server.connect() as connection:
        await connection.send(head + b"\r\n2\r\nhi\r\n0\r\nX: ")
        for _ in range(10):
            await connection.send(b"a" * 50_000)
        assert (await connection.receive()).status == 400
    assert await waiting_messages(store) == 0


async def test_a_chunked_body_arrives_whole(server: RunningServer) -> None:
    head = b"POST /v2/publish/https://e.com/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + AUTH + b"\r\n"
    body = b"".join(b"1\r\n%c\r\n" % (97 + number % 26) for number in range(20_000)) + b"0\r\n\r\n"
    async with await server.connect() as connection:
        answer = await connection.exchange(head + body)
        get = b"GET /v2/messages/%b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (answer.json["messageId"].encode(), AUTH)
        shown = await connection.exchange(get)
    assert shown.json["body"] == "".join(chr(97 + number % 26) for number in range(20_000))


async def test_a_large_body_arrives_whole(server: RunningServer) -> None:
    body = bytes(range(256)) * 4096
    answer = await once(server, publish(body=body))
    assert answer.status == 200
    assert (await once(server, publish(body=body + b"x"))).status == 413


@pytest.mark.parametrize("cut", [b"Content-Length: 100\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n64\r\nhalf"])
async def test_a_body_that_is_cut_off_stores_nothing(server: RunningServer, store: Store, cut: bytes) -> None:
    async with await server.connect() as connection:
        await connection.send(b"POST /v2/publish/https://e.com/ HTTP/1.1\r\nHost: a\r\n" + AUTH + cut)
    await eventually(lambda: not server.server.server_state.connections and not server.server.server_state.tasks)
    assert await waiting_messages(store) == 0


async def test_a_broken_chunk_stores_nothing(server: RunningServer, store: Store) -> None:
    head = b"POST /v2/publish/https://e.com/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + AUTH + b"\r\n"
    async with await server.connect() as connection:
        await connection.send(head + b"2\r\nhi\r\n")
        await eventually(lambda: server.server.server_state.tasks)
        answer = await connection.exchange(b"zz\r\n")
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert await connection.is_closed()
    assert await waiting_messages(store) == 0


async def test_expect_100_continue(server: RunningServer) -> None:
    async with await server.connect() as connection:
        request = publish(headers=b"Expect: 100-continue\r\n")
        await connection.send(request[:-2])
        assert (await connection.receive()).status == 100
        assert (await connection.exchange(b"hi")).status == 200
        assert (await connection.exchange(publish())).status == 200


async def test_expect_100_continue_of_a_body_that_is_too_large(server: RunningServer) -> None:
    """The refusal comes instead of `100 Continue`, and ends the connection, for the body may come or not."""
    head = (
        b"POST /v2/publish/https://e.com/ HTTP/1.1\r\nHost: a\r\n%bExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    )
    async with await server.connect() as connection:
        answer = await connection.exchange(head % (AUTH, OVERSIZE))
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert await connection.is_closed()


async def test_a_refused_body_leaves_the_connection_usable(server: RunningServer) -> None:
    async with await server.connect() as connection:
        assert (await connection.exchange(publish(body=b"x" * OVERSIZE))).status == 413
        assert (await connection.exchange(publish(body=b"x" * 500_000).replace(TOKEN.encode(), b"no"))).status == 401
        assert (await connection.exchange(publish())).status == 200


async def test_a_refused_body_is_answered_before_it_was_sent(server: RunningServer) -> None:
    head = b"POST /v2/publish/https://e.com/ HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n" % (AUTH, 10**12)
    async with await server.connect() as connection:
        assert (await connection.exchange(head + b"x")).status == 413


async def test_pipelined_requests_are_answered_in_order(server: RunningServer) -> None:
    urls = [f"https://e.com/{number}" for number in range(50)]
    async with await server.connect() as connection:
        await connection.send(b"".join(publish(f"/v2/publish/{url}".encode()) for url in urls))
        answers = [await connection.receive() for _ in urls]
    assert [answer.json["url"] for answer in answers] == urls


async def test_rubbish_after_a_request_does_not_take_its_answer(server: RunningServer) -> None:
    async with await server.connect() as connection:
        await connection.send(publish() + publish() + b"\x00rubbish\r\n\r\n")
        assert [(await connection.receive()).status for _ in range(3)] == [200, 200, 400]
        assert await connection.is_closed()


async def test_a_broken_second_body_does_not_take_the_first_answer(server: RunningServer, store: Store) -> None:
    broken = b"POST /v2/publish/https://e.com/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n!\r\n"
    async with await server.connect() as connection:
        await connection.send(publish() + broken)
        assert [(await connection.receive()).status for _ in range(2)] == [200, 400]
        assert await connection.is_closed()


async def test_connection_close_is_honoured(server: RunningServer) -> None:
    for request in (
        publish(headers=b"Connection: close\r\n") + publish(),
        publish().replace(b"HTTP/1.1", b"HTTP/1.0"),
        publish(headers=b"Connection: close\r\n", body=b"x" * OVERSIZE),
    ):
        async with await server.connect() as connection:
            answer = await connection.exchange(request)
            assert (answer.status, answer.headers["connection"]) in ((200, "close"), (413, "close"))
            assert await connection.is_closed()


async def test_a_client_that_is_done_sending_gets_its_answer(server: RunningServer) -> None:
    async with await server.connect() as connection:
        connection.writer.write(publish() + publish())
        connection.writer.write_eof()
        assert [(await connection.receive()).status for _ in range(2)] == [200, 200]
        assert await connection.is_closed()


async def test_an_upgrade_is_ignored(server: RunningServer) -> None:
    """Java's client asks for HTTP/2 in this way on its first request, body included."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    async with await server.connect() as connection:
        chunked = publish(headers=upgrade + b"Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 2\r\n", b"")
        for request in (
            publish(headers=upgrade),
            publish(headers=upgrade) + publish(),
            chunked.replace(b"\r\n\r\nhi", b"\r\n\r\n2\r\nhi\r\n0\r\n\r\n") + publish(),
        ):
            await connection.send(request)
            for _ in range(request.count(b"POST")):
                message_id = (await connection.receive()).json["messageId"].encode()
                get = b"GET /v2/messages/%b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (message_id, AUTH)
                assert (await once(server, get)).json["body"] == "hi"
        get = b"GET /livez HTTP/1.1\r\nHost: a\r\n" + upgrade + b"\r\n"
        assert [(await connection.exchange(get)).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked, gzip"])
async def test_an_upgrade_excuses_no_wrong_framing(server: RunningServer, framing: bytes) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    answer = await once(server, b"POST /livez HTTP/1.1\r\nHost: a\r\n" + upgrade + framing + b"\r\n\r\n")
    assert (answer.status, answer.error) == (400, "the request is not valid HTTP")


async def test_any_number_of_upgrades_may_arrive_at_once(server: RunningServer) -> None:
    get = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    async with await server.connect() as connection:
        await connection.send(get * 2000)
        assert {(await connection.receive()).status for _ in range(2000)} == {200}


async def test_head_has_a_length_and_no_body(server: RunningServer) -> None:
    async with await server.connect() as connection:
        await connection.send(b"HEAD /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 15" in head
        assert (await connection.exchange(publish())).status == 200


async def test_a_slow_head_is_ended(server: RunningServer) -> None:
    server.config.head_timeout_s = 0.2
    async with await server.connect() as connection:
        await connection.send(b"POST /v2/publish/https://e.com HTTP/1.1\r\nHost: a\r\nX-A: ")
        answer = await connection.receive()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert await connection.is_closed()


async def test_a_dripping_head_is_ended_too(server: RunningServer) -> None:
    server.config.head_timeout_s = 0.3
    async with await server.connect() as connection:
        await connection.send(b"GET / HTTP/1.1\r\n")
        dripping = asyncio.ensure_future(_drip(connection, b"X: y\r\n"))
        answer = await connection.receive()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        assert answer.status == 408


async def test_a_slow_body_is_ended(server: RunningServer, store: Store) -> None:
    server.config.body_timeout_s = 0.2
    async with await server.connect() as connection:
        await connection.send(publish(body=b"hello")[:-1])
        assert (await connection.receive()).status == 408
        assert await connection.is_closed()
    await eventually(lambda: not server.server.server_state.tasks)
    assert await waiting_messages(store) == 0


async def test_a_mute_connection_is_closed(server: RunningServer) -> None:
    server.config.head_timeout_s = 0.2
    async with await server.connect() as connection:
        assert await connection.is_closed()


async def test_an_idle_connection_is_closed(server: RunningServer) -> None:
    server.config.keep_alive_s = 0.2
    async with await server.connect() as connection:
        assert (await connection.exchange(publish())).status == 200
        assert await connection.is_closed()


async def test_a_refused_client_that_stays_is_dropped(server: RunningServer) -> None:
    server.config.linger_s = 0.2
    async with await server.connect() as connection:
        assert (await connection.exchange(b"rubbish\r\n\r\n")).status == 400
        assert await connection.is_closed()
        await eventually(lambda: not server.server.server_state.connections)


async def test_a_client_that_does_not_read_is_dropped(server: RunningServer) -> None:
    server.config.write_timeout_s = 0.2
    answer = await once(server, publish(body=b"x" * 1_000_000))
    get = b"GET /v2/messages/%b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (answer.json["messageId"].encode(), AUTH)
    async with await server.connect() as connection:
        await connection.send(get * 30)
        await eventually(lambda: not server.server.server_state.connections)
    await eventually(lambda: not server.server.server_state.tasks)


async def test_a_client_that_reads_late_gets_everything(server: RunningServer) -> None:
    answer = await once(server, publish(body=b"x" * 1_000_000))
    get = b"GET /v2/messages/%b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (answer.json["messageId"].encode(), AUTH)
    async with await server.connect() as connection:
        await connection.send(get * 10)
        connections: list[object] = list(server.server.server_state.connections)
        protocols = [item for item in connections if isinstance(item, ApiProtocol)]
        await eventually(lambda: any(item.flow.write_paused for item in protocols))
        answers = [await connection.receive() for _ in range(10)]
        assert {len(answer.json["body"]) for answer in answers} == {1_000_000}
        assert (await connection.exchange(publish())).status == 200


async def test_a_stop_lets_requests_finish(settings: Settings, server: RunningServer, store: Store) -> None:
    async with await server.connect() as busy, await server.connect() as idle:
        assert (await idle.exchange(publish())).status == 200
        request = publish()
        await busy.send(request[:-1])
        await eventually(lambda: server.server.server_state.tasks)
        server.server.should_exit = True
        assert await idle.is_closed()
        answer = await busy.exchange(request[-1:])
        assert (answer.status, answer.headers["connection"]) == (200, "close")
    await server.task


async def _drip(connection: Connection, data: bytes) -> Any:
    while True:
        await connection.send(data)
        await asyncio.sleep(0.02)
