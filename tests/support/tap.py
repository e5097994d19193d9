"""A proxy before an api that hands on every byte unchanged, and notes which requests were answered and how."""

import asyncio
import threading
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import httptools

_CHUNK_BYTES = 1 << 16
_KEPT_BODY_BYTES = 1 << 20


@dataclass(slots=True)
class Exchange:
    """A request and its answer."""

    method: str = ""
    target: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Names in lower case."""
    body: bytearray = field(default_factory=bytearray)
    status: int = 0
    answer: bytearray = field(default_factory=bytearray)
    """The body that came back, as far as it is kept."""


class Tap:
    """Listens in a thread of its own, on a port for each port of an api; what blocks a test does not block it."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        """In the order of their answers; each is here, and all of its answer, before the client has that."""
        self._ports: dict[int, int] = {}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        """Held here: the loop knows a task that waits for a reader by weak references only."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tap", daemon=True)
        self._thread.start()

    def before(self, port: int) -> int:
        """The port that stands before an api's."""
        if port not in self._ports:
            self._ports[port] = asyncio.run_coroutine_threadsafe(self._listen(port), self._loop).result()
        return self._ports[port]

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self, port: int) -> int:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._start(self._relay(port, reader, writer))

        server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1000)
        self._servers.append(server)
        return server.sockets[0].getsockname()[1]

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _relay(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = _Conversation(self.exchanges)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                asking = self._start(_pump(reader, upstream_writer, conversation.asked))
                await _pump(upstream_reader, writer, conversation.answered)
                asking.cancel()
            finally:
                upstream_writer.close()
        except OSError:
            pass  # Nobody is there, which the client learns from the end of its connection.
        finally:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: "Note") -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            note(data)
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


class Note:
    """Feeds a parser until there is something that is no HTTP, which is none of its business."""

    def __init__(self, parser: "httptools.HttpRequestParser | httptools.HttpResponseParser") -> None:
        self._parser = parser
        self._is_http = True

    def __call__(self, data: bytes) -> None:
        if self._is_http:
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                self._is_http = False


class _Conversation:
    """One connection: its requests, in order, wait here for their answers."""

    def __init__(self, done: list[Exchange]) -> None:
        waiting: deque[Exchange] = deque()
        requests = _Requests(waiting)
        requests.parser = httptools.HttpRequestParser(requests)
        self.asked = Note(requests.parser)
        responses = _Responses(waiting, done)
        responses.parser = httptools.HttpResponseParser(responses)
        self.answered = Note(responses.parser)


class _Requests:
    """Callbacks of the parser of requests."""

    parser: httptools.HttpRequestParser

    def __init__(self, waiting: deque[Exchange]) -> None:
        self._waiting = waiting
        self._current = Exchange()

    def on_message_begin(self) -> None:
        self._current = Exchange()

    def on_url(self, url: bytes) -> None:
        self._current.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._current.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        # Not at the end of the body: it may be refused before that.
        self._current.method = self.parser.get_method().decode("ascii")
        self._waiting.append(self._current)

    def on_body(self, body: bytes) -> None:
        if len(self._current.body) < _KEPT_BODY_BYTES:
            self._current.body += body


class _Responses:
    """Callbacks of the parser of answers."""

    parser: httptools.HttpResponseParser

    def __init__(self, waiting: deque[Exchange], done: list[Exchange]) -> None:
        self._waiting = waiting
        self._done = done
        self._current = Exchange()

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        self._current = Exchange()
        if status >= 200 and self._waiting:
            self._current = self._waiting.popleft()
            self._current.status = status
            self._done.append(self._current)

    def on_body(self, body: bytes) -> None:
        if len(self._current.answer) < _KEPT_BODY_BYTES:
            self._current.answer += body
