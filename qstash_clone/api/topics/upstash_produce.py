"""Upstash's Kafka REST API: produce, webhook and the list of topics; see docs/protocol/kafka-upstash.md."""

from collections.abc import Sequence
from typing import Final

from qstash_clone.api.topics.calls import Answer, Call, json_answer
from qstash_clone.api.topics.credentials import Right
from qstash_clone.api.topics.queries import decode, first_value
from qstash_clone.api.topics.table import TopicRow
from qstash_clone.api.topics.upstash import UpstashApi
from qstash_clone.api.topics.upstash_messages import parse_messages
from qstash_clone.errors import InvalidRequest
from qstash_clone.settings import Settings
from qstash_clone.topics.interface import TopicStores
from qstash_clone.topics.producing import Produced, Producer, ToProduce
from qstash_clone.topics.records import Record

_STANDARD_HEADERS: Final = frozenset(
    (
        b"age", b"allow", b"alt-svc", b"authorization", b"cache-control", b"cdn-loop", b"connection", b"cookie",
        b"date", b"dnt", b"expect", b"forwarded", b"from", b"host", b"keep-alive", b"max-forwards", b"origin",
        b"pragma", b"priority", b"range", b"referer", b"te", b"trailer", b"transfer-encoding", b"upgrade",
        b"upgrade-insecure-requests", b"user-agent", b"via", b"warning", b"x-real-ip",
    )
)  # fmt: skip
_STANDARD_PREFIXES: Final = (
    b"accept", b"access-control-", b"cf-", b"content-", b"if-", b"proxy-", b"sec-", b"x-forwarded-",
)  # fmt: skip
"""What says something about the way of a request rather than about the event it reports."""


class UpstashProduce:
    """The routes that write, and `GET /topics`."""

    def __init__(self, settings: Settings, stores: TopicStores, producer: Producer, upstash: UpstashApi) -> None:
        self._stores = stores
        self._producer = producer
        self._upstash = upstash
        self._max_body_bytes = settings.max_produce_bytes
        self._max_records = settings.max_produce_records

    def rows(self) -> list[TopicRow]:
        """For the table."""
        api = self._upstash.api
        return [
            TopicRow("GET POST", "/produce/{topic}/{message:path}", self.produce_path, api, "produce"),
            TopicRow("GET POST", "/produce/{topic}", self.produce_to_topic, api, "produce"),
            TopicRow("GET POST", "/produce", self.produce, api, "produce"),
            TopicRow("GET POST", "/webhook", self.webhook, self._upstash.webhook, "webhook"),
            TopicRow("GET", "/topics", self.topics, api, "topics"),
        ]

    async def produce_path(self, call: Call) -> Answer:
        """The message is what follows the topic in the path, slashes included; whatever the body is."""
        raw_topic, *raw_message = call.segments
        topic = decode(raw_topic, "topic")
        value = decode("/".join(raw_message), "message").encode()
        key = first_value(call.head.query, "key")
        record = Record(value, None if key is None else key.encode())
        call.grant.check(Right.PRODUCE, topic)
        return Answer(200, _metadata((await self._producer.produce((ToProduce(topic, record),)))[0]))

    async def produce_to_topic(self, call: Call) -> Answer:
        """One message or several to the topic of the path."""
        topic = decode(call.segments[0], "topic")
        wanted = parse_messages(await call.decoded_body(self._max_body_bytes), topic, self._max_records)
        call.grant.check(Right.PRODUCE, topic)
        return await self._produce(wanted)

    async def produce(self, call: Call) -> Answer:
        """One message or several, each with its topic."""
        wanted = parse_messages(await call.decoded_body(self._max_body_bytes), None, self._max_records)
        for topic in {one.topic for one in wanted}:
            call.grant.check(Right.PRODUCE, topic)
        return await self._produce(wanted)

    async def webhook(self, call: Call) -> Answer:
        """The body becomes the value as it is, and those headers that are not standard ones its headers."""
        topic = first_value(call.head.query, "topic")
        if topic is None:
            raise InvalidRequest("topic: the query parameter is required")
        body = await call.decoded_body(self._max_body_bytes)
        headers = tuple(
            (name.decode("latin-1"), value)
            for name, value in call.head.headers
            if name not in _STANDARD_HEADERS and not name.startswith(_STANDARD_PREFIXES)
        )
        call.grant.check(Right.PRODUCE, topic)
        return await self._produce((ToProduce(topic, Record(body, headers=headers)),))

    async def topics(self, call: Call) -> Answer:
        """The names of those topics that the credential is for, with their numbers of partitions."""
        topics = await self._stores.topics.list_topics()
        return json_answer({topic.name: topic.config.partitions for topic in topics if call.grant.covers(topic.name)})

    async def _produce(self, wanted: Sequence[ToProduce]) -> Answer:
        produced = await self._producer.produce(wanted) if wanted else ()
        return Answer(200, b"[" + b",".join([_metadata(one) for one in produced]) + b"]")


def _metadata(produced: Produced) -> bytes:
    """Names of topics need no escapes."""
    return b'{"topic":"%b","partition":%d,"offset":%d,"timestamp":%d}' % (
        produced.topic.encode(),
        produced.partition,
        produced.offset,
        produced.timestamp_ms,
    )
