"""The worker process: settings, signals, and the concrete parts of one worker."""

import asyncio
import logging
import os
import random
import signal
import sys
from collections.abc import Awaitable

import uvloop

from qstash_clone import __version__
from qstash_clone.clock import Clock, SystemClock
from qstash_clone.domain.egress import EgressPolicy
from qstash_clone.domain.host_overrides import parse_host_overrides
from qstash_clone.errors import ConfigurationError, StorageError, StoreIncompatible
from qstash_clone.observability import STORE_OPENED, STORE_UNAVAILABLE, configure_logging, emit, flush_logs
from qstash_clone.parent_watch import watch_parent
from qstash_clone.setting_layers import settings_of
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store, open_store
from worker.assembly import assemble, new_consumer_name
from worker.health import Health
from worker.loop import Alarm, Backoff
from worker.probes import Probes
from worker.transport import AiohttpTransport

EXIT_CONFIGURATION = 2
OPENING = "opening"
"""Name under which the opening of the store reports to health."""


def run(settings: Settings) -> None:
    """Deliver until told to stop.

    SIGTERM, SIGINT and the end of the supervising process drain; a second signal ends the process at once. Exits with
    2 and one sentence if the settings or the store must be changed first, with 1 if a part of the worker failed.
    """
    configure_logging(
        log_format=settings.log_format,
        level=settings.log_level,
        role="worker",
        secrets=settings.secrets,
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except (ConfigurationError, StoreIncompatible) as error:
        flush_logs()
        print(f"qstash-clone worker: {error}", file=sys.stderr)
        raise SystemExit(EXIT_CONFIGURATION) from None
    finally:
        flush_logs()


class _Stop:
    """Remembers that the worker was told to stop, whoever told it and however early."""

    def __init__(self, alarm: Alarm) -> None:
        self.is_requested = False
        self.on_request = alarm.ring

    def request(self) -> None:
        self.is_requested = True
        self.on_request()

    def handle_signal(self, number: int) -> None:
        if self.is_requested:
            flush_logs()
            # At once: neither a name look-up in a thread nor a connection that hangs may hold this up. Leases run out.
            os._exit(128 + number)
        self.request()


async def _serve(settings: Settings) -> None:
    clock = SystemClock()
    health = Health(clock)
    alarm = Alarm(clock)
    stop = _Stop(alarm)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.handle_signal, number)
    watch_parent(loop, stop.request)
    transport = AiohttpTransport(
        egress=EgressPolicy(allow_private=settings.allow_private_destinations, allowed=settings.allowed_destinations),
        max_response_bytes=settings.max_message_bytes,
        ca_file=settings.delivery_ca_file,
        host_overrides=parse_host_overrides(settings.host_overrides),
    )
    probes = Probes(health)
    try:
        if settings.probe_port:
            await probes.start(settings.probe_host, settings.probe_port)
        store = await _open(settings, clock, health, alarm, stop)
        if store is None:
            return
        try:
            consumer = new_consumer_name()
            worker = assemble(
                settings,
                store=store.delivery,
                schedules=store.schedules,
                url_groups=store.url_groups,
                topics=store.topics,
                transport=transport,
                clock=clock,
                health=health,
                consumer=consumer,
                rng=random.Random(),
            )
            probes.gauges = worker.gauges
            stop.on_request = worker.supervisor.request_stop
            if stop.is_requested:
                stop.request()
            await worker.supervisor.run()
        finally:
            await _quietly(store.aclose())
    finally:
        await probes.aclose()
        await _quietly(transport.aclose())


async def _open(settings: Settings, clock: Clock, health: Health, alarm: Alarm, stop: _Stop) -> Store | None:
    """The store, as soon as Redis answers; None if the worker was told to stop before."""
    backoff = Backoff()
    while not stop.is_requested:
        health.beat(OPENING)
        try:
            store = await open_store(settings, client_name=f"qstash-clone-worker-{os.getpid()}")
        except StoreIncompatible:
            raise
        except StorageError as error:
            health.storage_failed(OPENING, error)
            await alarm.nap(backoff.next_ms())
        else:
            health.storage_worked(OPENING)
            health.retire(OPENING)
            emit(STORE_OPENED, version=__version__, engine=store.engine.engine, promise=store.engine.promise)
            return store
    return None


async def _quietly(closing: Awaitable[None]) -> None:
    """Close something at the end; a connection that breaks while it is closed is no news."""
    try:
        await closing
    except (OSError, StorageError) as error:
        emit(STORE_UNAVAILABLE, level=logging.DEBUG, error=str(error))


if __name__ == "__main__":
    run(settings_of(os.environ))
