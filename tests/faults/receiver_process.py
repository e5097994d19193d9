"""A receiver in a process of its own that writes every arrival into a ledger before it answers, some time later.

`python -m tests.faults.receiver_process <port> <ledger> <shortest answer ms> <longest answer ms>`
"""

import asyncio
import random
import sys
from pathlib import Path
from typing import cast

import httptools

from tests.faults.bodies import key_of
from tests.support.ledger import Ledger


class RecordingProtocol(asyncio.Protocol):
    """One connection; answers in the order of the requests."""

    def __init__(self, ledger: Ledger, delays_s: tuple[float, float], rng: random.Random) -> None:
        self._ledger = ledger
        self._delays_s = delays_s
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._headers = {}
        self._body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        message_id = self._headers[b"upstash-message-id"].decode()
        retried = self._headers[b"upstash-retried"].decode()
        self._ledger.record("arrived", key_of(self._body) or "corrupt", message_id, retried)
        self._loop.call_later(self._rng.uniform(*self._delays_s), self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def _serve(port: int, ledger: Path, delays_s: tuple[float, float]) -> None:
    book, rng = Ledger(ledger), random.Random(1)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: RecordingProtocol(book, delays_s, rng), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2]), (int(sys.argv[3]) / 1000, int(sys.argv[4]) / 1000)))
