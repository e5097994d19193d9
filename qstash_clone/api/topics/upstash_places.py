"""What requests to read, to commit and to look offsets up say: topics, partitions, offsets, times to wait."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from qstash_clone.api.topics.json_input import parse_json
from qstash_clone.errors import InvalidRequest
from qstash_clone.topics.groups import DEFAULT_SESSION_TIMEOUT_MS, InstanceSettings
from qstash_clone.topics.reading import TopicOffset
from qstash_clone.topics.records import MAX_TIMESTAMP_MS, NAME_RULE, Place, is_topic_name

MAX_PLACES: Final = 1_000
"""Partitions in one request."""
MAX_NAME_CHARACTERS: Final = 255
"""Of a group and of an instance."""
MAX_PARTITION: Final = 2**31 - 1
DEFAULT_READ_TIMEOUT_MS: Final = 1_000
DEFAULT_LOOKUP_TIMEOUT_MS: Final = 10_000

_DIGITS: Final = re.compile(r"[0-9]{1,16}")
_RESETS: Final[Mapping[str, Literal["earliest", "latest", "none"]]] = {
    "earliest": "earliest",
    "latest": "latest",
    "none": "none",
}

_Partition = Annotated[int, msgspec.Meta(ge=0, le=MAX_PARTITION)]
_Offset = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIMESTAMP_MS)]
_Timeout = Annotated[int, msgspec.Meta(ge=0)]
_T = TypeVar("_T")


class _TopicPartition(msgspec.Struct, gc=False):
    topic: str
    partition: _Partition


class _TopicPartitionOffset(msgspec.Struct, gc=False):
    topic: str
    partition: _Partition
    offset: _Offset


class _Fetch(msgspec.Struct):
    topic: str | None = None
    partition: _Partition | None = None
    offset: _Offset | None = None
    topicPartitionOffsets: list[_TopicPartitionOffset] | None = None  # noqa: N815
    timeout: _Timeout | None = None


class _Consume(msgspec.Struct):
    topic: str | None = None
    topics: list[str] | None = None
    timeout: _Timeout | None = None


_fetch_decoder = msgspec.json.Decoder(_Fetch)
_consume_decoder = msgspec.json.Decoder(_Consume)
_places_decoder: "msgspec.json.Decoder[list[_TopicPartition] | _TopicPartition]" = msgspec.json.Decoder(
    list[_TopicPartition] | _TopicPartition
)
_offsets_decoder: "msgspec.json.Decoder[list[_TopicPartitionOffset] | _TopicPartitionOffset | None]" = (
    msgspec.json.Decoder(list[_TopicPartitionOffset] | _TopicPartitionOffset | None)
)


def parse_fetch(body: bytes) -> tuple[list[TopicOffset], int]:
    """From where to read, the single triple first, and how long to wait. Raises `InvalidRequest`."""
    fetch = _parse(body, _fetch_decoder)
    wanted: list[TopicOffset] = []
    if fetch.topic is not None:
        wanted.append(TopicOffset(fetch.topic, fetch.partition or 0, fetch.offset or 0))
    wanted += [TopicOffset(one.topic, one.partition, one.offset) for one in fetch.topicPartitionOffsets or ()]
    if not wanted:
        raise InvalidRequest("topic or topicPartitionOffsets is required")
    _check_places(wanted)
    return wanted, DEFAULT_READ_TIMEOUT_MS if fetch.timeout is None else fetch.timeout


def parse_consume(body: bytes) -> tuple[tuple[str, ...], int]:
    """Topics, each once, and how long to wait. Raises `InvalidRequest`."""
    consume = _parse(body, _consume_decoder)
    topics = tuple(dict.fromkeys([*(() if consume.topic is None else (consume.topic,)), *(consume.topics or ())]))
    if not topics:
        raise InvalidRequest("topic or topics is required")
    if len(topics) > MAX_PLACES:
        raise InvalidRequest(f"more than {MAX_PLACES} topics in one request")
    for topic in topics:
        check_topic_name(topic)
    return topics, DEFAULT_READ_TIMEOUT_MS if consume.timeout is None else consume.timeout


def parse_places(body: bytes) -> list[Place]:
    """One partition or several, at least one. Raises `InvalidRequest`."""
    parsed = _parse(body, _places_decoder)
    places = [Place(one.topic, one.partition) for one in (parsed if isinstance(parsed, list) else (parsed,))]
    if not places:
        raise InvalidRequest("at least one topic and partition is required")
    _check_places(places)
    return places


def parse_offsets(body: bytes) -> list[TopicOffset]:
    """One offset or several; nothing at all, `null` and an empty array are none. Raises `InvalidRequest`."""
    if not body.strip():
        return []
    parsed = _parse(body, _offsets_decoder)
    some = parsed if isinstance(parsed, list) else () if parsed is None else (parsed,)
    offsets = [TopicOffset(one.topic, one.partition, one.offset) for one in some]
    _check_places(offsets)
    return offsets


def parse_when(text: str) -> Literal["earliest", "latest"] | int:
    """Which offsets are wanted: the first ones, the next ones, or those from a time on. Raises `InvalidRequest`."""
    if text in ("earliest", "latest"):
        return text
    if _DIGITS.fullmatch(text) is None or int(text) > MAX_TIMESTAMP_MS:
        raise InvalidRequest(f"offsets: {text[:100]!r} is neither earliest nor latest nor a time in milliseconds")
    return int(text)


def parse_timeout(text: str | None, default_ms: int) -> int:
    """The query parameter `timeout`. Raises `InvalidRequest`."""
    if text is None:
        return default_ms
    if _DIGITS.fullmatch(text) is None:
        raise InvalidRequest(f"timeout: {text[:100]!r} is not a number of milliseconds")
    return int(text)


def parse_settings(headers: Mapping[bytes, bytes]) -> InstanceSettings:
    """What the headers say about a new instance. Raises `InvalidRequest`."""
    auto_commit = _header(headers, "Kafka-Enable-Auto-Commit", "true").lower()
    if auto_commit not in ("true", "false"):
        raise InvalidRequest("Kafka-Enable-Auto-Commit: must be true or false")
    reset = _header(headers, "Kafka-Auto-Offset-Reset", "latest")
    if reset not in _RESETS:
        raise InvalidRequest("Kafka-Auto-Offset-Reset: must be earliest, latest or none")
    return InstanceSettings(
        auto_commit=auto_commit == "true",
        auto_commit_interval_ms=_ms_header(headers, "Kafka-Auto-Commit-Interval", 5_000, 1, MAX_PARTITION),
        offset_reset=_RESETS[reset],
        session_timeout_ms=_ms_header(
            headers, "Kafka-Session-Timeout-Ms", DEFAULT_SESSION_TIMEOUT_MS, 6_000, 1_800_000
        ),
    )


def check_topic_name(name: str) -> None:
    """Raise `InvalidRequest` for what no topic can be called."""
    if not is_topic_name(name):
        raise InvalidRequest(f"topic: {name[:100]!r} is no name of a topic: {NAME_RULE}")


def check_name(name: str, of: str) -> None:
    """Raise `InvalidRequest` for what no group or instance can be called."""
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise InvalidRequest(f"{of}: a name has 1 to {MAX_NAME_CHARACTERS} characters")


def _parse(body: bytes, decoder: "msgspec.json.Decoder[_T]") -> _T:
    try:
        return parse_json(body, decoder)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the body is not what it should be: {error}") from None


def _check_places(places: Sequence[Place] | Sequence[TopicOffset]) -> None:
    if len(places) > MAX_PLACES:
        raise InvalidRequest(f"more than {MAX_PLACES} partitions in one request")
    for name in dict.fromkeys(place.topic for place in places):
        check_topic_name(name)


def _header(headers: Mapping[bytes, bytes], name: str, default: str) -> str:
    given: Any = headers.get(name.lower().encode())
    return default if given is None else given.decode("latin-1").strip()


def _ms_header(headers: Mapping[bytes, bytes], name: str, default: int, lowest: int, highest: int) -> int:
    text = _header(headers, name, str(default))
    if _DIGITS.fullmatch(text) is None or not lowest <= int(text) <= highest:
        raise InvalidRequest(f"{name}: must be {lowest} to {highest} milliseconds")
    return int(text)
