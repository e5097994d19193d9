"""The grouper: order, limits, one call at a time, and an answer to everybody."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.storage.grouping import MAX_BYTES, MAX_ITEMS, Grouper


class Recorder:
    """A call that can be held back; item n weighs n bytes and its result is n."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0

    async def call(self, items: Sequence[int]) -> Sequence[int | Exception]:
        assert self.under_way == 0, "one call at a time"
        self.under_way += 1
        self.groups.append(list(items))
        try:
            await self.gate.wait()
            if any(item == -2 for item in items):
                raise OSError("the whole group")
            return [ValueError(item) if item == -1 else item for item in items]
        finally:
            self.under_way -= 1

    def grouper(self) -> Grouper[int, int]:
        return Grouper(self.call, lambda item: max(item, 0))


async def test_a_lone_item_waits_for_nobody() -> None:
    recorder = Recorder()
    assert await recorder.grouper().submit(5) == 5
    assert recorder.groups == [[5]]


async def test_what_arrives_during_a_call_goes_together_in_the_next() -> None:
    recorder = Recorder()
    grouper = recorder.grouper()
    recorder.gate.clear()
    first = grouper.submit(1)
    await asyncio.sleep(0)
    others = [grouper.submit(item) for item in (2, 3, 4)]
    recorder.gate.set()
    assert await asyncio.gather(first, *others) == [1, 2, 3, 4]
    assert recorder.groups == [[1], [2, 3, 4]]


@given(st.lists(st.integers(0, 2 * MAX_BYTES), max_size=60) | st.lists(st.integers(0, 20), max_size=400))
def test_groups_keep_order_and_limits(items: list[int]) -> None:
    async def run() -> None:
        recorder = Recorder()
        grouper = recorder.grouper()
        results = await asyncio.gather(*(grouper.submit(item) for item in items))
        assert results == items
        assert [item for group in recorder.groups for item in group] == items
        for group in recorder.groups:
            assert len(group) <= MAX_ITEMS
            assert sum(group) <= MAX_BYTES or len(group) == 1
        for group, following in pairwise(recorder.groups):  # as full as may be
            assert len(group) == MAX_ITEMS or sum(group) + following[0] > MAX_BYTES

    asyncio.run(run())


async def test_a_failing_item_fails_alone_and_a_failing_call_for_all() -> None:
    recorder = Recorder()
    grouper = recorder.grouper()
    results = await asyncio.gather(*map(grouper.submit, (1, -1, 3)), return_exceptions=True)
    assert (results[0], results[2]) == (1, 3)
    assert isinstance(results[1], ValueError)
    results = await asyncio.gather(*map(grouper.submit, (4, -2)), return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError]
    assert await grouper.submit(6) == 6


async def test_a_caller_that_gives_up_changes_nothing_for_the_others() -> None:
    recorder = Recorder()
    grouper = recorder.grouper()
    recorder.gate.clear()
    first, second = grouper.submit(1), grouper.submit(2)
    await asyncio.sleep(0)
    late = grouper.submit(3)
    first.cancel()
    late.cancel()
    recorder.gate.set()
    assert await second == 2
    assert await grouper.submit(4) == 4
    assert recorder.groups[0] == [1, 2], "and it is not taken back"


async def test_if_the_feeder_is_cancelled_everybody_hears_of_it() -> None:
    recorder = Recorder()
    grouper = recorder.grouper()
    recorder.gate.clear()
    before = asyncio.all_tasks()
    under_way = grouper.submit(1)
    [feeder] = asyncio.all_tasks() - before
    await asyncio.sleep(0)
    waiting = grouper.submit(2)
    feeder.cancel()
    for future in (under_way, waiting):
        with pytest.raises(asyncio.CancelledError):
            await future
    recorder.gate.set()
    assert await grouper.submit(3) == 3


async def test_sizes_are_reported() -> None:
    sizes: list[int] = []
    recorder = Recorder()
    grouper = Grouper[int, int](recorder.call, lambda item: item, sizes.append)
    await asyncio.gather(*map(grouper.submit, range(MAX_ITEMS + 5)))
    assert sizes == [MAX_ITEMS, 5]
