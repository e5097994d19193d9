"""What a request to IBM's REST producer API v2 holds: headers, key and value with their types, decoded."""

import re
from base64 import b64decode
from typing import Final, Literal, TypeVar

import msgspec

from qstash_clone.errors import InvalidRequest
from qstash_clone.topics.subjects import STRATEGIES, Part, Strategy

_T = TypeVar("_T")

PayloadType = Literal["text", "binary", "json", "avro"]
Code = Literal["invalid_json", "missing_field", "invalid_type", "invalid_value", "invalid_schema"]

_TYPES: Final[dict[str, PayloadType]] = {"text": "text", "binary": "binary", "json": "json", "avro": "avro"}
_BASE64: Final = re.compile(r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}(==)?|[A-Za-z0-9+/]{3}=?)?")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_MAX_SCHEMA_ID: Final = 2**31 - 1

_raw_decoder = msgspec.json.Decoder(msgspec.Raw)
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)
_integer_decoder = msgspec.json.Decoder(int)


class Refused(InvalidRequest):
    """A part of the request is wrong; `code` and `target` say it to programs."""

    def __init__(self, code: Code, text: str, name: str = "", target_type: str = "field") -> None:
        self.code = code
        self.target = {"type": target_type, "name": name} if name else None
        super().__init__(text)


class Payload(msgspec.Struct, frozen=True):
    """A key or a value."""

    type: PayloadType
    data: bytes
    """As it is stored; of `avro` still in its JSON form."""
    schema: str | None = None
    schema_id: int | None = None
    strategy: Strategy = "topic"


class RecordRequest(msgspec.Struct, frozen=True):
    """One record."""

    headers: tuple[tuple[str, bytes], ...]
    key: Payload | None
    value: Payload


def parse_record(body: bytes) -> RecordRequest:
    """The record in the body of a request. Raises `Refused`."""
    if body[:3] == _BYTE_ORDER_MARK:
        body = body[3:]
    if not body or body.isspace():
        raise Refused("invalid_json", "the body is empty")
    try:
        # The decoder looks at what it keeps only.
        body.decode()
        fields = _object_decoder.decode(body)
    except msgspec.ValidationError:
        raise Refused("invalid_json", "the body must be a JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("invalid_json", f"the body is not JSON: {str(error)[:100]}") from None
    value = _given(fields, "value")
    if value is None:
        raise Refused("missing_field", "value is required", "value")
    key = _given(fields, "key")
    return RecordRequest(
        _parse_headers(_given(fields, "headers")),
        None if key is None else _parse_payload(key, "key"),
        _parse_payload(value, "value"),
    )


def decode_base64(text: str) -> bytes | None:
    """What is in the standard alphabet, with all of its padding or none; None for anything else."""
    if _BASE64.fullmatch(text) is None:
        return None
    return b64decode(text + "=" * (-len(text) % 4))


def _parse_headers(raw: msgspec.Raw | None) -> tuple[tuple[str, bytes], ...]:
    if raw is None:
        return ()
    given = _decoded(_list_decoder, raw)
    if given is None:
        raise Refused("invalid_type", "headers must be an array", "headers")
    headers: list[tuple[str, bytes]] = []
    for at, raw_header in enumerate(given):
        fields = _decoded(_object_decoder, raw_header)
        if fields is None:
            raise Refused("invalid_type", f"headers[{at}] must be an object with name and value", "headers")
        name = _text(fields, "name", f"headers[{at}].name")
        if not name:
            raise Refused("invalid_value", f"headers[{at}].name must not be empty", "name")
        value = decode_base64(_text(fields, "value", f"headers[{at}].value"))
        if value is None:
            raise Refused("invalid_value", f"headers[{at}].value is not base64", "value")
        headers.append((name, value))
    return tuple(headers)


def _parse_payload(raw: msgspec.Raw, part: Part) -> Payload:
    fields = _decoded(_object_decoder, raw)
    if fields is None:
        raise Refused("invalid_type", f"{part} must be an object with type and data", part)
    raw_type = _given(fields, "type")
    named = None if raw_type is None else _decoded(_text_decoder, raw_type)
    kind = None if named is None else _TYPES.get(named.lower())
    if kind is None:
        raise Refused("invalid_type", f"{part}.type must be one of {', '.join(_TYPES)}", "type")
    if kind == "avro":
        return _parse_avro(fields, part)
    if kind == "json":
        return Payload(kind, _parse_json(fields, part))
    text = _text(fields, "data", f"{part}.data")
    if kind == "text":
        return Payload(kind, text.encode())
    data = decode_base64(text)
    if data is None:
        raise Refused("invalid_value", f"{part}.data is not base64", "data")
    return Payload(kind, data)


def _parse_json(fields: dict[str, msgspec.Raw], part: Part) -> bytes:
    """A string that holds JSON, or JSON in its place, then without blanks."""
    raw = fields.get("data")
    if raw is None:
        raise Refused("missing_field", f"{part}.data is required", "data")
    encoded = bytes(raw)
    if encoded[:1] != b'"':
        return msgspec.json.format(encoded, indent=-1)
    data = _text(fields, "data", f"{part}.data").encode()
    try:
        _raw_decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused("invalid_value", f"{part}.data is not JSON: {str(error)[:100]}", "data") from None
    return data


def _parse_avro(fields: dict[str, msgspec.Raw], part: Part) -> Payload:
    data = _text(fields, "data", f"{part}.data").encode()
    strategy: Strategy = "topic"
    if _given(fields, "schema_name_strategy") is not None:
        given = _text(fields, "schema_name_strategy", f"{part}.schema_name_strategy").lower()
        found = STRATEGIES.get(given)
        if found is None:
            raise Refused(
                "invalid_value",
                f"{part}.schema_name_strategy must be one of {', '.join(STRATEGIES)}",
                "schema_name_strategy",
            )
        strategy = found
    if _given(fields, "schema") is not None:
        return Payload("avro", data, _text(fields, "schema", f"{part}.schema"), None, strategy)
    raw_id = _given(fields, "schema_id")
    if raw_id is None:
        raise Refused("missing_field", f"{part}.schema is required for the type avro", "schema")
    schema_id = _decoded(_integer_decoder, raw_id)
    if schema_id is None or not 0 < schema_id <= _MAX_SCHEMA_ID:
        raise Refused("invalid_type", f"{part}.schema_id must be the id of a schema", "schema_id")
    return Payload("avro", data, None, schema_id, strategy)


def _given(fields: dict[str, msgspec.Raw], name: str) -> msgspec.Raw | None:
    """`null` is as good as nothing."""
    raw = fields.get(name)
    return None if raw is None or bytes(raw) == b"null" else raw


def _text(fields: dict[str, msgspec.Raw], name: str, where: str) -> str:
    raw = _given(fields, name)
    if raw is None:
        raise Refused("missing_field", f"{where} is required", name)
    text = _decoded(_text_decoder, raw)
    if text is None:
        raise Refused("invalid_type", f"{where} must be a string", name)
    return text


def _decoded(decoder: "msgspec.json.Decoder[_T]", raw: msgspec.Raw) -> _T | None:
    """None for another type; the syntax of all of it was checked before."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        return None
