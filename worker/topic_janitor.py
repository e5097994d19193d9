"""Drops the records of topics that are past their retention, a few logs at a time."""

import random
from collections import deque
from typing import Final

import msgspec

from qstash_clone.clock import Clock
from qstash_clone.topics.interface import TopicRetention
from qstash_clone.topics.records import Topic
from worker.health import Health
from worker.janitor import BUSY_INTERVAL_MS, IDLE_INTERVAL_MS, JITTER
from worker.loop import Loop

LOGS_TOGETHER: Final = 50


class TrimReport(msgspec.Struct, frozen=True, kw_only=True):
    dropped: int
    left: int
    """Logs that this round has not looked at yet."""


class TopicJanitorLoop(Loop[TrimReport]):
    """Retention of all topics: one round after the other, each in an order of its own."""

    def __init__(self, *, topics: TopicRetention, clock: Clock, health: Health, rng: random.Random) -> None:
        super().__init__("topic-janitor", clock, health)
        self._topics = topics
        self._rng = rng
        self._round: deque[tuple[Topic, int]] = deque()

    async def step(self) -> TrimReport:
        """Drop one batch from some logs; those that have more come again at the end of the round."""
        if not self._round:
            topics = [topic for topic in await self._topics.list_topics() if _expires(topic)]
            logs = [(topic, number) for topic in topics for number in range(topic.config.partitions)]
            # Several workers do the same; they had better not do it in the same order.
            self._rng.shuffle(logs)
            self._round.extend(logs)
        logs = [self._round.popleft() for _ in range(min(LOGS_TOGETHER, len(self._round)))]
        dropped, has_more = await self._topics.trim(logs) if logs else (0, False)
        if has_more:
            self._round.extend(logs)
        return TrimReport(dropped=dropped, left=len(self._round))

    def rest_ms(self, report: TrimReport | None) -> float:
        if report is not None and report.left:
            return BUSY_INTERVAL_MS
        return IDLE_INTERVAL_MS * self._rng.uniform(1 - JITTER, 1 + JITTER)


def _expires(topic: Topic) -> bool:
    return topic.config.retention_ms >= 0 or topic.config.retention_bytes >= 0
