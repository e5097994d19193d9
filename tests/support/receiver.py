"""A scriptable HTTP receiver on a free loopback port that shows the exact bytes it got and can misbehave."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self

_STREAM_LIMIT_BYTES = 32 * 1024 * 1024
_used_ports: set[int] = set()
"""Tests tell their messages from those of others by the port, so none is given out twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """One request, byte for byte."""

    request_line: bytes
    """`POST /p?q HTTP/1.1`, without the line end."""
    header_lines: tuple[bytes, ...]
    """As they came, in order, without line ends."""
    body: bytes
    connection: int
    """Number of the connection it came over, counted from 0."""
    at_s: float
    """The event loop's clock when the last byte had arrived."""

    @property
    def method(self) -> str:
        return self.request_line.split(b" ", 1)[0].decode("latin-1")

    @property
    def target(self) -> str:
        """The raw request target, undecoded."""
        return self.request_line.split(b" ", 1)[1].rsplit(b" ", 1)[0].decode("latin-1")

    @property
    def path(self) -> str:
        """The target up to the first `?`."""
        return self.target.split("?", 1)[0]

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names as they were spelled, values without surrounding blanks."""
        pairs: list[tuple[str, str]] = []
        for line in self.header_lines:
            name, _, value = line.decode("latin-1").partition(":")
            pairs.append((name, value.strip(" \t")))
        return pairs

    def values(self, name: str) -> list[str]:
        """All values of a header, whatever the case of its name."""
        return [value for other, value in self.headers if other.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The first value of a header, or None."""
        return next(iter(self.values(name)), None)


class Then(StrEnum):
    """What happens to the connection after the bytes of a reply."""

    KEEP = "keep"
    """It stays open for the next request."""
    CLOSE = "close"
    """It is closed in an orderly way."""
    RESET = "reset"
    """It is reset."""
    HANG = "hang"
    """Nothing more is sent; it stays open until the client or the receiver goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A well-formed answer."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    after: asyncio.Event | None = None
    """Answer only once this is set."""
    then: Then = Then.KEEP

    def encode(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} Scripted"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.status >= 200 and self.status not in (204, 304):
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReply:
    """Any bytes at all, as an answer or in place of one."""

    data: bytes = b""
    repeat: bytes = b""
    """Sent again and again after `data` until the client goes."""
    repeat_interval_s: float = 0.0
    after: asyncio.Event | None = None
    then: Then = Then.CLOSE

    def encode(self) -> bytes:
        return self.data


AnyReply = Reply | RawReply

HANG = RawReply(then=Then.HANG)
CLOSE = RawReply(then=Then.CLOSE)
RESET = RawReply(then=Then.RESET)
GARBAGE = RawReply(data=b"\x16\x03\x01 this is no HTTP\r\n\r\n")
ENDLESS_BODY = RawReply(data=b"HTTP/1.1 200 OK\r\n\r\n", repeat=b"x" * 65_536)
ENDLESS_HEADERS = RawReply(data=b"HTTP/1.1 200 OK\r\n", repeat=b"X-More: and more\r\n" * 64)


@dataclass(slots=True)
class _Script:
    reply: AnyReply
    path: str | None
    times: int | None
    """None: any number of times."""


@dataclass(slots=True)
class Receiver:
    """Answers 200 with an empty body until told otherwise.

    `async with Receiver() as receiver:` listens on `receiver.url` and records into `receiver.requests`.
    """

    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    handler: Callable[[ReceivedRequest], AnyReply] | None = None
    """Decides where no script applies."""
    requests: list[ReceivedRequest] = field(default_factory=list[ReceivedRequest])
    connections: int = 0
    """Opened so far."""
    port: int = 0
    _scripts: deque[_Script] = field(default_factory=deque[_Script])
    _default: AnyReply = field(default_factory=Reply)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _writers: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`, without a trailing slash."""
        scheme = "https" if self.tls else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._writers)

    def respond(
        self,
        status: int = 200,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        after: asyncio.Event | None = None,
        then: Then = Then.KEEP,
        path: str | None = None,
        times: int | None = 1,
    ) -> None:
        """Script the next `times` requests (None: all from then on), of one path or of any."""
        self.script(Reply(status=status, headers=headers, body=body, after=after, then=then), path=path, times=times)

    def script(self, *replies: AnyReply, path: str | None = None, times: int | None = 1) -> None:
        """Script replies in order, each for `times` requests; see `respond`."""
        self._scripts.extend(_Script(reply=reply, path=path, times=times) for reply in replies)

    def always(self, reply: AnyReply) -> None:
        """What is answered where no script applies."""
        self._default = reply

    def forget(self) -> None:
        """Drop all scripts and what was recorded."""
        self._scripts.clear()
        self.requests.clear()

    async def wait_for(self, count: int, *, path: str | None = None, timeout_s: float = 10.0) -> list[ReceivedRequest]:
        """Wait until at least `count` requests (of one path) have arrived and return those."""

        def arrived() -> list[ReceivedRequest]:
            return [request for request in self.requests if path is None or request.path == path]

        try:
            async with asyncio.timeout(timeout_s), self._arrived:
                await self._arrived.wait_for(lambda: len(arrived()) >= count)
        except TimeoutError:
            raise AssertionError(
                f"{len(arrived())} of {count} requests arrived within {timeout_s} s: "
                f"{[request.request_line for request in self.requests]}"
            ) from None
        return arrived()

    async def drop_connections(self) -> None:
        """Close every open connection from this side."""
        writers = list(self._writers)
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    async def start(self) -> None:
        while self._server is None:
            server = await asyncio.start_server(
                self._serve, self.host, self.port, ssl=self.tls, limit=_STREAM_LIMIT_BYTES, backlog=1024
            )
            port: int = server.sockets[0].getsockname()[1]
            if self.port or port not in _used_ports:
                self._server, self.port = server, port
                _used_ports.add(port)
            else:
                server.close()

    async def stop(self) -> None:
        """Stop listening and cut all connections; `start` listens on the same port again."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        number = self.connections
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                while await self._exchange(reader, writer, number):
                    pass
        except asyncio.CancelledError:
            pass  # only `stop` cancels
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()
            # Cancelled here too: `stop` may come while the other end is just closing.
            with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
        request_line, *header_lines = head.split(b"\r\n")
        body = await _read_body(reader, header_lines)
        request = ReceivedRequest(
            request_line=request_line,
            header_lines=tuple(header_lines),
            body=body,
            connection=number,
            at_s=asyncio.get_running_loop().time(),
        )
        reply = self._reply_to(request)
        self.requests.append(request)
        async with self._arrived:
            self._arrived.notify_all()
        if reply.after is not None:
            await reply.after.wait()
        writer.write(reply.encode())
        await writer.drain()
        if isinstance(reply, RawReply) and reply.repeat:
            while True:
                writer.write(reply.repeat)
                await writer.drain()
                await asyncio.sleep(reply.repeat_interval_s)
        match reply.then:
            case Then.KEEP:
                return True
            case Then.HANG:
                await reader.read()  # returns when the client has gone
                return False
            case Then.RESET:
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            case Then.CLOSE:
                return False

    def _reply_to(self, request: ReceivedRequest) -> AnyReply:
        for script in self._scripts:
            if script.path is not None and script.path != request.path:
                continue
            if script.times is not None:
                script.times -= 1
                if script.times <= 0:
                    self._scripts.remove(script)
            return script.reply
        return self.handler(request) if self.handler else self._default


async def _read_body(reader: asyncio.StreamReader, header_lines: list[bytes]) -> bytes:
    for line in header_lines:
        name, _, value = line.partition(b":")
        match name.strip().lower():
            case b"content-length":
                return await reader.readexactly(int(value))
            case b"transfer-encoding":
                return await _read_chunks(reader)
            case _:
                pass
    return b""


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        body += await reader.readexactly(size)
        await reader.readline()
        if size == 0:
            return bytes(body)
