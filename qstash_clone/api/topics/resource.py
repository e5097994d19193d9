"""Topics as a resource: create, describe, grow, change and delete them; see docs/protocol/topics.md."""

from typing import Annotated, Final, TypeVar, get_args

import msgspec
from msgspec import Meta

from qstash_clone.api.topics.calls import Answer, Call, json_answer
from qstash_clone.api.topics.credentials import Right
from qstash_clone.api.topics.json_input import parse_json
from qstash_clone.api.topics.queries import decode
from qstash_clone.api.topics.table import TopicApi, TopicRow
from qstash_clone.errors import InvalidRequest, NotFound
from qstash_clone.settings import Settings
from qstash_clone.topics.interface import TopicStores
from qstash_clone.topics.records import (
    MAX_PARTITIONS,
    MAX_TIMESTAMP_MS,
    NAME_RULE,
    TimestampType,
    Topic,
    TopicConfig,
    is_topic_name,
)

MAX_BODY_BYTES: Final = 65_536

Partitions = Annotated[int, Meta(ge=1, le=MAX_PARTITIONS)]
Limit = Annotated[int, Meta(ge=-1, le=MAX_TIMESTAMP_MS)]


class WantedConfig(msgspec.Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """What a request says of a topic; what it leaves out stays as it is, or as a new topic has it."""

    partitions: Partitions | None = None
    retention_ms: Limit | None = None
    retention_bytes: Limit | None = None
    timestamp_type: TimestampType | None = None


_decoder: Final = msgspec.json.Decoder(WantedConfig)
_T = TypeVar("_T")


class TopicResource:
    """The routes of one topic. The list of all is Upstash's, `GET /topics`."""

    def __init__(self, settings: Settings, stores: TopicStores, api: TopicApi) -> None:
        self._stores = stores
        self._api = api
        self._new_topic = TopicConfig(partitions=settings.default_partitions)

    def rows(self) -> list[TopicRow]:
        """For the table."""
        return [
            TopicRow("GET", "/topics/{topic}", self.describe, self._api, "topics"),
            TopicRow("POST", "/topics/{topic}", self.create, self._api, "topics"),
            TopicRow("PATCH", "/topics/{topic}", self.change, self._api, "topics"),
            TopicRow("DELETE", "/topics/{topic}", self.delete, self._api, "topics"),
        ]

    async def describe(self, call: Call) -> Answer:
        """Configuration and bounds of a topic. Offsets of partitions of which nothing is left are equal."""
        name = _topic_of(call, Right.READ)
        return await self._described(await self._find(name))

    async def create(self, call: Call) -> Answer:
        """A new topic; one that is there already with just this configuration is the answer as well."""
        name = _topic_of(call, Right.ADMINISTER)
        config = _changed(self._new_topic, await _wanted(call))
        return await self._described(await self._stores.topics.create_topic(name, config))

    async def change(self, call: Call) -> Answer:
        """More partitions, or another retention."""
        name = _topic_of(call, Right.ADMINISTER)
        wanted = await _wanted(call)
        topic = await self._find(name)
        return await self._described(await self._stores.topics.change_topic(name, _changed(topic.config, wanted)))

    async def delete(self, call: Call) -> Answer:
        """The topic with its records; commits of consumer groups count no more."""
        name = _topic_of(call, Right.ADMINISTER)
        if not await self._stores.topics.delete_topic(name):
            raise NotFound(f"topic {name} does not exist")
        return json_answer({"result": "Success", "status": 200})

    async def _find(self, name: str) -> Topic:
        topic = await self._stores.topics.get_topic(name)
        if topic is None:
            raise NotFound(f"topic {name} does not exist")
        return topic

    async def _described(self, topic: Topic) -> Answer:
        config = topic.config
        bounds = await self._stores.topics.read_bounds([(topic, number) for number in range(config.partitions)])
        if None in bounds:
            raise NotFound(f"topic {topic.name} does not exist any more")
        return json_answer(
            {
                "name": topic.name,
                "createdAt": topic.created_ms,
                "partitions": config.partitions,
                "retentionMs": config.retention_ms,
                "retentionBytes": config.retention_bytes,
                "timestampType": config.timestamp_type,
                "logs": [
                    {"partition": number, "start": one.start, "end": one.end}
                    for number, one in enumerate(bounds)
                    if one is not None
                ],
            }
        )


def _topic_of(call: Call, right: Right) -> str:
    name = decode(call.segments[0], "topic")
    if not is_topic_name(name):
        raise InvalidRequest(f"topic: {name[:100]!r} is no name of a topic: {NAME_RULE}")
    call.grant.check(right, name)
    return name


async def _wanted(call: Call) -> WantedConfig:
    body = await call.decoded_body(MAX_BODY_BYTES)
    if not body.strip():
        return WantedConfig()
    try:
        return parse_json(body, _decoder)
    except msgspec.ValidationError as error:
        # The decoder does not tell what the values are.
        hint = f": {' or '.join(get_args(TimestampType))}" if "`$.timestampType`" in str(error) else ""
        raise InvalidRequest(f"the body is not a configuration: {error}{hint}") from None


def _changed(config: TopicConfig, wanted: WantedConfig) -> TopicConfig:
    return TopicConfig(
        partitions=_either(wanted.partitions, config.partitions),
        retention_ms=_either(wanted.retention_ms, config.retention_ms),
        retention_bytes=_either(wanted.retention_bytes, config.retention_bytes),
        timestamp_type=_either(wanted.timestamp_type, config.timestamp_type),
    )


def _either(wanted: _T | None, present: _T) -> _T:
    return present if wanted is None else wanted
