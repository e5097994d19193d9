"""The two things that the Kafka REST APIs need of a store: topic logs, and the state of consumer groups.

Every method is atomic for each partition it names and safe to repeat; all raise `StorageError`.
"""

from collections.abc import Awaitable, Sequence
from typing import Protocol

import msgspec

from qstash_clone.errors import NotFound
from qstash_clone.topics.records import Appended, Bounds, Record, Slice, Topic, TopicConfig


class TopicGone(NotFound):
    """The topic was deleted after it had been looked up; nothing was changed."""


class ReadFrom(msgspec.Struct, frozen=True):
    """Records of one partition are wanted, from an offset on."""

    topic: Topic
    partition: int
    offset: int


class GroupState(msgspec.Struct, frozen=True):
    """What is stored of a consumer group, as bytes that only `topics.groups` understands."""

    revision: int
    """0 for a group that does not exist."""
    encoded: bytes
    real_ms: int
    """Redis's time when it was read: that of liveness and commit intervals."""


class TopicLog(Protocol):
    """Topics and their records; offsets are dense from 0 in each partition."""

    async def list_topics(self) -> list[Topic]:
        """All, in the order of their names."""
        ...

    async def get_topic(self, name: str) -> Topic | None:
        """A topic; what this answers may be a second old where other processes change it."""
        ...

    async def create_topic(self, name: str, config: TopicConfig) -> Topic:
        """A new topic, or the one that exists with the very same configuration.

        Raises `InvalidRequest` if there is one with another, `QuotaExceeded` for one too many.
        """
        ...

    async def change_topic(self, name: str, config: TopicConfig) -> Topic:
        """Grow a topic, or change how long records stay. Raises `NotFound`, `InvalidRequest` if it were to shrink."""
        ...

    async def delete_topic(self, name: str) -> bool:
        """Whether there was one. Records and commits are gone; a new one of that name starts from offset 0."""
        ...

    def append(self, topic: Topic, partition: int, records: Sequence[Record]) -> Awaitable[Appended]:
        """Append records in this order, behind what this process submitted earlier. Where many do not fit into a step,
        those of other processes may come between, and an error leaves the first ones appended.

        Raises `TopicGone` if the topic was deleted meanwhile.
        """
        ...

    async def read(self, wanted: Sequence[ReadFrom], *, max_records: int, max_bytes: int) -> list[Slice | None]:
        """Records of each partition from its offset on, of all together at most so many, but at least one if there are
        any; each partition gets a share before the rest is filled in the order given.

        An offset below the first record means that one; one at the end or behind it finds nothing. None for a partition
        whose topic was deleted.
        """
        ...

    async def read_bounds(self, partitions: Sequence[tuple[Topic, int]]) -> list[Bounds | None]:
        """First and next offset of partitions; None for one whose topic was deleted."""
        ...

    async def find_offset(self, topic: Topic, partition: int, timestamp_ms: int) -> int:
        """The smallest offset with this timestamp or a later one; the end of the partition if there is none."""
        ...

    async def wait_for_records(self, wanted: Sequence[ReadFrom], timeout_s: float) -> None:
        """Return when one of these partitions has a record at its offset or behind it, or after this time; also early,
        if a topic is deleted."""
        ...


class TopicRetention(Protocol):
    """What drops old records."""

    async def list_topics(self) -> list[Topic]: ...

    async def get_topic(self, name: str) -> Topic | None: ...

    async def trim(self, wanted: Sequence[tuple[Topic, int]]) -> tuple[int, list[tuple[Topic, int]]]:
        """Drop old records of these partitions, at most a hundred of each. Returns how many were dropped, and which of
        the partitions may have more."""
        ...


class GroupStore(Protocol):
    """States of consumer groups; one changes only from what it was read as."""

    async def load_group(self, name: str) -> GroupState: ...

    async def save_group(self, name: str, revision: int, encoded: bytes, *, keep_ms: int, live_ms: int) -> bool:
        """Replace the state that has this revision, for so long; False if somebody else has replaced it meanwhile.

        `live_ms` is how long the group has instances if nothing is heard of them; 0: it has none.
        """
        ...

    async def list_groups(self) -> list[str]:
        """The names of all groups that are stored, sorted."""
        ...

    async def list_live_groups(self) -> list[str]:
        """The names of those that may have instances, sorted: few, however many groups were used and left."""
        ...


class TopicStores(Protocol):
    """Both, of a store that may not be there yet; each raises `StorageUnavailable` while it is not."""

    @property
    def topics(self) -> TopicLog: ...

    @property
    def groups(self) -> GroupStore: ...
