"""Receives deliveries and keeps them; only afterwards are they counted and their signatures verified.

While messages arrive a request costs one search for the end of its head, so that the receiver is never the slowest
part; `collect` then looks at every request that arrived.
"""

import asyncio
import hashlib
import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, cast

import msgspec

from bench.tools.channel import serve
from bench.tools.samples import BODY_BYTES, STAMP_DIGITS

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class Listener:
    """One destination: a port, and how it treats its callers."""

    def __init__(self, *, delay_s: float, hangs: bool) -> None:
        self.delay_s = delay_s
        self.hangs = hangs
        self.server: asyncio.Server | None = None
        self.arrived: list[tuple[int, bytes]] = []
        """When, and all bytes of the request."""
        self.open = 0
        self.most_open = 0
        self.expected = 0
        self.complete: asyncio.Future[None] | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.sockets[0].getsockname()[1])

    def take(self, request: bytes) -> None:
        self.arrived.append((time.time_ns(), request))
        if self.complete is not None and len(self.arrived) >= self.expected and not self.complete.done():
            self.complete.set_result(None)


class Caller(asyncio.Protocol):
    """One connection of a worker."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: the transports of uvloop are of another family.
        self._transport = cast("asyncio.Transport", transport)
        self._listener.open += 1
        self._listener.most_open = max(self._listener.most_open, self._listener.open)

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.open -= 1

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while True:
            head_end = buffer.find(b"\r\n\r\n")
            if head_end < 0:
                break
            at = buffer.find(b"\r\nContent-Length: ", 0, head_end)
            length = int(buffer[at + 18 : buffer.find(b"\r\n", at + 18)]) if at >= 0 else 0
            total = head_end + 4 + length
            if len(buffer) < total:
                break
            self._listener.take(buffer[:total])
            buffer = buffer[total:]
            self._answer()
        self._buffer = buffer

    def _answer(self) -> None:
        listener = self._listener
        if listener.hangs:
            return
        if listener.delay_s:
            asyncio.get_running_loop().call_later(listener.delay_s, self._write)
        else:
            self._write()

    def _write(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_ANSWER)


class Receiver:
    """The commands of this tool."""

    def __init__(self) -> None:
        self._listeners: dict[str, Listener] = {}

    async def listen(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """A new destination `name`, which answers after `delay_ms` or `hangs`; returns its port."""
        listener = Listener(delay_s=float(arguments.get("delay_ms", 0)) / 1000, hangs=bool(arguments.get("hangs")))
        loop = asyncio.get_running_loop()
        listener.server = await loop.create_server(lambda: Caller(listener), "127.0.0.1", 0, backlog=1024)
        self._listeners[str(arguments["name"])] = listener
        return {"port": listener.port}

    async def reset(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Forget what has arrived."""
        for listener in self._listeners.values():
            listener.arrived.clear()
            listener.most_open = listener.open
        return {}

    async def expect(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Wait until `count` requests have arrived at `name`, at most `patience_s`."""
        listener = self._listeners[str(arguments["name"])]
        listener.expected = int(arguments["count"])
        listener.complete = asyncio.get_running_loop().create_future()
        if len(listener.arrived) < listener.expected:
            try:
                async with asyncio.timeout(float(arguments["patience_s"])):
                    await listener.complete
            except TimeoutError:
                pass
        listener.complete = None
        return {"arrived": len(listener.arrived)}

    async def collect(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Everything that arrived at `name`: ids, times, and how many were not signed with `key` (if given)."""
        listener = self._listeners[str(arguments["name"])]
        key = arguments.get("key")
        unsigned = 0
        if key is not None:
            origin = f"http://127.0.0.1:{listener.port}"
            unsigned = sum(not is_signed(request, str(key), origin) for _, request in listener.arrived)
        return {
            "message_ids": [_header(request, b"Upstash-Message-Id") for _, request in listener.arrived],
            "arrived_ns": [arrived_ns for arrived_ns, _ in listener.arrived],
            "sent_ns": [_stamp(request) for _, request in listener.arrived],
            "unsigned": unsigned,
            "most_connections": listener.most_open,
        }


def _stamp(request: bytes) -> int:
    digits = request[-BODY_BYTES:][:STAMP_DIGITS]
    return int(digits) if digits.isdigit() else 0


def _header(request: bytes, name: bytes) -> str:
    at = request.find(b"\r\n" + name + b": ")
    if at < 0:
        return ""
    start = at + len(name) + 4
    return request[start : request.find(b"\r\n", start)].decode()


def is_signed(request: bytes, key: str, origin: str) -> bool:
    """What the receivers of the SDKs check: algorithm, signature, issuer, destination, times and body."""
    parts = _header(request, b"Upstash-Signature").split(".")
    if len(parts) != 3:
        return False
    signed = f"{parts[0]}.{parts[1]}".encode()
    expected = urlsafe_b64encode(hmac.digest(key.encode(), signed, "sha256")).rstrip(b"=").decode()
    if not hmac.compare_digest(expected, parts[2]):
        return False
    algorithm, claims = (
        cast("dict[str, Any]", msgspec.json.decode(urlsafe_b64decode(part + "=" * (-len(part) % 4))))
        for part in parts[:2]
    )
    head, _, body = request.partition(b"\r\n\r\n")
    target = head.split(b" ", 2)[1].decode()
    digest = urlsafe_b64encode(hashlib.sha256(body).digest()).decode().rstrip("=")
    now_s = time.time()
    return (
        algorithm.get("alg") == "HS256"
        and claims["iss"] == "Upstash"
        and claims["sub"] == origin + target
        and claims["nbf"] <= now_s < claims["exp"]
        and claims["body"].rstrip("=") == digest
    )


def main() -> None:
    receiver = Receiver()
    serve(
        lambda: {
            "listen": receiver.listen,
            "reset": receiver.reset,
            "expect": receiver.expect,
            "collect": receiver.collect,
        }
    )


if __name__ == "__main__":
    main()
