"""The api's way to a store that may not be there yet: opened in the background, again and again until it answers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from qstash_clone.clock import Clock
from qstash_clone.errors import ConfigurationError, StorageUnavailable, StoreIncompatible
from qstash_clone.observability import STORE_OPENED, STORE_RECOVERED, STORE_UNAVAILABLE, emit
from qstash_clone.settings import Settings
from qstash_clone.storage.interface import AdminStore, PublishStore
from qstash_clone.storage.resources import FlowControlStore, QueueStore, ScheduleStore, UrlGroupStore, VirtualClockStore
from qstash_clone.storage.store import Store
from qstash_clone.topics.interface import GroupStore, TopicLog
from qstash_clone.topics.schemas import SchemaStore

_FIRST_PAUSE_MS = 100
_LONGEST_PAUSE_MS = 2_000


class StoreHandle:
    """`Stores` for the application; raises `StorageUnavailable` until Redis answered for the first time."""

    def __init__(self, settings: Settings, clock: Clock, opener: Callable[[Settings], Awaitable[Store]]) -> None:
        self._settings = settings
        self._clock = clock
        self._opener = opener
        self._store: Store | None = None

    @property
    def publishing(self) -> PublishStore:
        return self._opened().publishing

    @property
    def admin(self) -> AdminStore:
        return self._opened().admin

    @property
    def queues(self) -> QueueStore:
        return self._opened().queues

    @property
    def flow_controls(self) -> FlowControlStore:
        return self._opened().flow_controls

    @property
    def schedules(self) -> ScheduleStore:
        return self._opened().schedules

    @property
    def url_groups(self) -> UrlGroupStore:
        return self._opened().url_groups

    @property
    def virtual_clock(self) -> VirtualClockStore:
        return self._opened().virtual_clock

    @property
    def topics(self) -> TopicLog:
        return self._opened().topics

    @property
    def groups(self) -> GroupStore:
        return self._opened().groups

    @property
    def schemas(self) -> SchemaStore:
        return self._opened().schemas

    def _opened(self) -> Store:
        if self._store is None:
            raise StorageUnavailable("The store was not reached yet.")
        return self._store

    async def open(self) -> None:
        """Return once the store is open, however long Redis stays away.

        Raises `ConfigurationError` or `StoreIncompatible` for a Redis that this process must not use.
        """
        pause_ms = 0
        while self._store is None:
            try:
                self._store = await self._opener(self._settings)
            except (ConfigurationError, StoreIncompatible):
                raise
            except StorageUnavailable as error:
                if not pause_ms:
                    emit(STORE_UNAVAILABLE, level=logging.WARNING, error=str(error))
                pause_ms = min(max(_FIRST_PAUSE_MS, 2 * pause_ms), _LONGEST_PAUSE_MS)
                await self._clock.sleep(pause_ms)
        engine = self._store.engine
        emit(
            STORE_OPENED,
            engine=engine.engine,
            engine_version=engine.version,
            promise=engine.promise,
            # A long window can swallow messages for a long time, so nobody should be surprised by it.
            deduplication_window_ms=self._settings.deduplication_window_ms,
        )
        if pause_ms:
            emit(STORE_RECOVERED)

    async def aclose(self) -> None:
        """Close what was opened."""
        if self._store is not None:
            store, self._store = self._store, None
            await asyncio.shield(store.aclose())
