"""The transport is tested on both event loops: errors reach it in different shapes from each."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from qstash_clone.domain.egress import EgressPolicy
from tests.support.receiver import Receiver
from worker.transport import AiohttpTransport


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def transport() -> AsyncIterator[AiohttpTransport]:
    """May reach everything."""
    async with AiohttpTransport(egress=EgressPolicy(allow_private=True)) as transport:
        yield transport
