"""Counts what Redis is made to do."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

NOT_OURS = {"info", "config|resetstat", "config", "hincrby", "xpending", "xclaim"}
"""Commands of the measurement and of the fixtures. Scripts use XPENDING with taken entries and XCLAIM to extend."""
FORBIDDEN = {"keys", "scan", "sscan", "hscan", "zscan", "sort", "linsert", "lrem", "lrange", "smembers", "lpos"}
"""Commands whose work grows with what is stored."""


class Meter:
    """Counts the commands that Redis executes, those inside scripts too."""

    def __init__(self, redis_client: Any) -> None:
        self._client = redis_client

    async def count(self, step: Callable[[], Awaitable[object]]) -> Counter[str]:
        await self._client.config_resetstat()
        await step()
        stats = await self._client.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}
        return Counter({name: count for name, count in calls.items() if name not in NOT_OURS})
