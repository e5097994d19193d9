"""One consumer group: who is in it, who owns which partition, from where it reads on, and what is committed.

No I/O and no clock: times and bounds of partitions come in as arguments. What is done to a `Group` counts once its
encoded form has replaced the one it was decoded from (`GroupStore.save_group`). What it is for:
docs/explanation/consumer-groups.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from qstash_clone.errors import StorageError
from qstash_clone.topics.records import Bounds, Place, Topic

OffsetReset = Literal["earliest", "latest", "none"]

DEFAULT_SESSION_TIMEOUT_MS: Final = 120_000
COMMITS_STAY_MS: Final = 7 * 24 * 3600 * 1000
"""How long commits outlive the last instance of their group."""

_FORMAT: Final = b"\x01"
_LIVENESS_SHARES: Final = 10
"""That an instance is alive is written once in this part of its session timeout, so that idle turns write nothing."""


class InstanceSettings(msgspec.Struct, frozen=True, array_like=True):
    """How an instance wants to be served; the call that creates it decides."""

    auto_commit: bool = True
    auto_commit_interval_ms: int = 5_000
    offset_reset: OffsetReset = "latest"
    """Where a partition starts for which the group has no usable commit."""
    session_timeout_ms: int = DEFAULT_SESSION_TIMEOUT_MS


class Instance(msgspec.Struct, array_like=True):
    """A member of the group."""

    settings: InstanceSettings
    topics: tuple[str, ...]
    """Those it subscribes to."""
    seen_ms: int
    auto_committed_ms: int


class Partition(msgspec.Struct, array_like=True):
    """What the group knows of one partition."""

    owner: str | None = None
    epoch: int = 0
    """Another one with each owner: what an earlier one wants counts no more."""
    position: int | None = None
    """The next offset for its owner; None while there is no owner, or nothing says where to start."""
    commit: int | None = None


class TopicShare(msgspec.Struct, array_like=True):
    """What the group knows of one topic."""

    generation: str
    partitions: list[Partition]


class Owned(NamedTuple):
    """A partition as its owner sees it."""

    epoch: int
    position: int | None


class Group(msgspec.Struct, array_like=True):
    """A consumer group; its methods change it in place, so each turn decodes one of its own."""

    instances: dict[str, Instance] = msgspec.field(default_factory=dict[str, Instance])
    topics: dict[str, TopicShare] = msgspec.field(default_factory=dict[str, TopicShare])
    epoch: int = 0
    """The last one that was given out."""

    def close_dead(self, now_ms: int) -> None:
        """Close every instance of which nothing was heard for its session timeout."""
        for name in [name for name, instance in self.instances.items() if _is_dead(instance, now_ms)]:
            self.close(name)

    def close(self, name: str) -> bool:
        """Take an instance out of the group, its partitions are free at once. Whether there was one."""
        if name not in self.instances:
            return False
        for place in self.owned(name):
            self._give(place, None)
        del self.instances[name]
        return True

    def subscribe(self, name: str, topics: tuple[str, ...], settings: InstanceSettings, now_ms: int) -> None:
        """An instance wants these topics and no others; the settings count if it is new."""
        instance = self.instances.get(name)
        if instance is None:
            self.instances[name] = Instance(settings, topics, now_ms, now_ms)
        elif set(instance.topics) != set(topics):
            instance.topics = topics

    def refresh(self, name: str, now_ms: int) -> None:
        """Something was heard of an instance; noted only where that is news worth storing."""
        instance = self.instances[name]
        if not 0 <= now_ms - instance.seen_ms < _liveness_share_ms(instance):
            instance.seen_ms = now_ms

    def known_topics(self) -> set[str]:
        """All that `assign` must be told about."""
        return {topic for instance in self.instances.values() for topic in instance.topics}.union(self.topics)

    def assign(self, topics: Mapping[str, Topic]) -> None:
        """Give every partition of the subscribed topics to one instance; of `known_topics` those that are not in
        `topics` were deleted.

        Range rule: the subscribers of a topic in the order of their names get consecutive partitions, the first ones
        one more where they cannot be divided evenly.
        """
        for name, share in list(self.topics.items()):
            if name not in topics or topics[name].generation != share.generation:
                del self.topics[name]
        subscribers: dict[str, list[str]] = {}
        for name in sorted(self.instances):
            for topic in self.instances[name].topics:
                if topic in topics:
                    self._share(topics[topic])
                    subscribers.setdefault(topic, []).append(name)
        for topic, share in list(self.topics.items()):
            for number, owner in enumerate(_ranges(subscribers.get(topic, []), len(share.partitions))):
                if share.partitions[number].owner != owner:
                    self._give(Place(topic, number), owner)
            if topic not in subscribers and all(partition.commit is None for partition in share.partitions):
                del self.topics[topic]

    def unplaced(self) -> list[Place]:
        """Partitions that have an owner but no position: whoever assigned them looks up their bounds."""
        return [
            place
            for place, partition in self._partitions()
            if partition.owner is not None and partition.position is None
        ]

    def start(self, place: Place, bounds: Bounds) -> None:
        """Let the owner of a partition begin: at the commit if it can be read from, else where its settings say, which
        may be nowhere. With auto-commit the position is committed where no commit could be used."""
        partition = self._at(place)
        if partition is None or partition.owner is None:
            return
        settings = self.instances[partition.owner].settings
        if partition.commit is not None and bounds.start <= partition.commit <= bounds.end:
            partition.position = partition.commit
        elif settings.offset_reset == "none":
            partition.position = None
        else:
            partition.position = bounds.start if settings.offset_reset == "earliest" else bounds.end
            if settings.auto_commit:
                partition.commit = partition.position

    def owned(self, name: str) -> dict[Place, Owned]:
        """The partitions of an instance."""
        return {
            place: Owned(partition.epoch, partition.position)
            for place, partition in self._partitions()
            if partition.owner == name
        }

    def hand_out(self, name: str, place: Place, epoch: int, position: int) -> bool:
        """The owner gets what is before this position. False, and nothing is handed out, if it owns it no more."""
        partition = self._at(place)
        if partition is None or (partition.owner, partition.epoch) != (name, epoch):
            return False
        partition.position = position
        return True

    def take_back(self, name: str, place: Place, epoch: int, first: int, after: int) -> bool:
        """What was handed out from `first` up to `after` has reached nobody: the owner will get it again.

        False if it is too late: the partition has another owner, or more was handed out since.
        """
        partition = self._at(place)
        if partition is None or (partition.owner, partition.epoch, partition.position) != (name, epoch, after):
            return False
        partition.position = first
        return True

    def auto_commit(self, name: str, arrived: Mapping[Place, Owned], now_ms: int) -> None:
        """Commit what earlier calls of an instance handed out, if it is time to; `arrived` is what it owned when the
        present call arrived."""
        instance = self.instances[name]
        settings = instance.settings
        if not settings.auto_commit or 0 <= now_ms - instance.auto_committed_ms < settings.auto_commit_interval_ms:
            return
        instance.auto_committed_ms = now_ms
        for place, (epoch, position) in arrived.items():
            partition = self._at(place)
            if partition is not None and (partition.owner, partition.epoch) == (name, epoch):
                _move_commit(partition, position)

    def commit(self, topic: Topic, number: int, offset: int) -> None:
        """Store an offset as it is; the position of the owner stays."""
        self._share(topic).partitions[number].commit = offset

    def commit_positions(self, name: str) -> None:
        """Commit everything that was handed out to an instance, in all partitions that it owns."""
        for _, partition in self._partitions():
            if partition.owner == name and partition.position is not None:
                partition.commit = partition.position

    def committed(self, topic: Topic, number: int) -> int | None:
        """What is committed; None if nothing is."""
        share = self.topics.get(topic.name)
        if share is None or share.generation != topic.generation or number >= len(share.partitions):
            return None
        return share.partitions[number].commit

    def live_ms(self) -> int:
        """How long the group has instances if nothing is heard of them from now on; 0 for none."""
        return max(map(_silence_ms, self.instances.values()), default=0)

    def keep_ms(self) -> int:
        """How long the store must keep the group if nothing is heard of it from now on."""
        return COMMITS_STAY_MS + self.live_ms()

    def _share(self, topic: Topic) -> TopicShare:
        """What is known of a topic, grown to its number of partitions; what was known of an earlier one of its name is
        forgotten."""
        share = self.topics.get(topic.name)
        if share is None or share.generation != topic.generation:
            share = self.topics[topic.name] = TopicShare(topic.generation, [])
        # It never shrinks: who still knows fewer partitions would take the others from their owners.
        share.partitions.extend(Partition() for _ in range(len(share.partitions), topic.config.partitions))
        return share

    def _give(self, place: Place, owner: str | None) -> None:
        """Another owner, or none. The one that loses the partition leaves in good order: with its commit."""
        partition = self.topics[place.topic].partitions[place.partition]
        if partition.owner is not None and self.instances[partition.owner].settings.auto_commit:
            _move_commit(partition, partition.position)
        self.epoch += 1
        partition.owner, partition.epoch, partition.position = owner, self.epoch, None

    def _partitions(self) -> Iterator[tuple[Place, Partition]]:
        for topic, share in self.topics.items():
            for number, partition in enumerate(share.partitions):
                yield Place(topic, number), partition

    def _at(self, place: Place) -> Partition | None:
        share = self.topics.get(place.topic)
        return None if share is None or place.partition >= len(share.partitions) else share.partitions[place.partition]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Group).decode


def encode_group(group: Group) -> bytes:
    """What `decode_group` reads."""
    return _FORMAT + _encode(group)


def decode_group(name: str, encoded: bytes) -> Group:
    """A group as it is stored; a new one for nothing. Raises `StorageError` for what this release cannot read."""
    if not encoded:
        return Group()
    if encoded[:1] != _FORMAT:
        raise StorageError(f"The consumer group {name} has a format that this release cannot read.")
    try:
        return _decode(encoded[1:])
    except msgspec.DecodeError as error:
        raise StorageError(f"The consumer group {name} cannot be read: {error}") from error


def _move_commit(partition: Partition, position: int | None) -> None:
    """By itself a commit only moves on; back it goes when a caller says so."""
    if position is not None and (partition.commit is None or partition.commit < position):
        partition.commit = position


def _liveness_share_ms(instance: Instance) -> int:
    return instance.settings.session_timeout_ms // _LIVENESS_SHARES


def _silence_ms(instance: Instance) -> int:
    """How long ago `seen_ms` of a live instance can be: it may have been heard of since, without a note."""
    return instance.settings.session_timeout_ms + _liveness_share_ms(instance)


def _is_dead(instance: Instance, now_ms: int) -> bool:
    return now_ms - instance.seen_ms > _silence_ms(instance)


def _ranges(subscribers: Sequence[str], partitions: int) -> Iterator[str | None]:
    """The owner of each partition."""
    if not subscribers:
        yield from [None] * partitions
        return
    each, more = divmod(partitions, len(subscribers))
    for at, name in enumerate(subscribers):
        yield from [name] * (each + (at < more))
