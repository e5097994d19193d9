"""Liveness, readiness and metrics of a worker, on a port of their own."""

import asyncio
import os
from collections.abc import Callable, Mapping

import msgspec

from qstash_clone.errors import ConfigurationError
from qstash_clone.instruments import CONTENT_TYPE, render_metrics
from worker.health import Health

MAX_REQUEST_BYTES = 16_384
REQUEST_PATIENCE_S = 5.0
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class Probes:
    """A tiny HTTP/1.1 server: a request of any length but one, an answer, the end of the connection."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self.gauges: Callable[[], Mapping[str, tuple[str, float]]] = dict
        """What /metrics shows besides the instruments."""
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises ConfigurationError if that is impossible."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_REQUEST_BYTES)
        except OSError as error:
            raise ConfigurationError(
                f"The probes of the worker cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}); "
                "set QSTASH_CLONE_PROBE_PORT to a free port."
            ) from error
        return self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, content_type, body = self._answer(head)
                writer.write(
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                )
                if not head.startswith(b"HEAD "):
                    writer.write(body)
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # Whoever asked is gone or was not speaking HTTP.
        finally:
            writer.close()

    def _answer(self, head: bytes) -> tuple[int, str, bytes]:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3:
            return _json(400, {"error": "The request line is malformed."})
        if words[0] not in (b"GET", b"HEAD"):
            return _json(405, {"error": "Only GET and HEAD are served here."})
        match words[1].split(b"?", 1)[0]:
            case b"/livez":
                stalled = self._health.stalled_loops()
                return _json(503 if stalled else 200, {"live": not stalled, "stalled_loops": stalled})
            case b"/readyz":
                reason = self._health.unready_reason()
                return _json(503 if reason else 200, {"ready": reason is None, "reason": reason})
            case b"/metrics":
                return 200, CONTENT_TYPE, render_metrics(self.gauges())
            case _:
                return _json(404, {"error": "Known here are /livez, /readyz and /metrics."})


def _json(status: int, content: object) -> tuple[int, str, bytes]:
    return status, "application/json", msgspec.json.encode(content)
