"""The messages in a body of Upstash's produce: valid ones are decoded in one go, only others are looked at closely."""

from collections.abc import Sequence
from typing import Annotated, Final, NoReturn, TypeVar

import msgspec

from qstash_clone.api.topics.json_input import parse_json
from qstash_clone.errors import BodyTooLarge, InvalidRequest
from qstash_clone.topics.producing import ToProduce
from qstash_clone.topics.records import MAX_TIMESTAMP_MS, NAME_RULE, Record, is_topic_name

_T = TypeVar("_T")

_MAX_PARTITION: Final = 2**31 - 1


class _Header(msgspec.Struct, gc=False):
    key: str
    value: str


class _Message(msgspec.Struct):
    """To the topic of the path: what its own field says does not count."""

    value: str
    partition: Annotated[int, msgspec.Meta(ge=0, le=_MAX_PARTITION)] | None = None
    timestamp: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIMESTAMP_MS)] | None = None
    key: str | None = None
    headers: list[_Header] | None = None


class _AddressedMessage(_Message, kw_only=True):
    topic: str


_decoder: msgspec.json.Decoder[list[_Message] | _Message] = msgspec.json.Decoder(list[_Message] | _Message)
_addressed_decoder: msgspec.json.Decoder[list[_AddressedMessage] | _AddressedMessage] = msgspec.json.Decoder(
    list[_AddressedMessage] | _AddressedMessage
)
_raw_decoder: msgspec.json.Decoder[list[msgspec.Raw] | dict[str, msgspec.Raw]] = msgspec.json.Decoder(
    list[msgspec.Raw] | dict[str, msgspec.Raw]
)
_raw_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_headers_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)
_integer_decoder = msgspec.json.Decoder(int)


def parse_messages(body: bytes, topic: str | None, max_messages: int) -> list[ToProduce]:
    """One message or a list of them, for this topic; None: each names its own.

    Raises `InvalidRequest`, naming the first message at fault, and `BodyTooLarge` for too many.
    """
    messages: Sequence[_Message]
    try:
        if topic is None:
            addressed = parse_json(body, _addressed_decoder)
            messages = addressed = addressed if isinstance(addressed, list) else [addressed]
            names = [message.topic for message in addressed]
        else:
            parsed = parse_json(body, _decoder)
            messages = parsed if isinstance(parsed, list) else [parsed]
            names = [topic] * len(messages)
    except msgspec.ValidationError:
        messages, names = _read_closely(body, topic, max_messages)
    if len(names) > max_messages:
        raise _too_many(max_messages)
    if topic is None:
        illegal = {name for name in names if not is_topic_name(name)}
        if illegal:
            at = next(at for at, name in enumerate(names) if name in illegal)
            raise InvalidRequest(f"message {at}: topic: {_shown(names[at])} is no name of a topic: {NAME_RULE}")
    return [_to_produce(message, name) for message, name in zip(messages, names, strict=True)]


def _to_produce(message: _Message, topic: str) -> ToProduce:
    key, headers = message.key, message.headers
    record = Record(
        message.value.encode(),
        None if key is None else key.encode(),
        tuple([(header.key, header.value.encode()) for header in headers]) if headers else (),
        message.timestamp,
    )
    return ToProduce(topic, record, message.partition)


def _too_many(max_messages: int) -> BodyTooLarge:
    return BodyTooLarge(f"more than {max_messages} messages in one request")


# What is not valid at first sight: wrong, or a value that is no string, or a field that is repeated.


def _read_closely(body: bytes, topic: str | None, max_messages: int) -> tuple[list[_Message], list[str]]:
    try:
        raw = parse_json(body, _raw_decoder)
    except msgspec.ValidationError:
        raise InvalidRequest("the body must be a message or an array of messages") from None
    if isinstance(raw, list) and len(raw) > max_messages:
        raise _too_many(max_messages)
    messages: list[_Message] = []
    names: list[str] = []
    for at, one in enumerate(raw if isinstance(raw, list) else (raw,)):
        fields = one if isinstance(one, dict) else _decoded(_raw_fields_decoder, one)
        if fields is None:
            raise InvalidRequest(f"message {at}: must be an object")
        reader = _Reader(at, fields)
        messages.append(reader.message())
        names.append(reader.topic() if topic is None else topic)
    return messages, names


class _Reader:
    """Reads one message, field by field."""

    def __init__(self, at: int, fields: dict[str, msgspec.Raw]) -> None:
        self._at = at
        self._fields = {name: raw for name, raw in fields.items() if bytes(raw) != b"null" or name == "value"}

    def topic(self) -> str:
        raw = self._fields.get("topic")
        if raw is None:
            self._refuse("topic is required")
        topic = _decoded(_text_decoder, raw)
        if topic is None:
            self._refuse("topic must be a string")
        return topic

    def message(self) -> _Message:
        return _Message(
            self._value(),
            self._integer("partition", _MAX_PARTITION),
            self._integer("timestamp", MAX_TIMESTAMP_MS),
            self._key(),
            self._headers(),
        )

    def _value(self) -> str:
        raw = self._fields.get("value")
        if raw is None:
            self._refuse("value is required")
        text = bytes(raw)
        if text[:1] in (b"{", b"[", b"n"):
            self._refuse("value must be a string, a number, true or false")
        return _text_decoder.decode(raw) if text[:1] == b'"' else text.decode()

    def _integer(self, name: str, maximum: int) -> int | None:
        raw = self._fields.get(name)
        if raw is None:
            return None
        number = _decoded(_integer_decoder, raw)
        if number is None or not 0 <= number <= maximum:
            self._refuse(f"{name} must be an integer from 0 to {maximum}")
        return number

    def _key(self) -> str | None:
        raw = self._fields.get("key")
        if raw is None:
            return None
        key = _decoded(_text_decoder, raw)
        if key is None:
            self._refuse("key must be a string")
        return key

    def _headers(self) -> list[_Header] | None:
        raw = self._fields.get("headers")
        if raw is None:
            return None
        raw_headers = _decoded(_raw_headers_decoder, raw)
        if raw_headers is None:
            self._refuse("headers must be an array")
        headers: list[_Header] = []
        for raw_header in raw_headers:
            fields = _decoded(_raw_fields_decoder, raw_header) or {}
            words = [_decoded(_text_decoder, fields[name]) for name in ("key", "value") if name in fields]
            match words:
                case [str() as key, str() as value]:
                    headers.append(_Header(key, value))
                case _:
                    self._refuse(f"header {len(headers)} must be an object with key and value, both strings")
        return headers

    def _refuse(self, text: str) -> NoReturn:
        raise InvalidRequest(f"message {self._at}: {text}")


def _decoded(decoder: "msgspec.json.Decoder[_T]", raw: msgspec.Raw) -> _T | None:
    """None for another type; the syntax of all of it was checked before."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        return None


def _shown(name: str) -> str:
    return repr(name[:100])
