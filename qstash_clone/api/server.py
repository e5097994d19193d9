"""One serving process: uvicorn's server with this project's protocol class, signals, deadlines and start-up event."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Generator
from email.utils import formatdate

import uvloop
from starlette.types import ASGIApp
from uvicorn.server import Server

from qstash_clone.api.app import create_app
from qstash_clone.api.protocol import ApiProtocol, ProtocolConfig
from qstash_clone.api.store_handle import StoreHandle
from qstash_clone.clock import SystemClock
from qstash_clone.errors import ConfigurationError
from qstash_clone.observability import SERVER_STARTED, SERVER_STOPPED, emit, flush_logs
from qstash_clone.parent_watch import watch_parent
from qstash_clone.settings import Settings
from qstash_clone.storage.store import open_store

_TICKS_PER_DEADLINE_CHECK = 5
_TICKS_PER_DATE = 10
"""uvicorn ticks ten times a second."""
_BACKLOG = 2048


STOP_NOW = signal.SIGUSR1
"""Ends one of several processes at once: they cannot tell a second SIGTERM by the user from one that a service manager
or a terminal sent to every process, and that the parent passes on."""


class ApiServer(Server):
    """uvicorn's server; ends cleanly on SIGTERM and SIGINT, at once on the second one (or, as one of several processes,
    on `STOP_NOW`)."""

    config: ProtocolConfig
    is_one_of_several = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            emit(SERVER_STARTED, host=host, port=port)

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_DATE == 0:
            self.config.common_head = b"date: %b\r\nserver: qstash-clone\r\n" % formatdate(usegmt=True).encode()
        if counter % _TICKS_PER_DEADLINE_CHECK == 0:
            now_s = asyncio.get_running_loop().time()
            connections: list[object] = list(self.server_state.connections)
            for connection in connections:
                if isinstance(connection, ApiProtocol):
                    connection.check_deadline(now_s)
        return self.should_exit

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        # uvicorn raises the signal again at the end, which would end the process before its log is written.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        if self.is_one_of_several:
            loop.add_signal_handler(STOP_NOW, self._stop_now)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, STOP_NOW):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.force_exit = self.force_exit or (self.should_exit and not self.is_one_of_several)
        self.should_exit = True

    def _stop_now(self) -> None:
        self.force_exit = self.should_exit = True


def protocol_config(app: ASGIApp, settings: Settings) -> ProtocolConfig:
    """How uvicorn is to serve the application."""
    return ProtocolConfig(
        app,
        max_headers=settings.max_headers,
        max_header_bytes=settings.max_header_bytes,
        http=ApiProtocol,
        ws="none",
        loop="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        # It would believe any local client; `auth.CallerAddress` knows whom to trust.
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=-(-settings.shutdown_grace_ms // 1000),
    )


def listen(settings: Settings) -> socket.socket:
    """A listening socket on the settings' host and port. Raises ConfigurationError, saying what is in the way."""
    return _listen(settings, settings.port, shared=False)


def listen_shared(settings: Settings) -> list[socket.socket]:
    """One listening socket per process, all on one port.

    On Linux the kernel spreads connections over sockets of their own evenly, and one whose process died keeps its
    queue for the next; elsewhere all processes take from one socket.
    """
    first = _listen(settings, settings.port, shared=False)
    if sys.platform != "linux":
        return [first] * settings.processes
    # The first attempt found out whether somebody else has the port, which a shared one would not notice.
    port = first.getsockname()[1]
    first.close()
    return [_listen(settings, port, shared=True) for _ in range(settings.processes)]


def _listen(settings: Settings, port: int, *, shared: bool) -> socket.socket:
    place = f"{settings.host}, port {port}"
    try:
        infos = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = infos[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"Cannot listen on {place}: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"Cannot listen on {place}: it is in use; stop what runs there or choose another with "
                "QSTASH_CLONE_PORT."
            ) from error
        raise ConfigurationError(f"Cannot listen on {place}: {error.strerror}.") from error
    return listener


def serve(settings: Settings, listener: socket.socket, *, is_one_of_several: bool = False) -> None:
    """Serve until told to stop. Raises ConfigurationError or StoreIncompatible if the Redis must not be used."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, listener, is_one_of_several))


async def _serve(settings: Settings, listener: socket.socket, is_one_of_several: bool) -> None:
    watch_parent(asyncio.get_running_loop(), _end_orphan)
    clock = SystemClock()
    stores = StoreHandle(settings, clock, open_store)
    server = ApiServer(protocol_config(create_app(settings, stores, clock), settings))
    server.is_one_of_several = is_one_of_several
    started_s = time.monotonic()
    serving = asyncio.ensure_future(server.serve([listener]))
    opening = asyncio.ensure_future(stores.open())
    try:
        await asyncio.wait([serving, opening], return_when=asyncio.FIRST_COMPLETED)
        if not serving.done() and opening.exception() is not None:
            server.should_exit = server.force_exit = True
        await serving
        if opening.done():
            opening.result()
    finally:
        # Once may not be enough: `asyncio.wait_for` of Python 3.11, through which the Redis client sends its commands,
        # drops a cancellation that arrives when a command has just been sent.
        while not opening.done():
            opening.cancel()
            await asyncio.wait([opening], timeout=0.1)
        await stores.aclose()
        emit(SERVER_STOPPED, uptime_s=round(time.monotonic() - started_s, 3))


def _end_orphan() -> None:
    # Whoever supervised this process was killed, and takes the port and the store along; there is nothing to save.
    emit(SERVER_STOPPED, reason="the supervisor is gone")
    flush_logs()
    os._exit(1)
