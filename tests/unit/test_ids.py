import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.ids import BUCKETS, MessageId, MessageIdGenerator, bucket_of, format_message_id, parse_message_id

ids = st.binary(min_size=12, max_size=12).map(MessageId)


@given(ids)
def test_wire_form_round_trips(message_id: MessageId) -> None:
    wire = format_message_id(message_id)
    assert re.fullmatch(r"msg_[0-9a-z]{20}", wire)
    assert parse_message_id(wire) == message_id


def test_wire_form_is_stable() -> None:
    assert format_message_id(MessageId(bytes(12))) == "msg_" + "0" * 20
    assert format_message_id(MessageId(b"\xff" * 12)) == "msg_1" + "z" * 19
    assert format_message_id(MessageId(bytes(range(12)))) == "msg_0001081g81860w40j2gb"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "msg_",
        "msg_" + "0" * 19,
        "msg_" + "0" * 21,
        "scd_" + "0" * 20,
        "MSG_" + "0" * 20,
        "msg_" + "A" + "0" * 19,
        "msg_" + "i" + "0" * 19,
        "msg_" + "l" + "0" * 19,
        "msg_" + "o" + "0" * 19,
        "msg_" + "u" + "0" * 19,
        "msg_2" + "0" * 19,
        "msg_" + "\u0660" * 20,
    ],
)
def test_other_text_is_no_id(text: str) -> None:
    assert parse_message_id(text) is None


@given(st.text(max_size=30))
def test_text_never_raises(text: str) -> None:
    parsed = parse_message_id(text)
    assert parsed is None or format_message_id(parsed) == text


@given(ids)
def test_bucket_is_the_first_twelve_bits(message_id: MessageId) -> None:
    assert bucket_of(message_id) == int.from_bytes(message_id, "big") >> 84


def test_generated_ids_are_distinct_beyond_one_pool() -> None:
    generator = MessageIdGenerator()
    drawn = [generator.next_id() for _ in range(1000)]
    assert len(set(drawn)) == 1000
    assert {len(message_id) for message_id in drawn} == {12}


@given(st.integers(0, BUCKETS - 1), st.data())
def test_generated_ids_keep_to_their_buckets(first: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, BUCKETS - first))
    generator = MessageIdGenerator()
    for _ in range(5):
        assert first <= bucket_of(generator.next_id(first, count)) < first + count


def test_generated_ids_reach_every_bucket_of_a_small_range() -> None:
    generator = MessageIdGenerator()
    assert {bucket_of(generator.next_id(4090, 6)) for _ in range(400)} == set(range(4090, 4096))


@pytest.mark.parametrize("bucket", [0, 77, BUCKETS - 1])
def test_ordered_ids_sort_as_they_were_made(bucket: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also within a microsecond, and when the clock of the machine is set back."""
    times_ns = iter([5_000_000, 5_000_000, 5_000_400, 9_000_000, 1_000_000, 2_000_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(times_ns))
    generator = MessageIdGenerator()
    drawn = [generator.next_ordered_id(bucket) for _ in range(6)]
    assert drawn == sorted(set(drawn))
    assert {bucket_of(message_id) for message_id in drawn} == {bucket}


def test_ordered_ids_of_several_processes_differ_at_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 5_000_000)
    assert len({MessageIdGenerator().next_ordered_id(0) for _ in range(50)}) == 50
