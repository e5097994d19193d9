"""Topics and consumer groups on the real store, with a hand between a turn of a group and what it saves."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from qstash_clone.storage.store import Store
from qstash_clone.topics.consuming import ConsumeCall, Consumer
from qstash_clone.topics.groups import Group, InstanceSettings, decode_group
from qstash_clone.topics.interface import GroupState, GroupStore, ReadFrom, TopicLog
from qstash_clone.topics.reading import Found, Reader
from qstash_clone.topics.records import Record, Slice, TopicConfig

EARLIEST = InstanceSettings(offset_reset="earliest")
BY_HAND = InstanceSettings(offset_reset="earliest", auto_commit=False)


class WatchedGroups:
    """A `GroupStore` whose clock can be moved, that counts what is saved, and tells before and after it is."""

    def __init__(self, groups: GroupStore) -> None:
        self._groups = groups
        self.ahead_ms = 0
        self.saves = 0
        self.kept_ms = 0
        """For how long the last one that was saved stays."""
        self.before_save: Callable[[], Awaitable[object]] | None = None
        """Called once, before the next one."""
        self.after_save: Callable[[], object] | None = None
        """Called once, after the next one."""

    async def load_group(self, name: str) -> GroupState:
        state = await self._groups.load_group(name)
        return GroupState(state.revision, state.encoded, state.real_ms + self.ahead_ms)

    async def save_group(self, name: str, revision: int, encoded: bytes, *, keep_ms: int, live_ms: int) -> bool:
        before, self.before_save = self.before_save, None
        if before is not None:
            await before()
        is_saved = await self._groups.save_group(name, revision, encoded, keep_ms=keep_ms, live_ms=live_ms)
        self.saves += is_saved
        self.kept_ms = keep_ms
        after, self.after_save = self.after_save, None
        if after is not None:
            after()
        return is_saved

    async def list_groups(self) -> list[str]:
        return await self._groups.list_groups()

    async def list_live_groups(self) -> list[str]:
        return await self._groups.list_live_groups()


class Scene:
    """One or more processes that serve the same topics and groups."""

    def __init__(self, store: Store) -> None:
        self.topics: TopicLog = store.topics
        self.log = store.topics
        self.groups = WatchedGroups(store.groups)
        self.reads = 0
        self.waits = 0

    def consumer(self, *, max_records: int = 500) -> Consumer:
        """That of another process."""
        return Consumer(self, self.reader(max_records=max_records))

    def reader(self, *, max_records: int = 500) -> "CountingReader":
        return CountingReader(self, max_records=max_records)

    async def make_topic(self, name: str = "orders", partitions: int = 1, **config: Any) -> None:
        await self.topics.create_topic(name, TopicConfig(partitions=partitions, **config))

    async def append(self, *values: str, topic: str = "orders", partition: int = 0) -> None:
        found = await self.topics.get_topic(topic)
        assert found is not None
        await self.topics.append(found, partition, [Record(value.encode()) for value in values])

    async def group(self, name: str = "g") -> Group:
        """What is stored of a group."""
        return decode_group(name, (await self.groups.load_group(name)).encoded)


class CountingReader(Reader):
    """Tells its scene what it does."""

    def __init__(self, scene: Scene, *, max_records: int) -> None:
        super().__init__(scene, max_records=max_records, max_bytes=4 * 1024 * 1024)
        self._scene = scene

    async def read(self, reads: Sequence[ReadFrom]) -> list[Slice] | None:
        self._scene.reads += 1
        return await super().read(reads)

    async def wait(self, reads: Sequence[ReadFrom], timeout_s: float, departed: asyncio.Event) -> None:
        self._scene.waits += 1
        await super().wait(reads, timeout_s, departed)


@pytest.fixture
def scene(store: Store) -> Scene:
    return Scene(store)


def call(
    instance: str = "a",
    *topics: str,
    group: str = "g",
    settings: InstanceSettings = EARLIEST,
    timeout_ms: int = 0,
) -> ConsumeCall:
    return ConsumeCall(
        group=group, instance=instance, topics=topics or ("orders",), settings=settings, timeout_ms=timeout_ms
    )


def values(found: list[Found]) -> list[str]:
    return [(one.record.value or b"").decode() for one in found]


def present() -> asyncio.Event:
    """A caller that does not depart."""
    return asyncio.Event()
