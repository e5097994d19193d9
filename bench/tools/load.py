"""Sends requests: as fast as they are answered, or one now and then; requests are bytes made beforehand."""

import asyncio
import random
import re
import time
from collections.abc import Callable
from typing import Any, cast

from bench.report import BenchFailure, percentile
from bench.tools.channel import serve
from bench.tools.samples import BODY_BYTES, NUMBER, STAMP_DIGITS

_MESSAGE_ID = re.compile(rb'"messageId": ?"([^"]+)"')
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_ANSWER_PATIENCE_S = 15.0


class Connection(asyncio.Protocol):
    """One connection; `on_answer(status line and headers, body)` is called for each answer."""

    def __init__(self, on_answer: Callable[["Connection", int, bytes], None]) -> None:
        self._on_answer = on_answer
        self._buffer = b""
        self._head_end = -1
        self._total_bytes = 0
        self.transport: asyncio.Transport | None = None
        self.sent_ns = 0
        self.is_lost = False
        """Ended by the other side or by `close`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: the transports of uvloop are of another family.
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._on_answer(self, 0, b"")

    def close(self) -> None:
        """End the connection; nothing is reported of it any more."""
        self.is_lost = True
        assert self.transport is not None
        self.transport.close()

    def send(self, request: bytes) -> None:
        assert self.transport is not None
        self.sent_ns = time.perf_counter_ns()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        if self._head_end < 0:
            self._head_end = buffer.find(b"\r\n\r\n")
            if self._head_end < 0:
                return
            at = buffer.find(b"\r\ncontent-length: ", 0, self._head_end)
            if at >= 0:
                length = int(buffer[at + 18 : buffer.find(b"\r\n", at + 18)])
            else:
                found = _LENGTH.search(buffer, 0, self._head_end + 2)
                assert found is not None, "an answer without a length"
                length = int(found[1])
            self._total_bytes = self._head_end + 4 + length
        if len(buffer) < self._total_bytes:
            return
        body = buffer[self._head_end + 4 : self._total_bytes]
        self._buffer, self._head_end = b"", -1
        self._on_answer(self, int(buffer[9:12]), body)


async def _connect(port: int, on_answer: Callable[[Connection, int, bytes], None]) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(on_answer), "127.0.0.1", port)
    return connection


class _ClosedLoop:
    """Each connection sends its next request when the last one was answered."""

    def __init__(self, request: bytes) -> None:
        self._pieces = request.split(NUMBER.encode(), 1)
        # Another process, or another call of this one, begins elsewhere.
        self._number = time.time_ns()
        self._ends_ns = 0
        self._open = 0
        self._done = asyncio.get_running_loop().create_future()
        self.answers: list[tuple[int, int, bytes]] = []
        """When, after how long, body."""
        self.refused: dict[int, int] = {}

    async def run(self, port: int, connections: int, seconds: float) -> None:
        opened = [await _connect(port, self._answered) for _ in range(connections)]
        self._open = connections
        self._ends_ns = time.perf_counter_ns() + round(seconds * 1e9)
        for connection in opened:
            connection.send(self._request())
        async with asyncio.timeout(seconds + _ANSWER_PATIENCE_S):
            await self._done

    def _request(self) -> bytes:
        if len(self._pieces) == 1:
            return self._pieces[0]
        self._number += 1
        return b"%b%020d%b" % (self._pieces[0], self._number, self._pieces[1])

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        now_ns = time.perf_counter_ns()
        if status == 200:
            self.answers.append((now_ns, now_ns - connection.sent_ns, body))
        else:
            self.refused[status] = self.refused.get(status, 0) + 1
        if now_ns < self._ends_ns and not connection.is_lost:
            connection.send(self._request())
            return
        self._open -= 1
        connection.close()
        if not self._open:
            self._done.set_result(None)


async def closed(arguments: dict[str, Any]) -> dict[str, Any]:
    """`connections` send `request` to `port` for `warm_up_s` and then `seconds`, of which rate and latency are told.

    Where the request holds `NUMBER`, each one sent has a number of its own there. `word` is counted in what is answered
    meanwhile.
    """
    warm_up_s, seconds = float(arguments["warm_up_s"]), float(arguments["seconds"])
    loop = _ClosedLoop(str(arguments["request"]).encode("latin-1"))
    started_ns = time.perf_counter_ns() + round(warm_up_s * 1e9)
    await loop.run(int(arguments["port"]), int(arguments["connections"]), warm_up_s + seconds)
    ended_ns = started_ns + round(seconds * 1e9)
    timely = [answer for answer in loop.answers if started_ns <= answer[0] < ended_ns]
    measured = [latency_ns for _, latency_ns, _ in timely]
    word = str(arguments.get("word", ""))
    if not measured:
        raise BenchFailure(f"no request was answered with 200 in {seconds:g} s; others, by status: {loop.refused}")
    return {
        "answered": len(loop.answers),
        "refused": loop.refused,
        "per_second": len(measured) / seconds,
        "p50_ms": percentile(measured, 0.5) / 1e6,
        "p99_ms": percentile(measured, 0.99) / 1e6,
        "words_per_second": sum(body.count(word.encode()) for _, _, body in timely) / seconds if word else 0,
        "message_ids": [found.decode() for _, _, body in loop.answers for found in _MESSAGE_ID.findall(body)],
    }


def _id_in(body: bytes) -> str:
    found = _MESSAGE_ID.search(body)
    return "" if found is None else found[1].decode()


async def paced(arguments: dict[str, Any]) -> dict[str, Any]:
    """`count` requests on one connection, each alone, `gap_ms` apart on average and never in step with anything.

    The first `STAMP_DIGITS` bytes of each body are the time it is sent at.
    """
    request = str(arguments["request"]).encode("latin-1")
    before, after = request[:-BODY_BYTES], request[-BODY_BYTES + STAMP_DIGITS :]
    gap_s = float(arguments["gap_ms"]) / 1000
    rng = random.Random(7)
    answer: asyncio.Future[tuple[int, bytes]] | None = None
    latencies_ns: list[int] = []
    message_ids: list[str] = []
    refused = 0

    def answered(connection: Connection, status: int, body: bytes) -> None:
        if answer is not None and not answer.done():
            latencies_ns.append(time.perf_counter_ns() - connection.sent_ns)
            answer.set_result((status, body))

    connection = await _connect(int(arguments["port"]), answered)
    for _ in range(int(arguments["count"])):
        answer = asyncio.get_running_loop().create_future()
        connection.send(b"%b%020d%b" % (before, time.time_ns(), after))
        async with asyncio.timeout(_ANSWER_PATIENCE_S):
            status, body = await answer
        if status == 200:
            message_ids.append(_id_in(body))
        else:
            refused += 1
        await asyncio.sleep(gap_s * rng.uniform(0.5, 1.5))
    connection.close()
    if not message_ids:
        raise BenchFailure(f"no request was answered with 200, but {refused} otherwise")
    return {
        "answered": len(message_ids),
        "refused": refused,
        "p50_ms": percentile(latencies_ns, 0.5) / 1e6,
        "p99_ms": percentile(latencies_ns, 0.99) / 1e6,
        "message_ids": message_ids,
    }


if __name__ == "__main__":
    serve(lambda: {"closed": closed, "paced": paced})
