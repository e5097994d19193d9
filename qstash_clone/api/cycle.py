"""One request of a connection and its answer: uvicorn's cycle without what this application does not need."""

import asyncio
import http
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from qstash_clone.api.protocol import ApiProtocol

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}


class Cycle(RequestResponseCycle):
    """An answer that names its length is not checked again, and goes out in one write; one that does not is chunked."""

    def __init__(self, protocol: "ApiProtocol", *, keep_alive: bool) -> None:
        super().__init__(
            scope=protocol.scope,
            transport=protocol.transport,
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=protocol.expect_100_continue,
            keep_alive=keep_alive,
            on_response=protocol.on_response_complete,
        )
        self._protocol = protocol
        self._head = b""
        self._is_chunked = False
        self._is_body_read = False
        self._is_wait_over = False

    async def receive(self) -> Any:
        """ASGI's receive. Who has all of a request and goes on asking wants to know when to stop waiting for what it
        might answer, so it is told that the client is gone; an answer is sent all the same, if anybody still listens.
        """
        if not (self._is_body_read and self._is_wait_over):
            message: Any = await super().receive()
            if message["type"] != "http.request" or not self._is_body_read:
                self._is_body_read = not message.get("more_body", False)
                return message
        return {"type": "http.disconnect"}

    def end_wait(self) -> None:
        """The client sends nothing more, so it is nearly always gone (the system reports both in the same way), or the
        server stops: the answer should be what there is by now."""
        self._is_wait_over = True
        self.message_event.set()

    async def send(self, message: Any) -> None:
        """ASGI's send. Header values are trusted: the application puts nothing into them that it has not checked."""
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message["headers"])
            return
        if self.flow.write_paused:
            await self.flow.drain()
        body = b"" if self.scope["method"] == "HEAD" else message.get("body", b"")
        if self._is_chunked:
            body = _chunk(body, is_last=not message.get("more_body", False))
        self.transport.write(self._head + body if len(body) < HIGH_WATER_LIMIT else self._head)
        if len(body) >= HIGH_WATER_LIMIT:
            self.transport.write(body)
        self._head = b""
        if message.get("more_body", False):
            return
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self._protocol.finish()
        self.on_response()

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if self.response_started:
            raise RuntimeError("The application answered twice.")
        self.response_started = True
        if self.waiting_for_100_continue and self.more_body:
            # Whether the client now sends the body is up to it, so what follows on the connection means nothing.
            self.keep_alive = False
        self.waiting_for_100_continue = False
        if not any(name == b"content-length" for name, _ in headers):
            headers = self._frame(headers)
        lines = [STATUS_LINES[status], self._protocol.config.common_head]
        lines += [b"%b: %b\r\n" % header for header in headers]
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self._head = b"".join(lines)

    def _frame(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Say how the end of an answer of unknown length is recognised."""
        if self.scope["http_version"] == "1.0":
            # Chunks came with 1.1; here the end of the connection, which is not kept, is the end of the answer.
            return headers
        self._is_chunked = self.scope["method"] != "HEAD"
        return [*headers, (b"transfer-encoding", b"chunked")]


def _chunk(body: bytes, *, is_last: bool) -> bytes:
    # An empty chunk would be the last one.
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return chunk + b"0\r\n\r\n" if is_last else chunk
