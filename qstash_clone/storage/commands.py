"""Plain Redis commands, with the library's loose types and errors kept in this one place."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import redis.exceptions
from redis.asyncio import Redis

from qstash_clone.errors import StorageError, StorageFull, StorageTimeout, StorageUnavailable

Argument = bytes | str | int

RedisError: Final = redis.exceptions.RedisError
MAY_HAVE_RUN: Final = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError, asyncio.TimeoutError)
"""After these nobody knows whether the command was executed."""
MAX_AT_ONCE: Final = 100
"""Commands under way, each on a connection of its own. Those behind wait: a thousand consumers may wake at the same
moment, and Redis would execute their commands one after the other anyway."""
FAULTS: Final = (redis.exceptions.RedisError, OSError, asyncio.TimeoutError)


def translate(error: Exception) -> StorageError:
    """A library's exception as one of ours."""
    text = str(error)
    # 6.2 says it in the middle of a script's error, 7 as an error code, which the library turns into a type.
    if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM command not allowed" in text:
        return StorageFull("Redis is at its memory limit.")
    if isinstance(error, redis.exceptions.TimeoutError | asyncio.TimeoutError):
        return StorageTimeout(f"Redis did not answer in time: {text[:200]}")
    return StorageUnavailable(f"Redis cannot be used: {type(error).__name__}: {text[:200]}")


class RedisCommands:
    """Runs commands by name. Replies have the library's shapes; bytes are never decoded."""

    def __init__(self, client: Redis) -> None:
        self._client: Any = client
        self._places = asyncio.Semaphore(MAX_AT_ONCE)

    async def send(self, *command: Argument) -> Any:
        """The reply; raises the library's errors."""
        async with self._places:
            return await self._client.execute_command(*command)

    async def ask(self, *command: Argument) -> Any:
        """The reply; raises `StorageUnavailable` or `StorageFull`."""
        try:
            async with self._places:
                return await self._client.execute_command(*command)
        except FAULTS as error:
            raise translate(error) from error

    async def ask_all(self, commands: Sequence[Sequence[Argument]], *, atomically: bool = False) -> list[Any]:
        """The replies of several commands sent at once.

        Other clients' commands may interleave with them, unless `atomically`, which takes keys of one partition only.
        """
        try:
            async with self._places, self._client.pipeline(transaction=atomically) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                return await pipeline.execute()
        except FAULTS as error:
            raise translate(error) from error

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()
