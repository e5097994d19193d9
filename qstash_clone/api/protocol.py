"""HTTP/1.1 for one connection: uvicorn's httptools protocol with limits, deadlines and answers in JSON.

What uvicorn 0.54 leaves open and this class closes: heads of any size, clients that never finish a head or a body,
answers in plain text for what is no HTTP, a request target that was decoded and cut at `#` on the way, headers that
arrive after the body, and bodies of requests that ask for an upgrade, which the parser does not read (Java's client
asks for HTTP/2 like that by default, and would publish empty messages). Deadlines are plain numbers that the server
checks twice a second, so a request costs no timer.
"""

import asyncio
import logging
import re
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from qstash_clone.api.cycle import STATUS_LINES, Cycle
from qstash_clone.api.errors import error_body
from qstash_clone.api.requests import RequestIds
from qstash_clone.observability import REQUEST_REFUSED, REQUESTS, emit

HEAD_TIMEOUT_S = 20.0
"""For a connection to send its first byte, and from the first byte of a head to its last."""
BODY_TIMEOUT_S = 30.0
BODY_BYTES_PER_S = 32_768
"""A body may take `BODY_TIMEOUT_S`, and a second more for each of these that arrived."""
KEEP_ALIVE_S = 75.0
"""Longer than the usual 60 s of proxies and client pools, so that they close first and never meet a closed one."""
WRITE_TIMEOUT_S = 30.0
"""For a client to read what fills the connection's buffers."""
LINGER_S = 5.0
"""How long a refused client may go on sending, so that it reads the answer instead of a reset."""
DISCARD_BYTES = 32 * 1024 * 1024
"""How much of a refused request is read and thrown away before the connection is cut."""
_FRAMING_BYTES_PER_BODY_BYTE = 16
"""Of chunk heads; a chunk of one byte has five, each extension a few more."""

_NEVER = float("inf")
_IDLE, _HEAD, _BODY, _REFUSED = range(4)
_NO_UPGRADE, _UPGRADE_SEEN, _REPLAYING = range(3)
_ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)


class ProtocolConfig(Config):
    """uvicorn's configuration and what `ApiProtocol` needs besides."""

    def __init__(self, *arguments: Any, max_headers: int, max_header_bytes: int, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.max_headers = max_headers
        self.max_header_bytes = max_header_bytes
        self.head_timeout_s = HEAD_TIMEOUT_S
        self.body_timeout_s = BODY_TIMEOUT_S
        self.keep_alive_s = KEEP_ALIVE_S
        self.write_timeout_s = WRITE_TIMEOUT_S
        self.linger_s = LINGER_S
        self.discard_bytes = DISCARD_BYTES
        self.common_head = b""
        """The header lines of every answer; the server renews the date in it."""
        self.request_ids = RequestIds()


class _Refusal(Exception):
    """Ends parsing from within a parser callback."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class ApiProtocol(HttpToolsProtocol):
    """One connection."""

    config: ProtocolConfig

    def __init__(
        self,
        config: ProtocolConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._app = cast("ASGI3Application", config.loaded_app)  # pyright: ignore[reportUnknownMemberType]
        self.deadline = _NEVER
        self._phase = _IDLE
        self._head_bytes = 0
        """Of the parts that the parser has reported."""
        self._unreported_bytes = 0
        """Fed since the head began: bounds a part that the parser has not reported yet."""
        self._body_bytes = 0
        self._framing_bytes = 0
        self._discarded_bytes = 0
        self._heads_begun = 0
        self._upgrade = _NO_UPGRADE
        self._running: Cycle | None = None
        """The request that is being answered."""
        self._newest: Cycle | None = None
        """The request whose parts arrive; later than the running one if requests are pipelined."""
        self._refusal: _Refusal | None = None

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.deadline = self.loop.time() + self.config.head_timeout_s

    def connection_lost(self, exc: Exception | None) -> None:
        for cycle in [self._running, *(cycle for cycle, _ in self.pipeline)]:
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._phase = _REFUSED

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Whether to keep the connection: a client that is done with sending may still wait for its answers."""
        if self._phase != _IDLE or self._newest is None or self._newest.response_complete:
            return False
        self._newest.keep_alive = False
        for cycle in (self._running, self._newest):
            if cycle is not None:
                cycle.end_wait()
        return True

    def shutdown(self) -> None:
        super().shutdown()
        if self._running is not None:
            self._running.end_wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.deadline = self.loop.time() + self.config.write_timeout_s

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._phase != _IDLE:
            self.deadline = self.loop.time() + self.config.head_timeout_s
        elif self._running is None or self._running.response_complete:
            self.deadline = self.loop.time() + self.config.keep_alive_s
        else:
            self.deadline = _NEVER

    def check_deadline(self, now_s: float) -> None:
        """End the connection if what it should have done by now did not happen."""
        if now_s < self.deadline:
            return
        if self.transport.is_closing() or self._phase == _REFUSED or self.flow.write_paused:
            self.transport.abort()
        elif self.flow.read_paused:
            # Its next request waits for the answer to the one before; that it is incomplete is not its fault.
            self.deadline = now_s + self.config.head_timeout_s
        elif self._phase == _IDLE or (self._phase == _HEAD and not self._head_bytes and not self._unreported_bytes):
            self.transport.close()
            self.deadline = now_s + self.config.linger_s
        else:
            self._refuse(_Refusal(408, "the request did not arrive in time"))

    # From bytes to a request.

    def data_received(self, data: bytes) -> None:
        if self._phase == _REFUSED:
            self._discard(len(data))
            return
        try:
            while data:
                data = self._parse(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, _Refusal):
                raise
            self._refuse(cause)
        except httptools.HttpParserInvalidURLError:
            self._refuse(_Refusal(400, "the request target is not valid: percent-encode what is not visible ASCII"))
        except httptools.HttpParserError:
            self._refuse(_Refusal(400, "the request is not valid HTTP"))
        except _Refusal as refusal:
            self._refuse(refusal)

    def _parse(self, data: bytes) -> bytes:
        """Feed the parser; returns what it has left over."""
        phase, heads_begun, body_bytes = self._phase, self._heads_begun, self._body_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            return data[cast("int", upgrade.args[0]) :]
        if self._phase == _HEAD:
            # Counted if all of the chunk belongs to this head; if not, there is at most one chunk too much.
            if self._heads_begun - heads_begun == (phase == _IDLE) and phase != _BODY:
                self._unreported_bytes += len(data)
                if self._unreported_bytes > self.config.max_header_bytes:
                    raise self._head_too_large()
        elif phase == _BODY and self._heads_begun == heads_begun:
            self._count_framing(len(data) - (self._body_bytes - body_bytes))
        return b""

    def _ignore_upgrade(self) -> None:
        """Read on as if the request had not asked for another protocol, as HTTP allows.

        The parser stops after the head of such a request: a fresh one is told how the body is framed.
        """
        framing = [line for line in self.headers if line[0] in (b"content-length", b"transfer-encoding")]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._upgrade = _REPLAYING
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % line for line in framing) + b"\r\n")

    def on_message_begin(self) -> None:
        if self._upgrade:
            return
        self._phase = _HEAD
        self._heads_begun += 1
        self.deadline = self.loop.time() + self.config.head_timeout_s
        self._head_bytes = self._unreported_bytes = self._body_bytes = self._framing_bytes = 0
        self._discarded_bytes = 0
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_url(self, url: bytes) -> None:
        if self._upgrade:
            return
        self.url += url
        self._head_bytes += len(url)
        if self._head_bytes > self.config.max_header_bytes:
            raise self._head_too_large()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase != _HEAD:
            return  # A trailer: nobody asked for it, and the head was acted upon.
        self._head_bytes += len(name) + len(value)
        headers = self.headers
        if self._head_bytes > self.config.max_header_bytes:
            raise self._head_too_large()
        if len(headers) >= self.config.max_headers:
            raise _Refusal(431, f"the request has more than {self.config.max_headers} headers")
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        if self._upgrade:
            self._upgrade = _NO_UPGRADE
            return
        if parser.should_upgrade():
            self._upgrade = _UPGRADE_SEEN
        version = parser.get_http_version()
        path, _, query = _origin_form(self.url).partition(b"?")
        self._phase = _BODY
        self.deadline = self.loop.time() + self.config.body_timeout_s
        scope: Any = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": parser.get_method().decode("ascii"),
            "root_path": "",
            # Undecoded on purpose: this application routes on the raw target.
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "headers": self.headers,
        }
        self.scope = scope
        self.cycle = self._newest = cycle = Cycle(self, keep_alive=version != "1.0" and parser.should_keep_alive())
        if self._running is None or self._running.response_complete:
            self._start(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self._app))

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        self._body_bytes += len(body)
        self.deadline += len(body) / BODY_BYTES_PER_S
        if cycle.response_complete:
            self._discard(len(body))
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._upgrade:
            return
        self._phase = _IDLE
        cycle = self.cycle
        cycle.more_body = False
        if cycle.response_complete:
            self.deadline = self.loop.time() + self.config.keep_alive_s
        else:
            self.deadline = _NEVER
            cycle.message_event.set()

    # Answers.

    def _start(self, cycle: Cycle) -> None:
        self._running = cycle
        self._start_asgi_task(cycle, self._app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start(cast("Cycle", self.pipeline.pop()[0]))
        elif self._refusal is not None:
            self._refuse(self._refusal)
        elif self._phase == _IDLE:
            self.deadline = self.loop.time() + self.config.keep_alive_s

    def finish(self) -> None:
        """Close after an answer that was the connection's last, without losing it."""
        self.pipeline.clear()
        if self._phase in (_HEAD, _BODY):
            self._linger()
        else:
            self.transport.close()
            self.deadline = self.loop.time() + self.config.linger_s

    def _head_too_large(self) -> _Refusal:
        return _Refusal(431, f"the request's target and headers are larger than {self.config.max_header_bytes} bytes")

    def _refuse(self, refusal: _Refusal) -> None:
        """Answer what cannot be served, in its turn, and end the connection."""
        in_body = self._phase == _BODY
        self._phase = _REFUSED
        self.deadline = _NEVER
        running = self._running
        if in_body and self.cycle.response_complete:
            self._linger()  # It has its answer.
            return
        if running is not None and not running.response_complete:
            if not in_body or self.pipeline or running.response_started:
                # Answers keep the order of their requests. What is broken never gets beyond its turn.
                if in_body and self.pipeline:
                    self.pipeline.popleft()
                self._refusal = refusal
                return
            running.disconnected = True
            running.message_event.set()
        self._refusal = None
        request_id = self.config.request_ids.next_id()
        body = error_body(refusal.text)
        self.transport.write(
            STATUS_LINES[refusal.status]
            + self.config.common_head
            + b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
            + b"x-request-id: %b\r\nconnection: close\r\n\r\n" % request_id
            + body
        )
        REQUESTS.inc("protocol", "4xx")
        emit(
            REQUEST_REFUSED,
            level=logging.INFO,
            route="protocol",
            status=refusal.status,
            error=refusal.text,
            request_id=request_id.decode(),
        )
        self._linger()

    def _linger(self) -> None:
        """Say that this is all, and throw away what still comes: closing now would reset the answer away."""
        self._phase = _REFUSED
        self.flow.resume_reading()
        self.deadline = self.loop.time() + self.config.linger_s
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _discard(self, size_bytes: int) -> None:
        self._discarded_bytes += size_bytes
        if self._discarded_bytes > self.config.discard_bytes:
            self.transport.abort()

    def _count_framing(self, size_bytes: int) -> None:
        self._framing_bytes += size_bytes
        allowance = self.config.max_header_bytes + _FRAMING_BYTES_PER_BODY_BYTE * self._body_bytes
        if self._framing_bytes > allowance:
            raise _Refusal(400, "the body has more framing than content")


def _origin_form(target: bytes) -> bytes:
    """The target as a path: proxies may send the absolute form `http://host/path`."""
    if target[:1] == b"/":
        return target
    match = _ORIGIN.match(target)
    if match is None:
        raise _Refusal(400, "the request target must be a path")
    rest = target[match.end() :]
    return rest if rest[:1] == b"/" else b"/" + rest
