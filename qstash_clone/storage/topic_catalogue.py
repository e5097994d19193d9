"""Which topics there are: one hash beside the partitions, and the logs of each made and removed in repeatable steps."""

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from qstash_clone.errors import InvalidRequest, NotFound, QuotaExceeded, StorageUnavailable
from qstash_clone.storage.access import StoreAccess
from qstash_clone.storage.codec import STORAGE_VERSION
from qstash_clone.storage.commands import Argument
from qstash_clone.storage.partitions import lane_partition
from qstash_clone.storage.topic_codec import StoredTopic, decode_topic, encode_topic, shown
from qstash_clone.storage.url_group_store import MAX_RACES
from qstash_clone.topics.records import Topic, TopicConfig

KNOWN_FOR_S: Final = 1.0
"""After which a topic is looked up again. Whether it is still there, every append asks the store."""
_SCAN_TOGETHER: Final = 200
_LOGS_TOGETHER: Final = 100


class TopicCatalogue:
    """Topics by name. Creation and deletion take several steps; whoever finds them half done ends them."""

    def __init__(self, access: StoreAccess, topics_key: bytes, generation_key: bytes, *, max_topics: int) -> None:
        self._access = access
        self._topics_key = topics_key
        self._generation_key = generation_key
        self._max_topics = max_topics
        self._known: dict[str, tuple[Topic, float]] = {}

    def forget(self, name: str) -> None:
        """Look the topic up when it is next asked for."""
        self._known.pop(name, None)

    async def list_topics(self) -> list[Topic]:
        """All there are. Deletions that have broken off are ended: nobody else may ever ask for those names."""
        found: dict[str, Topic] = {}
        deleted: list[str] = []
        cursor = 0
        while True:
            cursor, entries = await self._access.commands.ask(
                "HSCAN", self._topics_key, cursor, "COUNT", _SCAN_TOGETHER
            )
            for raw_name, encoded in entries.items():
                name = raw_name.decode()
                stored = decode_topic(name, encoded)
                if stored.is_deleted:
                    deleted.append(name)
                elif stored.made > 0:
                    # Without those that are not there yet: who read them would take them for lost.
                    config = msgspec.structs.replace(stored.config, partitions=stored.made)
                    found[name] = shown(name, msgspec.structs.replace(stored, config=config))
            if cursor == 0:
                break
        for name in deleted:
            await self._load(name)
        return [found[name] for name in sorted(found)]

    async def get_topic(self, name: str) -> Topic | None:
        known = self._known.get(name)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        stored, _ = await self._load(name)
        return self._remember(name, stored)

    def _remember(self, name: str, stored: StoredTopic | None) -> Topic | None:
        if stored is None:
            self._known.pop(name, None)
            return None
        topic = shown(name, stored)
        now_s = time.monotonic()
        if len(self._known) >= self._max_topics:
            # Others may delete topics that nobody asks for here any more.
            self._known = {name: known for name, known in self._known.items() if now_s < known[1]}
        self._known[name] = (topic, now_s + KNOWN_FOR_S)
        return topic

    async def create_topic(self, name: str, config: TopicConfig) -> Topic:
        for _ in range(MAX_RACES):
            stored, encoded = await self._load(name)
            if stored is None:
                if await self._access.commands.ask("HLEN", self._topics_key) >= self._max_topics:
                    raise QuotaExceeded(f"topic {name}: there are {self._max_topics} topics already, the limit")
                stored = StoredTopic(
                    generation=str(await self._access.commands.ask("INCR", self._generation_key)),
                    created_ms=await self._now_ms(),
                    config=config,
                )
                if not await self._replace(name, encoded, stored):
                    continue
                stored, _ = await self._load(name)
                if stored is None:
                    continue
            if stored.config != config:
                raise InvalidRequest(f"topic {name} exists with another configuration")
            self._remember(name, stored)
            return shown(name, stored)
        raise _too_many_races(name)

    async def change_topic(self, name: str, config: TopicConfig) -> Topic:
        for _ in range(MAX_RACES):
            stored, encoded = await self._load(name)
            if stored is None:
                raise NotFound(f"topic {name} does not exist")
            if config.partitions < stored.config.partitions:
                raise InvalidRequest(
                    f"topic {name} has {stored.config.partitions} partitions, which can become more, but not fewer"
                )
            if not await self._replace(name, encoded, msgspec.structs.replace(stored, config=config)):
                continue
            stored, _ = await self._load(name)
            if stored is not None:
                self._remember(name, stored)
                return shown(name, stored)
        raise _too_many_races(name)

    async def delete_topic(self, name: str) -> bool:
        for _ in range(MAX_RACES):
            stored, encoded = await self._load(name)
            if stored is None:
                return False
            if await self._replace(name, encoded, msgspec.structs.replace(stored, is_deleted=True)):
                await self._load(name)
                self.forget(name)
                return True
        raise _too_many_races(name)

    async def _load(self, name: str) -> tuple[StoredTopic | None, bytes]:
        """The topic, with all its logs, and what is stored of it."""
        for _ in range(MAX_RACES):
            encoded: bytes | None = await self._access.commands.ask("HGET", self._topics_key, name)
            if encoded is None:
                return None, b""
            stored = decode_topic(name, encoded)
            if stored.is_deleted:
                await self._run_for_logs("drop_topic_logs", name, stored, range(stored.config.partitions))
                await self._replace(name, encoded, None)
            elif stored.made < stored.config.partitions:
                await self._run_for_logs("make_topic_logs", name, stored, range(stored.made, stored.config.partitions))
                if not await self._replace(
                    name, encoded, msgspec.structs.replace(stored, made=stored.config.partitions)
                ):
                    await self._drop_if_gone(name, stored)
            else:
                return stored, encoded
        raise _too_many_races(name)

    async def _drop_if_gone(self, name: str, stored: StoredTopic) -> None:
        """Remove logs that were made for a topic which was deleted meanwhile. Those of a later one stay."""
        encoded: bytes | None = await self._access.commands.ask("HGET", self._topics_key, name)
        if encoded is None or decode_topic(name, encoded).generation != stored.generation:
            await self._run_for_logs("drop_topic_logs", name, stored, range(stored.config.partitions))

    async def _run_for_logs(self, script: str, name: str, stored: StoredTopic, numbers: range) -> None:
        access = self._access
        by_partition: dict[int, list[int]] = {}
        for number in numbers:
            by_partition.setdefault(lane_partition(f"t:{name}:{number}", access.partitions), []).append(number)
        for partition, members in by_partition.items():
            for begin in range(0, len(members), _LOGS_TOGETHER):
                args: list[Argument] = [STORAGE_VERSION, name, stored.generation]
                args += members[begin : begin + _LOGS_TOGETHER]
                await access.runner.run(script, [access.keys[partition].meta], args)

    async def _replace(self, name: str, expected: bytes, wanted: StoredTopic | None) -> bool:
        """Whether the entry was the expected one and is the wanted one now."""
        # Deleting a topic, and keeping less of it, begins with a change of its entry: it must be possible without room.
        args: Sequence[Argument] = [name, expected, b"" if wanted is None else encode_topic(wanted), 1]
        reply, _ = await self._access.runner.run("replace_entry", [self._topics_key], args)
        return reply[0] == b"ok"

    async def _now_ms(self) -> int:
        seconds, micros = await self._access.commands.ask("TIME")
        return seconds * 1000 + micros // 1000


def _too_many_races(name: str) -> StorageUnavailable:
    return StorageUnavailable(f"The topic {name} is changed by too many others at once.")
