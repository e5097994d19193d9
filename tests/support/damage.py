"""Makes a key unusable for a while, as a key is during the migration of its slot: every command on it fails."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

ASIDE = b"aside:"
SORTED_SETS = (b"timers", b"workers", b"schedules", b"catalogue", b"windows", b"}queues", b"}flows")
"""What would not notice another sorted set in its place."""


@asynccontextmanager
async def damaged(client: "redis.asyncio.Redis", key: bytes) -> AsyncGenerator[None]:
    """Inside, `key` has a type that no script expects there; afterwards it is what it was."""
    commands: Any = client
    is_there = await commands.exists(key)
    if is_there:
        await commands.rename(key, ASIDE + key)
    if key.endswith(SORTED_SETS):
        await commands.sadd(key, "damaged")
    else:
        await commands.zadd(key, {"damaged": 0})
    try:
        yield
    finally:
        await commands.delete(key)
        if is_there:
            await commands.rename(ASIDE + key, key)
