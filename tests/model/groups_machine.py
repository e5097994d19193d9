"""Random lives of one consumer group, checked against what its members saw of the records."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qstash_clone.topics.groups import (
    Group,
    InstanceSettings,
    OffsetReset,
    Owned,
    decode_group,
    encode_group,
)
from qstash_clone.topics.records import Bounds, Place, Topic, TopicConfig

NAMES = ["a", "b", "c"]
PARTITIONS = 3
TOPICS = ["blue", "red"]
RESETS: list[OffsetReset] = ["earliest", "latest", "none"]
SETTINGS = st.builds(
    InstanceSettings,
    auto_commit=st.booleans(),
    auto_commit_interval_ms=st.sampled_from([1, 5_000]),
    offset_reset=st.sampled_from(RESETS),
    session_timeout_ms=st.just(60_000),
)
NAME = st.sampled_from(NAMES)
SUBSCRIPTION = st.lists(st.sampled_from(TOPICS), min_size=1, unique=True).map(tuple)
PLACE = st.builds(Place, st.sampled_from(TOPICS), st.integers(0, PARTITIONS - 1))


@dataclass(slots=True)
class Log:
    """A partition, and what the group was given of it."""

    start: int = 0
    end: int = 0
    given: set[int] = field(default_factory=set[int])
    given_in: dict[int, set[int]] = field(default_factory=dict[int, set[int]])
    """The same by epoch of the owner: again a record comes only to another one, from the commit on."""
    excused: set[int] = field(default_factory=set[int])
    """Need not be given: trimmed, skipped by a commit of a caller, or before the start of a first owner."""


class Call(NamedTuple):
    """A consume call between reading and storing what it hands out."""

    revision: int
    arrived: dict[Place, Owned]


class GroupsMachine(RuleBasedStateMachine):
    """One example is one group on topics that grow, lose old records, and are deleted and made anew."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded = b""
        self.revision = 0
        self.now_ms = 1_000_000
        self.topics: dict[str, Topic] = {}
        self.logs: dict[tuple[str, int], Log] = {}
        self.calls: dict[str, Call] = {}
        self.generations = 0
        for name in TOPICS:
            self._create(name)

    def _create(self, name: str) -> None:
        self.generations += 1
        generation = str(self.generations)
        self.topics[name] = Topic(
            name=name, generation=generation, created_ms=0, config=TopicConfig(partitions=PARTITIONS)
        )

    def _log(self, place: Place) -> Log:
        return self.logs.setdefault((self.topics[place.topic].generation, place.partition), Log())

    def _change(self, change: Callable[[Group], None], *, by_caller: bool = False) -> None:
        """One turn: decode, expire, change, assign, start, encode; and the promises of every turn."""
        group = decode_group("g", self.encoded)
        commits, owners = self._commits(group), self._owners(group)
        group.close_dead(self.now_ms)
        change(group)
        group.assign(self.topics)
        unplaced = group.unplaced()
        if not by_caller:
            self._check_handover(owners, group)
        self._check_new_owners(owners, group, unplaced)
        for place in unplaced:
            self._start(group, place)
        if not by_caller:
            self._check_commits(commits, group)
        encoded = encode_group(group)
        if encoded != self.encoded:
            self.encoded, self.revision = encoded, self.revision + 1

    def _start(self, group: Group, place: Place) -> None:
        log = self._log(place)
        bounds = Bounds(log.start, log.end)
        committed = group.committed(self.topics[place.topic], place.partition)
        usable = committed is not None and bounds.start <= committed <= bounds.end
        group.start(place, bounds)
        position = self._position(group, place)
        if usable:
            assert position == committed
        elif position is not None:
            assert position in (bounds.start, bounds.end)
            log.excused.update(range(position))

    def _commits(self, group: Group) -> dict[tuple[str, int], int | None]:
        return {
            (share.generation, number): partition.commit
            for share in group.topics.values()
            for number, partition in enumerate(share.partitions)
        }

    def _owners(self, group: Group) -> dict[tuple[str, int], tuple[str, int, int | None, bool]]:
        return {
            (share.generation, number): (
                partition.owner,
                partition.epoch,
                partition.position,
                group.instances[partition.owner].settings.auto_commit,
            )
            for share in group.topics.values()
            for number, partition in enumerate(share.partitions)
            if partition.owner is not None
        }

    def _check_commits(self, before: dict[tuple[str, int], int | None], group: Group) -> None:
        """By itself a commit never goes back, unless it pointed behind the end of the log."""
        for (topic, number), place in [
            ((name, at), Place(name, at)) for name in group.topics for at in range(PARTITIONS)
        ]:
            key = (group.topics[topic].generation, number)
            old, new = before.get(key), group.topics[topic].partitions[number].commit
            if old is not None and old <= self._log(place).end:
                assert new is not None
                assert new >= old

    def _check_new_owners(
        self, before: dict[tuple[str, int], tuple[str, int, int | None, bool]], group: Group, unplaced: list[Place]
    ) -> None:
        """A new owner does not go on where another one was, but starts."""
        starting = {(group.topics[topic].generation, number) for topic, number in unplaced}
        for key, (_, epoch, *_) in self._owners(group).items():
            assert key in starting or (key in before and before[key][1] == epoch)

    def _check_handover(self, before: dict[tuple[str, int], tuple[str, int, int | None, bool]], group: Group) -> None:
        """Who leaves with auto-commit has committed all that it was given."""
        after = self._owners(group)
        commits = self._commits(group)
        for key, (_, epoch, position, auto_commit) in before.items():
            is_lost = key not in after or after[key][1] != epoch
            if is_lost and key in commits and auto_commit and position is not None:
                committed = commits[key]
                assert committed is not None
                assert committed >= position

    def _position(self, group: Group, place: Place) -> int | None:
        return group.topics[place.topic].partitions[place.partition].position

    @rule(name=NAME, topics=SUBSCRIPTION, settings=SETTINGS)
    def call_arrives(self, name: str, topics: tuple[str, ...], settings: InstanceSettings) -> None:
        arrived = decode_group("g", self.encoded).owned(name)

        def change(group: Group) -> None:
            group.subscribe(name, topics, settings, self.now_ms)
            group.refresh(name, self.now_ms)
            group.auto_commit(name, arrived, self.now_ms)

        self._change(change)
        self.calls[name] = Call(self.revision, decode_group("g", self.encoded).owned(name))

    @rule(name=NAME, at_most=st.integers(1, 4))
    def call_hands_out(self, name: str, at_most: int) -> None:
        """A call whose revision is not the present one hands out nothing, because its state is not stored; and the
        state itself refuses it wherever it lost the partition."""
        call = self.calls.pop(name, None)
        if call is None:
            return
        group = decode_group("g", self.encoded)
        for place, (epoch, position) in call.arrived.items():
            log = self._log(place)
            first = None if position is None else max(position, log.start)
            if first is None or first >= log.end:
                continue
            until = min(first + at_most, log.end)
            is_handed_out = group.hand_out(name, place, epoch, until)
            owned = decode_group("g", self.encoded).owned(name).get(place)
            assert is_handed_out == (owned is not None and owned.epoch == epoch)
            if call.revision == self.revision:
                assert is_handed_out
                now = set(range(first, until))
                assert not now & log.given_in.setdefault(epoch, set())
                log.given_in[epoch] |= now
                log.given |= now
        if call.revision == self.revision:
            self.encoded, self.revision = encode_group(group), self.revision + 1

    @rule(name=NAME, topics=SUBSCRIPTION, settings=SETTINGS, at_most=st.integers(1, 4))
    def call_meets_no_other(self, name: str, topics: tuple[str, ...], settings: InstanceSettings, at_most: int) -> None:
        self.call_arrives(name, topics, settings)
        self.call_hands_out(name, at_most)

    @rule(name=NAME)
    def instance_is_deleted(self, name: str) -> None:
        def change(group: Group) -> None:
            group.close(name)

        self._change(change)

    @rule(name=NAME)
    def positions_are_committed(self, name: str) -> None:
        self._change(lambda group: group.commit_positions(name), by_caller=True)

    @rule(place=PLACE, offset=st.integers(0, 12))
    def offset_is_committed(self, place: Place, offset: int) -> None:
        def change(group: Group) -> None:
            group.commit(self.topics[place.topic], place.partition, offset)
            self._log(place).excused.update(range(offset))
            assert group.committed(self.topics[place.topic], place.partition) == offset

        self._change(change, by_caller=True)

    @rule(topic=st.sampled_from(TOPICS), count=st.integers(1, 5))
    def records_are_appended(self, topic: str, count: int) -> None:
        for number in range(PARTITIONS):
            self._log(Place(topic, number)).end += count

    @rule(place=PLACE, count=st.integers(1, 3))
    def records_are_trimmed(self, place: Place, count: int) -> None:
        log = self._log(place)
        log.start = min(log.start + count, log.end)
        log.excused.update(range(log.start))

    @rule(name=st.sampled_from(TOPICS))
    def topic_is_made_anew(self, name: str) -> None:
        self._create(name)
        self.calls.clear()
        self._change(lambda _: None)

    @rule(duration_ms=st.sampled_from([1, 7_000, 40_000, 100_000]))
    def time_passes(self, duration_ms: int) -> None:
        self.now_ms += duration_ms

    @precondition(lambda self: bool(self.encoded))
    @invariant()
    def every_partition_has_one_owner_in_ranges(self) -> None:
        group = decode_group("g", self.encoded)
        for topic, share in group.topics.items():
            subscribers = sorted(name for name in group.instances if topic in group.instances[name].topics)
            owners = [partition.owner for partition in share.partitions]
            if not subscribers:
                assert owners == [None] * PARTITIONS
                continue
            counts = [owners.count(name) for name in subscribers]
            assert None not in owners
            assert owners == [name for name, count in zip(subscribers, counts, strict=True) for _ in range(count)]
            assert max(counts) - min(counts) <= 1
            assert counts == sorted(counts, reverse=True)

    @precondition(lambda self: bool(self.encoded))
    @invariant()
    def nothing_is_skipped(self) -> None:
        """Everything before a position or a commit was given to somebody or need not be."""
        group = decode_group("g", self.encoded)
        for share in group.topics.values():
            for number, partition in enumerate(share.partitions):
                log = self.logs.setdefault((share.generation, number), Log())
                for until in (partition.position, partition.commit):
                    assert set(range(until or 0)) <= log.given | log.excused
