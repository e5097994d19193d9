"""What instances of consumer groups do: take the next records, commit, leave; see docs/explanation/consumer-groups.md.

A record counts as handed out when the state of the group that says so has replaced the one it was decided on, and is
answered after that: no other call gets it then.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from qstash_clone.errors import InvalidRequest, NotFound
from qstash_clone.topics.groups import Group, InstanceSettings, Owned
from qstash_clone.topics.interface import ReadFrom, TopicStores
from qstash_clone.topics.membership import Membership
from qstash_clone.topics.reading import (
    MAX_RACES,
    Found,
    Reader,
    TopicOffset,
    behind,
    found_in,
    no_topic,
    too_many_races,
)
from qstash_clone.topics.records import Place, Slice, Topic

LOOK_AGAIN_S: Final = 1.0
"""An instance that waits may be given other partitions meanwhile, and must be seen to be alive."""
NO_COMMIT: Final = -1


class ConsumeCall(msgspec.Struct, frozen=True, kw_only=True):
    """An instance wants the next records of its partitions of these topics."""

    group: str
    instance: str
    topics: tuple[str, ...]
    settings: InstanceSettings
    """Count if the call creates the instance."""
    timeout_ms: int


class Member(NamedTuple):
    """An instance that is alive."""

    group: str
    name: str
    topics: tuple[str, ...]
    """It subscribes to them."""
    owned: dict[str, list[int]]
    """Partitions by topic, both in order."""


CheckTopic = Callable[[str], None]
"""Raises if the caller has no business with a topic."""


class Consumer:
    """Serves the instances of all groups."""

    def __init__(self, stores: TopicStores, reader: Reader) -> None:
        self._reader = reader
        self._membership = Membership(stores, reader)

    async def consume(self, call: ConsumeCall, departed: asyncio.Event) -> list[Found]:
        """The next records for an instance, which is created if there is none of its name; none if there are none
        within the time, or until the caller departs.

        Raises `NotFound` for a topic that does not exist and `QuotaExceeded` for one instance too many, both without
        creating it, and `InvalidRequest` if nothing says where to begin.
        """
        until_s = time.monotonic() + call.timeout_ms / 1000
        turns = _ConsumeTurns(self._membership, self._reader, call, departed)
        while True:
            async with self._membership.turn(call.group):
                await turns.take()
            left_s = until_s - time.monotonic()
            if turns.found or turns.is_over or left_s <= 0 or departed.is_set():
                return turns.found
            await self._reader.wait(turns.waits_for, min(left_s, LOOK_AGAIN_S), departed)

    async def commit(self, group_name: str, instance: str, offsets: Sequence[TopicOffset], check: CheckTopic) -> None:
        """Commit these offsets as they are; without any, all that was handed out to the instance.

        Raises `NotFound` for an instance, a topic or a partition that does not exist.
        """
        for topic in dict.fromkeys(offset.topic for offset in offsets):
            check(topic)
        topics = await self._reader.find_topics(Place(topic, partition) for topic, partition, _ in offsets)

        def change(group: Group, now_ms: int) -> None:
            _demand(group, group_name, instance)
            group.refresh(instance, now_ms)
            if offsets:
                for name, partition, offset in offsets:
                    group.commit(topics[name], partition, offset)
            else:
                for place in group.owned(instance):
                    check(place.topic)
                group.commit_positions(instance)

        await self._membership.change(group_name, change)

    async def committed(self, group_name: str, instance: str, places: Sequence[Place]) -> list[TopicOffset]:
        """What the group has committed, `NO_COMMIT` where that is nothing; the instance need not exist.

        Raises `NotFound` for a topic or partition that does not exist.
        """
        topics = await self._reader.find_topics(places)
        offsets: list[int | None] = []

        def change(group: Group, now_ms: int) -> None:
            if instance in group.instances:
                group.refresh(instance, now_ms)
            offsets[:] = [group.committed(topics[name], partition) for name, partition in places]

        await self._membership.change(group_name, change)
        return [
            TopicOffset(*place, NO_COMMIT if offset is None else offset)
            for place, offset in zip(places, offsets, strict=True)
        ]

    async def delete(self, group_name: str, instance: str, check: CheckTopic) -> None:
        """Close an instance: its partitions have other owners at once, its commits stay. Raises `NotFound`."""

        def change(group: Group, _now_ms: int) -> None:
            _demand(group, group_name, instance)
            for topic in group.instances[instance].topics:
                check(topic)
            group.close(instance)

        await self._membership.change(group_name, change)

    async def list_members(self) -> list[Member]:
        """The instances of all groups, by group and name."""
        members: list[Member] = []
        for group_name, group in await self._membership.load_live():
            for name in sorted(group.instances):
                owned: dict[str, list[int]] = {}
                for topic, partition in sorted(group.owned(name)):
                    owned.setdefault(topic, []).append(partition)
                members.append(Member(group_name, name, group.instances[name].topics, owned))
        return members


class _ConsumeTurns:
    """The turns of one call. What one decides counts if its state of the group is saved, else it is taken again."""

    def __init__(self, membership: Membership, reader: Reader, call: ConsumeCall, departed: asyncio.Event) -> None:
        self._membership = membership
        self._reader = reader
        self._call = call
        self._departed = departed
        self._has_joined = False
        self._arrived: Mapping[Place, Owned] | None = None
        self.found: list[Found] = []
        self.waits_for: list[ReadFrom] = []
        """If nothing was found."""
        self.is_over = False
        """The instance was closed while the call waited: to go on would bring it back."""

    async def take(self) -> None:
        """One that counts."""
        reads: list[ReadFrom] = []
        slices: list[Slice] | None = None
        for _ in range(MAX_RACES):
            state, group = await self._membership.load(self._call.group)
            if self._has_joined and self._call.instance not in group.instances:
                self.is_over = True
                return
            topics = await self._enter(group, state.real_ms)
            places, no_start = self._places(group)
            if no_start:
                if await self._membership.save(self._call.group, state, group):
                    raise _no_start(self._call.group, no_start[0])
                continue
            wanted = [ReadFrom(topics[place.topic], place.partition, start) for place, (_, start) in places.items()]
            if slices is None or wanted != reads:
                # Who was not fast enough reads again only if the others have moved its own positions.
                reads, slices = wanted, await self._reader.read(wanted)
            if slices is None:
                continue
            if self._departed.is_set():
                return
            is_on_the_log = self._hand_out(group, places, slices)
            if not await self._membership.save(self._call.group, state, group):
                continue
            self._has_joined = True
            if is_on_the_log:
                await self._answer(places, slices)
                self.waits_for = behind(reads, slices)
                return
        raise too_many_races(f"the consumer group {self._call.group[:100]}")

    async def _enter(self, group: Group, now_ms: int) -> Mapping[str, Topic]:
        """The part of a turn before records are looked for. Returns the topics."""
        name = self._call.instance
        is_new = name not in group.instances
        if not self._has_joined:
            if self._arrived is None:
                self._arrived = group.owned(name)
            group.subscribe(name, self._call.topics, self._call.settings, now_ms)
            group.auto_commit(name, self._arrived, now_ms)
        group.refresh(name, now_ms)
        topics = await self._membership.assign(group)
        for topic in self._call.topics:
            if topic not in topics:
                raise no_topic(topic)
        if is_new:
            await self._membership.check_room(self._call.group, group)
        return topics

    def _places(self, group: Group) -> tuple[dict[Place, tuple[int, int]], list[Place]]:
        """Epoch and position of the partitions that the call is about, and those that have no position."""
        owned = group.owned(self._call.instance)
        places: dict[Place, tuple[int, int]] = {}
        no_start: list[Place] = []
        for topic in self._call.topics:
            for place in sorted(place for place in owned if place.topic == topic):
                epoch, position = owned[place]
                if position is None:
                    no_start.append(place)
                else:
                    places[place] = epoch, position
        return places, no_start

    def _hand_out(self, group: Group, places: Mapping[Place, tuple[int, int]], slices: Sequence[Slice]) -> bool:
        """Hand out what was read. False if nothing is, because a log is shorter than a position in it: the store has
        lost records, and the owner begins there anew."""
        is_on_the_log = True
        for (place, (_, position)), one in zip(places.items(), slices, strict=True):
            if position > one.bounds.end:
                group.start(place, one.bounds)
                is_on_the_log = False
        if is_on_the_log:
            for (place, (epoch, _)), one in zip(places.items(), slices, strict=True):
                if one.records:
                    group.hand_out(self._call.instance, place, epoch, _after(one))
        return is_on_the_log

    async def _answer(self, places: Mapping[Place, tuple[int, int]], slices: Sequence[Slice]) -> None:
        """What was handed out, unless there is nobody to get it any more."""
        found = found_in(places, slices)
        if not found or not self._departed.is_set():
            self.found = found
            return

        def change(group: Group, _now_ms: int) -> None:
            for (place, (epoch, position)), one in zip(places.items(), slices, strict=True):
                if one.records:
                    group.take_back(self._call.instance, place, epoch, position, _after(one))

        await self._membership.change_in_turn(self._call.group, change)


def _after(one: Slice) -> int:
    return one.records[-1].offset + 1


def _demand(group: Group, group_name: str, instance: str) -> None:
    if instance not in group.instances:
        raise NotFound(f"consumer instance {instance[:100]} of group {group_name[:100]} does not exist")


def _no_start(group: str, place: Place) -> InvalidRequest:
    return InvalidRequest(
        f"Kafka-Auto-Offset-Reset is none, and group {group[:100]} has no offset stored for partition "
        f"{place.partition} of topic {place.topic}"
    )
