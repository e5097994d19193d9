"""An HTTP client that sends exactly the bytes it is told to, also half a request, and shows the answer."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Headers = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The first value of a header, or None."""
        return next((value for other, value in self.headers if other == name.lower()), None)

    @property
    def error(self) -> str:
        """The text of an error answer."""
        assert self.header("content-type") == "application/json", self
        fields = self.json()
        assert list(fields) == ["error"], fields
        return fields["error"]


class RawHttp:
    """Speaks to one server, a new connection for each request."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._host = host
        self.port = port

    async def request(
        self, method: str, target: str, headers: Headers = (), body: bytes = b"", *, timeout_s: float = 20.0
    ) -> Answer:
        """One exchange; a content length is added unless the framing is given."""
        lines = [(name, value) for name, value in headers]
        names = {name.lower() for name, _ in lines}
        if not names & {"content-length", "transfer-encoding"}:
            lines.append(("Content-Length", str(len(body))))
        head = f"{method} {target} HTTP/1.1\r\nHost: {self._host}:{self.port}\r\n".encode("latin-1")
        for name, value in lines:
            head += name.encode("latin-1") + b": " + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
        return await self.exchange(head + b"\r\n" + body, timeout_s=timeout_s)

    async def exchange(self, data: bytes, *, timeout_s: float = 20.0) -> Answer:
        """Send these bytes and read one answer."""
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(self._host, self.port)
            try:
                writer.write(data)
                return await read_answer(reader)
            finally:
                writer.close()

    async def send_and_leave(self, data: bytes) -> None:
        """Send these bytes and close the connection, without waiting for an answer."""
        _, writer = await asyncio.open_connection(self._host, self.port)
        writer.write(data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """The next answer on a connection."""
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1")
    status_line, *lines = head.split("\r\n")
    headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    if ("transfer-encoding", "chunked") in headers:
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(next((int(value) for name, value in headers if name == "content-length"), 0))
    return Answer(status=int(status_line.split(" ")[1]), headers=headers, body=body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:size]
    await reader.readline()
    return body
