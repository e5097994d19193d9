"""Ending tasks that tests left running beside them."""

import asyncio
from typing import Any

_AGAIN_AFTER_S = 0.05


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancel a task until it has ended; what it raised passes through.

    Once is not enough: `asyncio.wait_for` of Python 3.11, through which the Redis client sends its commands, drops a
    cancellation that arrives when a command has just been sent.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_AGAIN_AFTER_S)
    if not task.cancelled():
        task.result()
