"""Tasks that a test left running are ended, whatever their libraries make of a cancellation."""

import asyncio

import pytest

from tests.support.tasks import end


async def test_a_task_that_dropped_a_cancellation_is_cancelled_again() -> None:
    dropped = 0

    async def stubborn() -> None:
        nonlocal dropped
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                dropped += 1
                if dropped == 2:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end(task)
    assert (task.cancelled(), dropped) == (True, 2)


async def test_a_failure_is_not_hidden() -> None:
    async def failing() -> None:
        raise ValueError("found something")

    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="found something"):
        await end(task)
