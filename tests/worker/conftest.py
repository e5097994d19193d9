"""Fixtures of the worker's tests."""

import dataclasses
from collections.abc import AsyncIterator, Callable

import pytest
import redis.asyncio

from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from tests.worker.rig import Rig, build_rig


@pytest.fixture
def make_rig(settings: Settings, store: Store, redis_client: "redis.asyncio.Redis") -> Callable[..., Rig]:
    """Another worker on the same store, with other settings."""

    def make(**changes: object) -> Rig:
        return build_rig(dataclasses.replace(settings, **changes), store, redis_client)  # pyright: ignore[reportArgumentType]

    return make


@pytest.fixture
async def rig(make_rig: Callable[..., Rig]) -> AsyncIterator[Rig]:
    """A worker that the store knows; what it still holds at the end is ended."""
    rig = make_rig(worker_concurrency=10)
    await rig.start()
    yield rig
    rig.transport.may_answer.set()
    for delivery in rig.worker.holdings.all():
        assert delivery.task is not None
        delivery.task.cancel()
