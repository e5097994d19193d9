"""Reads whole sets in batches, each a short step for Redis however large the set is."""

from collections.abc import AsyncIterator
from typing import Any, Final

from qstash_clone.storage.commands import RedisCommands

SCAN_TOGETHER: Final = 500


async def scan_set(commands: RedisCommands, key: bytes) -> AsyncIterator[list[bytes]]:
    """The members of a set. Those that are there all the time come at least once."""
    async for batch in _scan(commands, "SSCAN", key):
        yield batch


async def scan_sorted_set(commands: RedisCommands, key: bytes) -> AsyncIterator[list[bytes]]:
    """The members of a sorted set, in no order. Those that are there all the time come at least once."""
    async for batch in _scan(commands, "ZSCAN", key):
        yield [member for member, _ in batch]


async def _scan(commands: RedisCommands, command: str, key: bytes) -> AsyncIterator[list[Any]]:
    cursor = 0
    while True:
        cursor, batch = await commands.ask(command, key, cursor, "COUNT", SCAN_TOGETHER)
        if batch:
            yield batch
        if cursor == 0:
            return
