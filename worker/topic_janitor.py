"""Drops the records of topics that are past their retention, a few logs at a time."""

import logging
import random
from collections import deque
from typing import Final

import msgspec

from qstash_clone.clock import Clock
from qstash_clone.errors import StorageError, StorageFull, StorageUnavailable, StoreIncompatible
from qstash_clone.observability import TOPIC_LOG_DAMAGED, emit
from qstash_clone.topics.interface import TopicRetention
from qstash_clone.topics.records import Place, Topic
from worker.health import Health
from worker.janitor import BUSY_INTERVAL_MS, IDLE_INTERVAL_MS, JITTER
from worker.loop import Loop

LOGS_TOGETHER: Final = 50


class TrimReport(msgspec.Struct, frozen=True, kw_only=True):
    dropped: int
    left: int
    """Logs that this round has not looked at yet, or that have more."""


class TopicJanitorLoop(Loop[TrimReport]):
    """Retention of all topics: one round after the other, each in an order of its own."""

    def __init__(self, *, topics: TopicRetention, clock: Clock, health: Health, rng: random.Random) -> None:
        super().__init__("topic-janitor", clock, health)
        self._topics = topics
        self._rng = rng
        self._unseen: deque[Place] = deque()
        self._unfinished: deque[Place] = deque()
        """Had more to drop when they were last looked at. They wait for no round to end, and no round for them."""

    async def step(self) -> TrimReport:
        """Drop one batch from some logs. A topic that this release cannot read is told and holds up retention, nothing
        else: taken for a fault of the store, it would keep this worker from ever taking over what others left."""
        try:
            dropped = await self._trim_some()
        except (StorageUnavailable, StorageFull, StoreIncompatible):
            raise
        except StorageError as error:
            emit(TOPIC_LOG_DAMAGED, level=logging.ERROR, error=str(error))
            return TrimReport(dropped=0, left=0)
        return TrimReport(dropped=dropped, left=len(self._unseen) + len(self._unfinished))

    async def _trim_some(self) -> int:
        if not self._unseen:
            await self._begin_round()
        places = _take(self._unfinished, LOGS_TOGETHER // 2)
        places += _take(self._unseen, LOGS_TOGETHER - len(places))
        logs: list[tuple[Topic, int]] = []
        for name, number in places:
            # As it is now: who has just given records more time must not lose them.
            topic = await self._topics.get_topic(name)
            if topic is not None and _expires(topic):
                logs.append((topic, number))
        dropped, unfinished = await self._topics.trim(logs) if logs else (0, ())
        self._unfinished.extend(Place(topic.name, number) for topic, number in unfinished)
        return dropped

    async def _begin_round(self) -> None:
        topics = [topic for topic in await self._topics.list_topics() if _expires(topic)]
        places = {Place(topic.name, number) for topic in topics for number in range(topic.config.partitions)}
        unseen = sorted(places.difference(self._unfinished))
        # Several workers do the same; they had better not do it in the same order.
        self._rng.shuffle(unseen)
        self._unseen.extend(unseen)

    def rest_ms(self, report: TrimReport | None) -> float:
        if report is not None and report.left:
            return BUSY_INTERVAL_MS
        return IDLE_INTERVAL_MS * self._rng.uniform(1 - JITTER, 1 + JITTER)


def _expires(topic: Topic) -> bool:
    return topic.config.retention_ms >= 0 or topic.config.retention_bytes >= 0


def _take(places: deque[Place], count: int) -> list[Place]:
    return [places.popleft() for _ in range(min(count, len(places)))]
