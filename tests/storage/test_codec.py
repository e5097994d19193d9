"""Records: what Python writes scripts read and the other way round; damage is told and never guessed at."""

import struct

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from qstash_clone.domain.message import AttemptRecord, Message, NewMessage
from qstash_clone.errors import StorageError
from qstash_clone.settings import RULES
from qstash_clone.storage.codec import (
    HEAD_BYTES,
    RECORD_FORMAT,
    body_range,
    decode_claim,
    decode_record,
    encode_message,
    find_lane,
)
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.store import Store
from tests.storage.conftest import AgeLeases, MoveClock
from tests.support.messages import claim_all, new_message, publish, retry

TEXT = st.text(max_size=30)
HEADERS = st.lists(st.tuples(TEXT, TEXT), max_size=4).map(tuple)
MESSAGES = st.builds(
    Message,
    url=st.text(min_size=1, max_size=300),
    method=st.sampled_from(["GET", "POST"]),
    headers=HEADERS,
    caller_ip=TEXT,
    max_retries=st.integers(0, 1000),
    timeout_ms=st.integers(1, 7_200_000),
    retry_delay_expression=st.none() | TEXT,
    labels=st.lists(TEXT, max_size=3).map(tuple),
)
LANES = st.sampled_from(
    ["h:receiver.example", "h:a", "h:", "q:orders", "f:key", "q:orders f:key", "h:POST"]
) | TEXT.map(lambda text: "h:" + text.replace(" ", "")[:140])
ATTEMPTS = st.builds(
    AttemptRecord,
    status=st.integers(0, 599),
    error=TEXT,
    headers=HEADERS,
    body=st.binary(max_size=200),
    duration_ms=st.integers(0, 1 << 31),
)


@given(message=MESSAGES, body=st.binary(max_size=400), lane=LANES, attempts=st.lists(ATTEMPTS, max_size=3))
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_message_survives_its_life(
    store: Store, move_clock: MoveClock, message: Message, body: bytes, lane: str, attempts: list[AttemptRecord]
) -> None:
    new = NewMessage(id=store.publishing.new_message_id(), message=message, body=body, lane=lane)
    await store.publishing.publish(new)
    for attempt in attempts:
        [claim] = await claim_all(store)
        assert (claim.message, claim.body, claim.body_bytes) == (message, body, len(body))
        await store.delivery.settle(retry(claim, 0, attempt))
        await store.delivery.promote(0, 10)
    stored = await store.admin.get_message(new.id)
    assert stored is not None
    assert (stored.message, stored.body, stored.lane) == (message, body, lane)
    assert stored.retried == len(attempts)
    assert stored.last_attempt == (attempts[-1] if attempts else None)
    await store.admin.cancel(new.id)
    await claim_all(store)


@given(message=MESSAGES, lane=LANES)
def test_a_lane_is_only_looked_up_where_it_stands(message: Message, lane: str) -> None:
    encoded = encode_message(message)
    at = find_lane(lane.encode(), encoded)
    assert 0 <= at < 256
    if at:
        assert b"h:" + encoded[at : at + len(lane.encode()) - 2] == lane.encode()


async def test_a_record_is_as_long_as_it_says(store: Store, keys: PartitionKeys) -> None:
    message = new_message(store, body=b"x" * 100)
    await store.publishing.publish(message)
    record = await store.commands.ask("GET", keys.message(message.id))
    assert len(record) == HEAD_BYTES + len(encode_message(message.message)) + 100, "the lane is not stored again"
    assert body_range(record[:HEAD_BYTES]) == (len(record) - 100, len(record) - 1)


async def test_what_cannot_be_read_is_an_error(store: Store, keys: PartitionKeys) -> None:
    message_id = await publish(store)
    record = await store.commands.ask("GET", keys.message(message_id))
    for damaged in (b"", record[: HEAD_BYTES - 1], bytes([RECORD_FORMAT + 1]) + record[1:]):
        with pytest.raises(StorageError):
            decode_record(message_id, damaged)
    with pytest.raises((ValueError, struct.error)):
        decode_claim(0, b"1-1", message_id, record[: HEAD_BYTES + 5], 0)


@pytest.mark.parametrize("delay_ms", [0, 1000])
async def test_a_record_of_a_later_format_is_left_to_a_later_release(
    store: Store, keys: PartitionKeys, move_clock: MoveClock, age_leases: AgeLeases, delay_ms: int
) -> None:
    message_id = await publish(store, delay_ms=delay_ms)
    await move_clock(delay_ms)
    await store.commands.ask("SETRANGE", keys.message(message_id), 0, bytes([RECORD_FORMAT + 1]))
    assert (await store.delivery.promote(0, 10)).promoted == 0
    assert await claim_all(store) == []
    await age_leases()
    assert await claim_all(store, reclaim=True) == []
    for refused in (store.admin.get_message(message_id), store.admin.cancel(message_id)):
        with pytest.raises(StorageError):
            await refused
    await store.commands.ask("SETRANGE", keys.message(message_id), 0, bytes([RECORD_FORMAT]))
    await move_clock(1000)
    await store.delivery.promote(0, 10)
    await age_leases()
    [claim] = await claim_all(store, reclaim=True)
    assert (claim.id, claim.claims) == (message_id, 1)


def test_a_record_has_room_for_what_the_settings_allow() -> None:
    """Scripts pack without a complaint: a number too large would wrap around, and retries would never end."""
    most = {name: int(rule.maximum) for name, rule in RULES.items() if rule.maximum is not None}
    assert most["max_claims"] < 1 << 8
    assert most["max_retries"] + 1 < 1 << 16
    # Each byte of a header may become two in the encoded message.
    assert 2 * most["max_header_bytes"] + 65_536 < 1 << 24
    assert most["max_message_bytes"] < 1 << 32
