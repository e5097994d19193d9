"""Base64 and the records of the producer API v2: what goes in comes out, and anything else is refused, not an error."""

import contextlib
import json
from base64 import b64encode, urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.api.topics.event_streams_record import Payload, Refused, decode_base64, parse_record

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.binary(max_size=50))
def test_base64_with_all_of_its_padding_or_none(data: bytes) -> None:
    encoded = b64encode(data).decode()
    assert decode_base64(encoded) == decode_base64(encoded.rstrip("=")) == data


@given(st.binary(max_size=50))
def test_the_other_alphabet_is_refused(data: bytes) -> None:
    encoded = urlsafe_b64encode(data).decode()
    assert decode_base64(encoded) == (data if encoded == b64encode(data).decode() else None)


@pytest.mark.parametrize(
    "text",
    ["=", "==", "a", "a===", "aa=", "aaa==", "aaaa=", "aa==aa==", "aa==\n", " aa==", "aa\u00e4=", "*aaa"],
)
def test_what_is_no_base64(text: str) -> None:
    assert decode_base64(text) is None


@given(st.text(max_size=10))
def test_any_text_is_base64_or_not(text: str) -> None:
    data = decode_base64(text)
    assert data is None or b64encode(data).decode().rstrip("=")[:-1] == text.rstrip("=")[:-1]


@given(
    st.lists(st.tuples(_TEXT.filter(bool), st.binary(max_size=20)), max_size=5),
    st.none() | st.binary(max_size=20),
    _TEXT,
)
def test_records_come_back(headers: list[tuple[str, bytes]], key: bytes | None, value: str) -> None:
    body: dict[str, Any] = {
        "headers": [{"name": name, "value": b64encode(data).decode()} for name, data in headers],
        "key": None if key is None else {"type": "binary", "data": b64encode(key).decode()},
        "value": {"type": "text", "data": value},
    }
    for is_ascii in (False, True):
        found = parse_record(json.dumps(body, ensure_ascii=is_ascii).encode())
        assert found.headers == tuple(headers)
        assert found.key == (None if key is None else Payload("binary", key))
        assert found.value == Payload("text", value.encode())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(_JSON)
def test_json_means_the_same_in_a_string_and_in_its_place(content: Any) -> None:
    text = json.dumps(content)
    in_string = parse_record(json.dumps({"value": {"type": "json", "data": text}}).encode()).value.data
    assert in_string == text.encode()
    if not isinstance(content, str):
        in_place = parse_record(b'{"value":{"type":"json","data":%s}}' % text.encode()).value.data
        assert json.loads(in_place) == content


_FIELDS = st.sampled_from(
    ["headers", "key", "value", "type", "data", "name", "schema", "schema_id", "schema_name_strategy", "text", "avro"]
)


_BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | _FIELDS,
    lambda inner: st.dictionaries(_FIELDS, inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=6,
)


@given(st.dictionaries(_FIELDS, _BODIES, max_size=4))
def test_any_object_is_a_record_or_refused(body: dict[str, Any]) -> None:
    """With nothing but the one exception that says what is wrong."""
    with contextlib.suppress(Refused):
        assert isinstance(parse_record(json.dumps(body).encode()).value, Payload)


@given(st.binary(max_size=50))
def test_any_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        parse_record(body)
