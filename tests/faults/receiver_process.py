"""A receiver in a process of its own that writes down every request, and how it ended, at the moment it happens.

`python -m tests.faults.receiver_process <port> <ledger>`

What a request gets is said by the query of its URL: `wait=<from>-<to>` milliseconds before the answer, `fail=<n>`: the
first n attempts are answered 500. The ledger has two kinds of lines:

    arrived <number> <unix ns> <key> <message id> <retried> <path> <schedule id or ->
    ended <number> <unix ns> <status, 0 if the other end went first>

The key is that of the body (see `bodies`), for a callback the id of the message it reports.
"""

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, urlsplit

import httptools
import msgspec
import uvloop

from tests.faults.bodies import key_of
from tests.support.ledger import Ledger

_ANSWERS = {
    200: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    500: b"HTTP/1.1 500 Told to fail\r\nContent-Length: 0\r\n\r\n",
}


class _Callback(msgspec.Struct):
    source: str = msgspec.field(name="sourceMessageId")


class Book:
    """The ledger, and the numbers of requests."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = Ledger(ledger)
        self._requests = 0
        self.rng = random.Random(1)

    def arrived(self, *words: object) -> int:
        """Note a request; its number."""
        self._requests += 1
        self._ledger.record("arrived", self._requests, time.time_ns(), *words)
        return self._requests

    def ended(self, number: int, status: int) -> None:
        self._ledger.record("ended", number, time.time_ns(), status)


class RecordingProtocol(asyncio.Protocol):
    """One connection, whose requests come one after the other."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body = b""
        self._open: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._open is not None:
            self._end(0)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = {}
        self._body = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        headers = self._headers
        retried = int(headers[b"upstash-retried"])
        url = urlsplit(self._target.decode())
        told = {name: values[0] for name, values in parse_qs(url.query).items()}
        self._open = self._book.arrived(
            self._key(),
            headers[b"upstash-message-id"].decode(),
            retried,
            url.path,
            headers.get(b"upstash-schedule-id", b"-").decode(),
        )
        status = 500 if retried < int(told.get("fail", 0)) else 200
        first_ms, _, last_ms = told.get("wait", "0-0").partition("-")
        if last_ms == "0":
            self._answer(self._open, status)
        else:
            wait_ms = self._book.rng.uniform(int(first_ms), int(last_ms))
            self._loop.call_later(wait_ms / 1000, self._answer, self._open, status)

    def _key(self) -> str:
        if self._body.startswith(b"{"):
            return msgspec.json.decode(self._body, type=_Callback).source
        return key_of(self._body) or "corrupt"

    def _answer(self, number: int, status: int) -> None:
        if self._open == number and not self._transport.is_closing():
            # Written down first: whoever gets the answer may act on it before this process goes on.
            self._end(status)
            self._transport.write(_ANSWERS[status])

    def _end(self, status: int) -> None:
        assert self._open is not None
        self._book.ended(self._open, status)
        self._open = None


async def _serve(port: int, ledger: Path) -> None:
    book = Book(ledger)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: RecordingProtocol(book), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
