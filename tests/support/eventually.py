"""Waiting for a condition instead of for a time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def eventually(predicate: Callable[[], T | Awaitable[T]], *, timeout: float = 10.0, what: str = "") -> T:
    """The first truthy result of `predicate` (plain or async); AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        result: Any = predicate()
        value: T = await result if inspect.isawaitable(result) else result
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or inspect.getsource(predicate).strip()}")
        await asyncio.sleep(0.005)
