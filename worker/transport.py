"""Sends one request and reads its answer, over pooled connections to addresses that were checked.

Of aiohttp this uses the connector (pool, name cache, happy eyeballs, TLS) and the response parser. Its session is left
out for what it would change: it re-encodes header values, drops an empty query, decides itself what is retried, and
costs more than everything else on the way (measured on one core: 75 us for an exchange through the session, 30 us
like this).
"""

import asyncio
from collections.abc import Iterable
from functools import lru_cache
from types import TracebackType
from typing import Protocol, Self

from aiohttp import ClientRequest, ClientTimeout, TCPConnector
from aiohttp.client_exceptions import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientOSError,
    ClientPayloadError,
    ServerDisconnectedError,
)
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader
from yarl import URL

from qstash_clone.domain.delivery import OutgoingRequest
from qstash_clone.domain.egress import EgressPolicy
from qstash_clone.domain.header_names import canonical_name
from qstash_clone.domain.host_overrides import HostOverride
from qstash_clone.domain.message import Headers
from qstash_clone.domain.outcome import AttemptResult
from qstash_clone.domain.urls import Origin, origin_of
from worker.network import AddressRefused, make_connector, refusal_text, tls_context

_CACHED_ROUTES = 4096
_STALE_WINDOW_S = 1.0
_MAX_STATUS_LINE_BYTES = 8_190
_MAX_HEADER_LINE_BYTES = 16_384
_MAX_HEADER_LINES = 256
_JOIN_UP_TO_BYTES = 65_536
"""Bodies up to here go out in one piece with the head, larger ones are not copied for it."""
_MAX_CACHED_NAME_BYTES = 64
_SHOWN_CHARACTERS = 200

# The whole attempt has one limit, kept by `send`.
_NO_TIMEOUT = ClientTimeout(total=None, connect=None, sock_read=None, sock_connect=None)
_BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})


class Transport(Protocol):
    """One HTTP exchange."""

    async def send(self, request: OutgoingRequest, timeout_ms: int) -> AttemptResult:
        """Send and read the answer within `timeout_ms`, from connecting to the last byte.

        Whatever goes wrong is a result with `error` and status 0; only a cancellation is raised.
        """
        ...


class _Route:
    """What is known about one origin: how it is dialled, and under which name."""

    __slots__ = ("connect_request", "connector", "host", "name", "refusal")

    def __init__(self, origin: Origin, connector: TCPConnector, refusal: str | None) -> None:
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        self.name = f"{host}:{origin.port}"
        self.host = host if origin.has_default_port else self.name
        self.connector = connector
        # The connector reads from it where to connect, nothing else; so one serves all requests of the origin.
        url = URL(f"{origin.scheme}://{self.name}", encoded=True)
        self.connect_request = ClientRequest("POST", url, loop=asyncio.get_running_loop())
        self.refusal = refusal


class AiohttpTransport:
    """The transport of a worker: HTTP/1.1, no redirects, no cookies, no proxies, nothing decoded.

    URL, header lines and body are sent as they are; `Host` and `Content-Length` are added. The answer's body is read
    up to `max_response_bytes`. Every address is checked by `egress` when it is dialled. A certificate is trusted if
    the system or `ca_file` (PEM) vouches for it. `host_overrides` say where some hosts are dialled; what is sent, and
    whose certificate is expected, stays that of the URL. Create it where an event loop runs.

    Raises `ConfigurationError` for a `ca_file` that cannot be used.
    """

    def __init__(
        self,
        *,
        egress: EgressPolicy,
        max_response_bytes: int = 1_048_576,
        ca_file: str | None = None,
        host_overrides: Iterable[HostOverride] = (),
        max_idle_connections: int = 512,
        stale_window_s: float = _STALE_WINDOW_S,
    ) -> None:
        self._egress = egress
        self._max_response_bytes = max_response_bytes
        self._max_idle_connections = max_idle_connections
        self._stale_window_s = stale_window_s
        self._loop = asyncio.get_running_loop()
        tls = tls_context(ca_file)
        overrides = tuple(host_overrides)
        self._connector = make_connector(egress, tls, overrides)
        # A host that is allowed by name may be anywhere. Two pools, so that one kind's check never meets the other's.
        self._unchecked_connector = make_connector(EgressPolicy(allow_private=True), tls, overrides)
        self._route = lru_cache(maxsize=_CACHED_ROUTES)(self._make_route)
        # Connections in the pool, longest idle first. The connector bounds their time but not their number.
        self._idle: dict[ResponseHandler, _Route] = {}

    async def aclose(self) -> None:
        """Close all connections, idle or not."""
        self._idle.clear()
        self._route.cache_clear()
        await self._connector.close()
        await self._unchecked_connector.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def send(self, request: OutgoingRequest, timeout_ms: int) -> AttemptResult:
        """See `Transport.send`."""
        started_s = self._loop.time()
        route = None
        limit = asyncio.timeout(timeout_ms / 1000)
        try:
            async with limit:
                route = self._route(origin_of(request.url))
                if route.refusal is not None:
                    raise AddressRefused(route.refusal)
                status, headers, body, is_body_cut = await self._exchange(route, request)
        except Exception as exception:
            # Everything: a destination must not be able to end a worker, whatever it makes the libraries raise.
            if limit.expired():
                error = f"no complete answer within {timeout_ms / 1000:g} s"
            else:
                error = _describe(exception, route)
            return AttemptResult(error=error, duration_ms=self._elapsed_ms(started_s))
        return AttemptResult(
            status=status,
            headers=headers,
            body=body,
            is_body_cut=is_body_cut,
            duration_ms=self._elapsed_ms(started_s),
        )

    def _elapsed_ms(self, started_s: float) -> int:
        return round((self._loop.time() - started_s) * 1000)

    async def _exchange(self, route: _Route, request: OutgoingRequest) -> tuple[int, Headers, bytes, bool]:
        head = _encode_head(route, request)
        may_resend = True
        while True:
            connection = await route.connector.connect(route.connect_request, [], _NO_TIMEOUT)
            try:
                protocol = connection.protocol
                assert protocol is not None
                is_reused = self._idle.pop(protocol, None) is not None
                sent_s = self._loop.time()
                try:
                    _write(protocol, head, request.body)
                    message, payload = await _read_answer(protocol)
                except (ServerDisconnectedError, ClientOSError) as error:
                    # Servers close idle connections at any moment, also while a request is on its way. That fails
                    # at once, without a byte of an answer, and is not the destination's verdict: send once more, on a
                    # new connection. Should the request have been seen after all it arrives twice, as any may.
                    is_early = self._loop.time() - sent_s <= self._stale_window_s
                    if not (may_resend and is_reused and is_early) or _has_partial_answer(error):
                        raise
                    may_resend = False
                    _cut(connection)
                    self._close_idle(route)
                    continue
                body, is_body_cut = await self._read_body(message, payload)
                self._give_back(connection, protocol, route, is_reusable=not is_body_cut)
                return message.code, _decode_headers(message), body, is_body_cut
            except BaseException:
                _cut(connection)
                raise

    async def _read_body(self, message: RawResponseMessage, payload: StreamReader) -> tuple[bytes, bool]:
        if message.code == 101:
            return b"", True  # the connection speaks another protocol from here on
        body = await payload.readany()
        if payload.at_eof() and len(body) <= self._max_response_bytes:
            return body, False
        parts: list[bytes] = []
        size_bytes = 0
        while body:
            parts.append(body)
            size_bytes += len(body)
            if size_bytes > self._max_response_bytes:
                return b"".join(parts)[: self._max_response_bytes], True
            body = await payload.readany()
        return b"".join(parts), False

    def _give_back(
        self, connection: Connection, protocol: ResponseHandler, route: _Route, *, is_reusable: bool
    ) -> None:
        transport = protocol.transport
        if not is_reusable or (transport is not None and transport.get_write_buffer_size() > 0):
            # The latter answered before it had read the request: what is left of that would lead the next one.
            _cut(connection)
            return
        connection.release()
        if protocol.is_connected():
            idle = self._idle
            idle[protocol] = route
            if len(idle) > self._max_idle_connections:
                oldest = next(iter(idle))
                del idle[oldest]
                oldest.close()

    def _close_idle(self, route: _Route) -> None:
        for protocol in [protocol for protocol, other in self._idle.items() if other is route]:
            del self._idle[protocol]
            protocol.close()

    def _make_route(self, origin: Origin) -> _Route:
        if self._egress.allows_host(origin.host):
            return _Route(origin, self._unchecked_connector, None)
        refusal = None
        if origin.address is not None and not self._egress.allows_address(origin.address):
            refusal = refusal_text(origin.host)
        return _Route(origin, self._connector, refusal)


def _encode_head(route: _Route, request: OutgoingRequest) -> bytes:
    lines = [f"{request.method} {_target_of(request.url)} HTTP/1.1", f"Host: {route.host}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    if request.body or request.method in _BODY_EXPECTED:
        lines.append(f"Content-Length: {len(request.body)}")
    text = "\n".join(lines)
    if text.count("\n") != len(lines) - 1 or "\r" in text or "\0" in text:
        raise ValueError("a header contains a line end")
    return text.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n"


def _target_of(url: str) -> str:
    """The part that goes into the request line, character for character; at least a slash."""
    slash, query = url.find("/", 8), url.find("?", 8)  # 8: after `https://`, or `http://` and one character of a host
    if query >= 0 and (slash < 0 or query < slash):
        return "/" + url[query:]
    return url[slash:] if slash >= 0 else "/"


def _write(protocol: ResponseHandler, head: bytes, body: bytes) -> None:
    transport = protocol.transport
    if transport is None:
        raise ServerDisconnectedError
    protocol.set_response_params(
        read_until_eof=True,
        auto_decompress=False,
        max_line_size=_MAX_STATUS_LINE_BYTES,
        max_field_size=_MAX_HEADER_LINE_BYTES,
        max_headers=_MAX_HEADER_LINES,
    )
    if len(body) <= _JOIN_UP_TO_BYTES:
        transport.write(head + body)
    else:
        transport.write(head)
        transport.write(body)


def _cut(connection: Connection) -> None:
    """Close at once. An orderly close waits until the peer has read what is unsent, and some never do."""
    protocol = connection.protocol
    if protocol is not None:
        protocol.abort()
    connection.close()


async def _read_answer(protocol: ResponseHandler) -> tuple[RawResponseMessage, StreamReader]:
    while True:
        message, payload = await protocol.read()
        if message.code >= 200 or message.code == 101:
            return message, payload


def _has_partial_answer(error: Exception) -> bool:
    return isinstance(error, ServerDisconnectedError) and not isinstance(error.message, str)


def _decode_headers(message: RawResponseMessage) -> Headers:
    return tuple([(_canonical(name), value.decode("latin-1")) for name, value in message.raw_headers])


def _canonical(name: bytes) -> str:
    return _cached_canonical(name) if len(name) <= _MAX_CACHED_NAME_BYTES else canonical_name(name)


_cached_canonical = lru_cache(maxsize=4096)(canonical_name)


def _describe(error: BaseException, route: _Route | None) -> str:
    """One sentence for people; whatever a destination says is shortened and printable."""
    where = route.name if route is not None else "the destination"
    refused = _cause_of_kind(error, AddressRefused)
    if refused is not None:
        return str(refused)
    match error:
        case ClientConnectorDNSError():
            return f'cannot resolve host "{error.host}": {_reason(error.os_error)}'
        case ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "") or error.certificate_error
            return f"cannot trust the certificate of {where}: {_shown(reason)}"
        case ClientConnectorError():
            reason = _reason(error.os_error)
            if isinstance(error, ClientConnectorSSLError):
                return f"TLS handshake with {where} failed: {reason}"
            return f"cannot connect to {where}: {reason}"
        case ServerDisconnectedError():
            return "destination closed the connection without a complete answer"
        case ClientPayloadError():
            return "destination broke off its answer"
        case HttpProcessingError():
            return f"destination sent no valid HTTP answer: {_shown(error.message)}"
        case ClientOSError():
            return f"connection to {where} was lost: {_reason(error)}"
        case ValueError():
            return f"request cannot be sent: {_shown(error)}"
        case _:
            return f"delivery failed: {_shown(f'{type(error).__name__} {error}')}"


def _cause_of_kind(error: BaseException | None, kind: type[AddressRefused]) -> AddressRefused | None:
    while error is not None:
        if isinstance(error, kind):
            return error
        error = error.__cause__
    return None


def _reason(error: OSError) -> str:
    return _shown(error.strerror or error).lower()


def _shown(value: object) -> str:
    text = " ".join(str(value).split())[:_SHOWN_CHARACTERS]
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
