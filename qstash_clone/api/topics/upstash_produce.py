"""Upstash's Kafka REST API: topics, produce and webhook."""

from qstash_clone.api.topics.calls import Answer, Call, json_answer
from qstash_clone.api.topics.table import TopicRow
from qstash_clone.api.topics.upstash import UpstashApi
from qstash_clone.settings import Settings
from qstash_clone.topics.interface import TopicStores
from qstash_clone.topics.producing import Producer


class UpstashProduce:
    """The routes that write."""

    def __init__(self, settings: Settings, stores: TopicStores, producer: Producer, upstash: UpstashApi) -> None:
        self._stores = stores
        self._producer = producer
        self._upstash = upstash

    def rows(self) -> list[TopicRow]:
        """For the table."""
        api = self._upstash.api
        return [TopicRow("GET", "/topics", self.topics, api, "topics")]

    async def topics(self, call: Call) -> Answer:
        """`GET /topics`: the names of those that the credential is for, with their numbers of partitions."""
        topics = await self._stores.topics.list_topics()
        return json_answer({topic.name: topic.config.partitions for topic in topics if call.grant.covers(topic.name)})
