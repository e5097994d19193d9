"""Whether this process lives, whether it can accept messages, and its metrics."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from qstash_clone.api.hot_path import Stores
from qstash_clone.api.responses import JsonResponse
from qstash_clone.errors import StorageError
from qstash_clone.instruments import CONTENT_TYPE, render_metrics
from qstash_clone.settings import Settings
from qstash_clone.storage.interface import Stats

_CACHE_S = 1.0
"""Probes need no credential, so what they cost the store is bounded: one question a second."""
_PATIENCE_S = 2.0
"""Kubernetes gives a probe one second by default, balancers up to five; the store's own patience may be longer."""

_T = TypeVar("_T")


class HealthRoutes:
    """`/livez`, `/readyz` and `/metrics`, without a credential; see docs/reference/metrics.md."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._durability = settings.redis_durability
        self._stores = stores
        self._stats = Cached(self._ask_stats)
        self._writable = Cached(self._ask_writable)

    async def livez(self, request: Request) -> Response:
        """This process answers."""
        return JsonResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """This process can store a message durably; missing workers are reported and change nothing."""
        reason = await self._writable.get()
        if reason is not None:
            return JsonResponse({"error": reason, "durability": self._durability}, status_code=503)
        stats = await self._stats.get()
        fields: dict[str, object] = {"status": "ready", "durability": self._durability}
        if stats is not None:
            fields |= {"workers": stats.workers, "capacity": stats.capacity}
        return JsonResponse(fields)

    async def metrics(self, request: Request) -> Response:
        """Everything in Prometheus's text format."""
        return Response(render_metrics(gauges_of(await self._stats.get())), headers={"content-type": CONTENT_TYPE})

    async def _ask_stats(self) -> Stats | None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._stores.admin.stats()
        except (StorageError, TimeoutError):
            return None

    async def _ask_writable(self) -> str | None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._stores.admin.check_durable_write()
        except (StorageError, TimeoutError):
            return "the store cannot take a message durably at the moment"
        return None


class Cached(Generic[_T]):
    """The result of a question, asked at most once a second and by one caller at a time."""

    def __init__(self, ask: Callable[[], Awaitable[_T]]) -> None:
        self._ask = ask
        self._asking = asyncio.Lock()
        self._answer: tuple[float, _T] | None = None

    async def get(self) -> _T:
        """A result that came at most a second ago."""
        async with self._asking:
            if self._answer is None or time.monotonic() - self._answer[0] > _CACHE_S:
                answer = await self._ask()
                # The time it came: while a store hangs, an answer takes longer to come than it is good for, and each
                # of those who wait here would ask in turn.
                self._answer = (time.monotonic(), answer)
            return self._answer[1]


def gauges_of(stats: Stats | None) -> dict[str, tuple[str, float]]:
    """The store's state as gauges, name to help and value; None if it did not answer."""
    gauges = {"store_up": ("Whether the store answered this scrape.", 0.0 if stats is None else 1.0)}
    if stats is not None:
        gauges |= {
            "waiting_timers": ("Messages waiting for their time: delays and retries.", stats.waiting_timers),
            "ready": ("Messages waiting for a worker.", stats.ready),
            "in_flight": ("Messages being delivered.", stats.in_flight),
            "lanes_waiting": ("Lanes that have messages waiting.", stats.lanes_waiting),
            "lanes_blocked": ("Those of them held up by a pause or their own limits.", stats.lanes_blocked),
            "dead_letters": ("Dead letters.", stats.dead_letters),
            "workers": ("Live workers.", stats.workers),
            "worker_capacity": ("Deliveries at once of all live workers.", stats.capacity),
            "store_used_memory_bytes": ("Memory that the store uses.", stats.used_memory_bytes),
            "store_max_memory_bytes": ("Memory that the store may use; 0 is no limit.", stats.max_memory_bytes),
        }
    return gauges
