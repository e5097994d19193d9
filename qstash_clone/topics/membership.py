"""Turns of consumer groups: what is stored of a group is loaded, changed, shared out anew and put in its place."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final
from weakref import WeakValueDictionary

from qstash_clone.errors import QuotaExceeded
from qstash_clone.topics.groups import Group, decode_group, encode_group
from qstash_clone.topics.interface import GroupState, TopicStores
from qstash_clone.topics.reading import MAX_RACES, Reader, too_many_races
from qstash_clone.topics.records import Topic

_LOAD_TOGETHER: Final = 50


class Membership:
    """Groups in the store. Between processes the fastest turn counts and the others start over; within a process they
    wait for each other, which saves them that."""

    def __init__(self, stores: TopicStores, reader: Reader) -> None:
        self._stores = stores
        self._reader = reader
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def turn(self, name: str) -> AbstractAsyncContextManager[None]:
        """Held while a group is loaded, changed and saved."""
        return self._turns.setdefault(name, asyncio.Lock())

    async def load(self, name: str) -> tuple[GroupState, Group]:
        """A group as it is now: without the instances that are dead by now."""
        state = await self._stores.groups.load_group(name)
        group = decode_group(name, state.encoded)
        group.close_dead(state.real_ms)
        return state, group

    async def save(self, name: str, state: GroupState, group: Group) -> bool:
        """Whether the group counts as it is here: if nobody has changed it since it was loaded."""
        encoded = encode_group(group)
        if encoded == state.encoded or (not state.encoded and group == Group()):
            return True
        return await self._stores.groups.save_group(
            name, state.revision, encoded, keep_ms=group.keep_ms(), live_ms=group.live_ms()
        )

    async def change(self, name: str, change: Callable[[Group, int], None]) -> None:
        """One whole turn. The change gets the group and the time, and may be made more than once, each time on another
        value; what it raises ends the turn with nothing changed."""
        async with self.turn(name):
            await self.change_in_turn(name, change)

    async def change_in_turn(self, name: str, change: Callable[[Group, int], None]) -> None:
        """The same for who holds the turn."""
        for _ in range(MAX_RACES):
            state, group = await self.load(name)
            change(group, state.real_ms)
            await self.assign(group)
            if await self.save(name, state, group):
                return
        raise too_many_races(f"the consumer group {name[:100]}")

    async def assign(self, group: Group) -> Mapping[str, Topic]:
        """Share the partitions out as it is due, and let new owners begin. Returns those topics of the group that
        exist."""
        for _ in range(MAX_RACES):
            topics = await self._topics_of(group)
            group.assign(topics)
            places = group.unplaced()
            bounds = await self._reader.read_bounds([(topics[topic], at) for topic, at in places]) if places else []
            if bounds is not None:
                for place, one in zip(places, bounds, strict=True):
                    group.start(place, one)
                return topics
        raise too_many_races("a topic")

    async def _topics_of(self, group: Group) -> dict[str, Topic]:
        log = self._stores.topics
        names = group.known_topics()
        found = [await log.get_topic(name) for name in sorted(names)]
        topics = {topic.name: topic for topic in found if topic is not None}
        for name, share in group.topics.items():
            if name in topics and topics[name].generation != share.generation:
                # Either may be the older one: what `get_topic` says can be a second old. Taking the younger one for
                # that which is gone would cost the group its commits.
                return {topic.name: topic for topic in await log.list_topics() if topic.name in names}
        return topics

    async def check_room(self, name: str, group: Group) -> None:
        """Raise `QuotaExceeded` if there are more instances than partitions, those of this group as it is here. Several
        calls at the same moment may all find that the last one has room."""
        partitions = sum(topic.config.partitions for topic in await self._stores.topics.list_topics())
        others = [other for other_name, other in await self.load_live() if other_name != name]
        if sum(len(one.instances) for one in (group, *others)) > partitions:
            raise QuotaExceeded(
                f"there are as many consumer instances as partitions already, {partitions}: delete one, "
                "or wait until an idle one is closed"
            )

    async def load_live(self) -> list[tuple[str, Group]]:
        """The groups that may have instances, in the order of their names."""
        names = await self._stores.groups.list_live_groups()
        groups: list[tuple[str, Group]] = []
        for begin in range(0, len(names), _LOAD_TOGETHER):
            some = names[begin : begin + _LOAD_TOGETHER]
            loaded = await asyncio.gather(*map(self.load, some))
            groups += [(name, group) for name, (_, group) in zip(some, loaded, strict=True)]
        return groups
