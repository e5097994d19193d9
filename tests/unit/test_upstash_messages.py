"""The messages in a body of Upstash's produce, and what is said about wrong ones."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.api.topics.upstash_messages import parse_messages
from qstash_clone.errors import BodyTooLarge, InvalidRequest
from qstash_clone.topics.producing import ToProduce
from qstash_clone.topics.records import MAX_TIMESTAMP_MS, NAME_RULE, Record


def parse(body: str, topic: str | None = "t") -> list[ToProduce]:
    return parse_messages(body.encode(), topic, 100)


@pytest.mark.parametrize(
    ("body", "record", "partition"),
    [
        ('{"value":"a"}', Record(b"a"), None),
        ('{"value":""}', Record(b""), None),
        ('{"value":"a","key":""}', Record(b"a", b""), None),
        ('{"value":"a","key":"\\u0130"}', Record(b"a", "İ".encode()), None),
        ('{"value":"a","partition":3,"timestamp":12}', Record(b"a", timestamp_ms=12), 3),
        ('{"value":"a","timestamp":0,"partition":0}', Record(b"a", timestamp_ms=0), 0),
        (f'{{"value":"a","timestamp":{MAX_TIMESTAMP_MS}}}', Record(b"a", timestamp_ms=MAX_TIMESTAMP_MS), None),
        ('{"value":"a","partition":null,"timestamp":null,"key":null,"headers":null}', Record(b"a"), None),
        ('{"value":"a","headers":[]}', Record(b"a"), None),
        (
            '{"value":"a","headers":[{"key":"h","value":"1"},{"key":"h","value":"2","x":3},{"key":"","value":""}]}',
            Record(b"a", headers=(("h", b"1"), ("h", b"2"), ("", b""))),
            None,
        ),
        ('{"value":"a\\u0000b"}', Record(b"a\0b"), None),
        ('{"value":1.50}', Record(b"1.50"), None),
        ('{"value":-1E5}', Record(b"-1E5"), None),
        ('{"value": 12345678901234567890123 }', Record(b"12345678901234567890123"), None),
        ('{"value":true,"key":"k"}', Record(b"true", b"k"), None),
        ('{"value":false}', Record(b"false"), None),
        ('{"value":[],"value":"last","news":{"value":1}}', Record(b"last"), None),
        ('{"value":"a","partition":"x","partition":1}', Record(b"a"), 1),
        ('{"value":"a","topic":5}', Record(b"a"), None),
    ],
)
def test_a_message(body: str, record: Record, partition: int | None) -> None:
    assert parse(body) == [ToProduce("t", record, partition)]


def test_messages_keep_their_order_and_their_topics() -> None:
    body = '[{"topic":"a","value":"1"},{"topic":"b","value":2},{"topic":"a","value":"3",},]'
    assert parse(body, None) == [
        ToProduce("a", Record(b"1")),
        ToProduce("b", Record(b"2")),
        ToProduce("a", Record(b"3")),
    ]
    assert parse("[]", None) == parse("[]") == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('"a"', "the body must be a message or an array of messages"),
        ("1", "the body must be a message or an array of messages"),
        ("null", "the body must be a message or an array of messages"),
        ('[{"value":"a"},1]', "message 1: must be an object"),
        ('[[{"value":"a"}]]', "message 0: must be an object"),
        ("{}", "message 0: value is required"),
        ('{"value":null}', "message 0: value must be a string, a number, true or false"),
        ('[{"value":"a"},{"value":{}}]', "message 1: value must be a string, a number, true or false"),
        ('{"value":["a"]}', "message 0: value must be a string, a number, true or false"),
        ('{"value":"a","partition":1.0}', "message 0: partition must be an integer from 0 to 2147483647"),
        ('{"value":"a","partition":1e0}', "message 0: partition must be an integer"),
        ('{"value":"a","partition":"1"}', "message 0: partition must be an integer"),
        ('{"value":"a","partition":true}', "message 0: partition must be an integer"),
        ('{"value":"a","partition":-1}', "message 0: partition must be an integer"),
        ('{"value":"a","partition":2147483648}', "message 0: partition must be an integer"),
        ('{"value":"a","partition":123456789012345678901234}', "message 0: partition must be an integer"),
        ('{"value":"a","timestamp":-1}', "message 0: timestamp must be an integer from 0 to 9007199254740991"),
        ('{"value":"a","timestamp":9007199254740992}', "message 0: timestamp must be an integer"),
        ('{"value":"a","timestamp":"2024-01-01"}', "message 0: timestamp must be an integer"),
        ('{"value":"a","key":1}', "message 0: key must be a string"),
        ('{"value":"a","headers":{"a":"b"}}', "message 0: headers must be an array"),
        ('{"value":"a","headers":["x"]}', "message 0: header 0 must be an object with key and value, both strings"),
        ('{"value":"a","headers":[{"key":"a","value":"b"},{"key":"a"}]}', "message 0: header 1 must be an object"),
        ('{"value":"a","headers":[{"key":"a","value":1}]}', "message 0: header 0 must be an object"),
        ('{"value":"a","headers":[{"key":"a","value":null}]}', "message 0: header 0 must be an object"),
    ],
)
def test_what_is_wrong_is_named(body: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('{"value":"no topic"}', "message 0: topic is required"),
        ('[{"topic":"a","value":"x"},{"topic":null,"value":"x"}]', "message 1: topic is required"),
        ('{"topic":1,"value":"x"}', "message 0: topic must be a string"),
        (
            '[{"topic":"a","value":"x"},{"topic":"a b","value":"x"}]',
            f"message 1: topic: 'a b' is no name of a topic: {NAME_RULE}",
        ),
        ('{"topic":"","value":"x"}', f"message 0: topic: '' is no name of a topic: {NAME_RULE}"),
        ('{"topic":"..","value":"x"}', f"message 0: topic: '..' is no name of a topic: {NAME_RULE}"),
    ],
)
def test_each_message_names_its_topic(body: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(body, None)
    assert str(caught.value) == text


@pytest.mark.parametrize("value", ['"a"', "1"])
def test_too_many_are_too_large(value: str) -> None:
    body = ",".join(['{"value":' + value + "}"] * 101)
    with pytest.raises(BodyTooLarge, match="more than 100 messages"):
        parse(f"[{body}]")


HEADERS = st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=3).map(
    lambda pairs: [{"key": key, "value": value} for key, value in pairs]
)


@st.composite
def messages_of_any_kind(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Valid ones, with or without what may be left out."""
    optional: dict[str, st.SearchStrategy[Any]] = {
        "partition": st.none() | st.integers(0, 9),
        "timestamp": st.none() | st.integers(0, MAX_TIMESTAMP_MS),
        "key": st.none() | st.text(max_size=4),
        "headers": st.none() | HEADERS,
    }
    messages: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 4))):
        message: dict[str, Any] = {"value": draw(st.text(max_size=4)), "topic": draw(st.text("ab.", min_size=3))}
        message |= {name: draw(values) for name, values in optional.items() if draw(st.booleans())}
        messages.append(message)
    return messages


@given(messages_of_any_kind(), st.booleans())
def test_both_ways_of_reading_agree(messages: list[dict[str, Any]], has_topics: bool) -> None:
    """A number among the values is what only the closer look understands."""
    topic = None if has_topics else "t"
    at_once = parse_messages(json.dumps(messages).encode(), topic, 100)
    closely = parse_messages(json.dumps([{"topic": "t", "value": 1}, *messages]).encode(), topic, 100)
    assert closely == [ToProduce("t", Record(b"1")), *at_once]
