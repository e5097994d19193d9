"""Connections: reused, bounded, replaced when stale, closed when cut off."""

import asyncio

import pytest

from qstash_clone.domain.egress import EgressPolicy
from tests.support.eventually import eventually
from tests.support.receiver import CLOSE, HANG, RESET, RawReply, Receiver, Reply, Then
from tests.worker.transport.requests import TIMEOUT_MS, post
from worker.transport import AiohttpTransport

ANYWHERE = EgressPolicy(allow_private=True)


async def test_a_connection_serves_one_request_after_the_other(receiver: Receiver, transport: AiohttpTransport) -> None:
    for status in (200, 500, 302, 204):
        receiver.respond(status)
        await transport.send(post(f"{receiver.url}/{status}"), TIMEOUT_MS)
    assert [request.connection for request in receiver.requests] == [0, 0, 0, 0]


async def test_requests_at_once_use_connections_of_their_own(receiver: Receiver, transport: AiohttpTransport) -> None:
    may_answer = asyncio.Event()
    receiver.always(Reply(after=may_answer))
    sending = [asyncio.ensure_future(transport.send(post(receiver.url), TIMEOUT_MS)) for _ in range(150)]
    await receiver.wait_for(150)
    may_answer.set()
    assert {result.status for result in await asyncio.gather(*sending)} == {200}
    assert receiver.connections == 150


async def test_idle_connections_are_bounded(receiver: Receiver) -> None:
    may_answer = asyncio.Event()
    receiver.always(Reply(after=may_answer))
    async with AiohttpTransport(egress=ANYWHERE, max_idle_connections=3) as transport:
        sending = [asyncio.ensure_future(transport.send(post(receiver.url), TIMEOUT_MS)) for _ in range(10)]
        await receiver.wait_for(10)
        may_answer.set()
        await asyncio.gather(*sending)
        await eventually(lambda: receiver.open_connections == 3)
        assert (await transport.send(post(receiver.url), TIMEOUT_MS)).status == 200
        assert receiver.connections == 10


async def test_a_connection_that_the_server_closed_while_idle_is_not_used(
    receiver: Receiver, transport: AiohttpTransport
) -> None:
    await transport.send(post(receiver.url), TIMEOUT_MS)
    await receiver.drop_connections()
    assert (await transport.send(post(receiver.url), TIMEOUT_MS)).status == 200
    assert [request.connection for request in receiver.requests] == [0, 1]


@pytest.mark.parametrize("ending", [CLOSE, RESET])
async def test_a_stale_connection_is_replaced_within_the_attempt(
    receiver: Receiver, transport: AiohttpTransport, ending: RawReply
) -> None:
    receiver.script(Reply(), ending, Reply(body=b"fresh"))
    await transport.send(post(receiver.url), TIMEOUT_MS)
    result = await transport.send(post(receiver.url), TIMEOUT_MS)
    assert (result.status, result.body) == (200, b"fresh")
    assert [request.connection for request in receiver.requests] == [0, 0, 1]


async def test_the_replacement_is_a_new_connection_and_the_only_one(
    receiver: Receiver, transport: AiohttpTransport
) -> None:
    may_answer = asyncio.Event()
    receiver.always(Reply(after=may_answer))
    sending = [asyncio.ensure_future(transport.send(post(receiver.url), TIMEOUT_MS)) for _ in range(3)]
    await receiver.wait_for(3)
    may_answer.set()
    await asyncio.gather(*sending)
    receiver.forget()
    receiver.always(CLOSE)
    result = await transport.send(post(receiver.url), TIMEOUT_MS)
    assert result.error == "destination closed the connection without a complete answer"
    assert len(receiver.requests) == 2
    assert receiver.requests[0].connection in range(3)
    assert receiver.requests[1].connection == 3


async def test_a_new_connection_that_breaks_is_not_replaced(receiver: Receiver, transport: AiohttpTransport) -> None:
    receiver.script(CLOSE)
    assert (await transport.send(post(receiver.url), TIMEOUT_MS)).status == 0
    assert len(receiver.requests) == 1


async def test_a_connection_that_breaks_late_is_not_replaced(receiver: Receiver) -> None:
    # Then the destination has worked on the request, and its breakdown is the result of the attempt.
    receiver.script(Reply(), CLOSE)
    async with AiohttpTransport(egress=ANYWHERE, stale_window_s=-1) as transport:
        await transport.send(post(receiver.url), TIMEOUT_MS)
        assert (await transport.send(post(receiver.url), TIMEOUT_MS)).status == 0
    assert len(receiver.requests) == 2


async def test_a_connection_that_breaks_within_its_answer_is_not_replaced(
    receiver: Receiver, transport: AiohttpTransport
) -> None:
    receiver.script(Reply(), RawReply(data=b"HTTP/1.1 200 OK\r\nContent-"))
    await transport.send(post(receiver.url), TIMEOUT_MS)
    assert (await transport.send(post(receiver.url), TIMEOUT_MS)).status == 0
    assert len(receiver.requests) == 2


async def test_the_replacement_stays_within_the_time_limit(receiver: Receiver, transport: AiohttpTransport) -> None:
    receiver.script(Reply(), CLOSE, HANG)
    await transport.send(post(receiver.url), TIMEOUT_MS)
    result = await transport.send(post(receiver.url), 150)
    assert result.error == "no complete answer within 0.15 s"


async def test_a_connection_is_not_reused_if_the_server_asks_to_close(
    receiver: Receiver, transport: AiohttpTransport
) -> None:
    receiver.always(Reply(headers=(("Connection", "close"),)))
    for _ in range(2):
        await transport.send(post(receiver.url), TIMEOUT_MS)
    assert receiver.connections == 2


async def test_a_connection_is_not_reused_after_bytes_that_nobody_asked_for(
    receiver: Receiver, transport: AiohttpTransport
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    smuggled = b"HTTP/1.1 299 Forged\r\nContent-Length: 0\r\n\r\n"
    receiver.script(RawReply(data=answer + smuggled, then=Then.KEEP))
    statuses = [(await transport.send(post(receiver.url), TIMEOUT_MS)).status for _ in range(2)]
    assert 299 not in statuses


async def test_an_answer_before_the_request_was_read_ends_the_connection(transport: AiohttpTransport) -> None:
    connections = 0
    finished = asyncio.Event()

    async def refuse_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await finished.wait()
        writer.close()

    server = await asyncio.start_server(refuse_early, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    for _ in range(2):
        result = await transport.send(post(url, b"x" * 30_000_000), TIMEOUT_MS)
        assert result.status == 413
    assert connections == 2
    finished.set()
    server.close()
    await server.wait_closed()


async def test_a_request_that_nobody_reads_is_dropped_with_its_attempt(transport: AiohttpTransport) -> None:
    body = b"x" * 30_000_000
    may_read = asyncio.Event()
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_read.wait()
        try:
            received.set_result(await reader.read(-1))
        except ConnectionError:
            received.set_result(b"")
        writer.close()

    server = await asyncio.start_server(read_late, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    result = await transport.send(post(url, body), 150)
    assert result.error == "no complete answer within 0.15 s"
    may_read.set()
    assert len(await received) < len(body)
    server.close()
    await server.wait_closed()


async def test_a_cancelled_delivery_closes_its_connection(receiver: Receiver, transport: AiohttpTransport) -> None:
    receiver.script(HANG)
    sending = asyncio.ensure_future(transport.send(post(receiver.url), TIMEOUT_MS))
    await receiver.wait_for(1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await eventually(lambda: receiver.open_connections == 0)


async def test_closing_the_transport_closes_idle_connections(receiver: Receiver) -> None:
    async with AiohttpTransport(egress=ANYWHERE) as transport:
        await transport.send(post(receiver.url), TIMEOUT_MS)
        assert receiver.open_connections == 1
    await eventually(lambda: receiver.open_connections == 0)


async def test_a_hanging_destination_does_not_hold_up_another(receiver: Receiver, transport: AiohttpTransport) -> None:
    async with Receiver() as hanging:
        hanging.always(HANG)
        stuck = [asyncio.ensure_future(transport.send(post(hanging.url), TIMEOUT_MS)) for _ in range(50)]
        await hanging.wait_for(50)
        assert (await transport.send(post(receiver.url), TIMEOUT_MS)).status == 200
        for sending in stuck:
            sending.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
