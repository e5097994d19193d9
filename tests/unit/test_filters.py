from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.filters import Filter, hosts_of, path_of
from qstash_clone.domain.lifecycle import LogEvent
from qstash_clone.domain.message import AttemptRecord, Extras, Message, State, StoredMessage
from qstash_clone.ids import MessageId

ID = MessageId(b"\x01" * 12)
OTHER_ID = MessageId(b"\x02" * 12)
STORED = StoredMessage(
    id=ID,
    message=Message(url="https://E.com:8443/a/b?x=1", labels=("eu", "vip"), caller_ip="203.0.113.9"),
    body=b"",
    lane="h:e.com:8443",
    state=State.QUEUED,
    cancel_requested=False,
    generation=0,
    claims=0,
    retried=0,
    created_ms=1000,
    not_before_ms=1000,
    due_ms=1000,
    last_attempt=None,
)
FAILED = msgspec.structs.replace(
    STORED, state=State.FAILED, last_attempt=AttemptRecord(status=404, error="destination answered 404")
)

MATCHING: list[dict[str, Any]] = [
    {"message_ids": frozenset({ID, OTHER_ID})},
    {"urls": frozenset({"https://E.com:8443/a/b?x=1", "https://f.com"})},
    {"hosts": frozenset({"e.com"})},
    {"hosts": frozenset({"e.com:8443", "f.com"})},
    {"paths": frozenset({"/a/b"})},
    {"labels": frozenset({"vip", "us"})},
    {"caller_ips": frozenset({"203.0.113.9"})},
]
OTHERS: list[dict[str, Any]] = [
    {"message_ids": frozenset({OTHER_ID})},
    {"message_ids": frozenset[MessageId]()},
    {"urls": frozenset({"https://e.com:8443/a/b?x=1"})},
    {"urls": frozenset({"https://E.com:8443/a/b"})},
    {"hosts": frozenset({"E.com", "e.com:443"})},
    {"paths": frozenset({"/a/b?x=1", "/a", "/"})},
    {"labels": frozenset({"EU"})},
    {"caller_ips": frozenset({"203.0.113.8"})},
    {"url_groups": frozenset({"g"})},
    {"queue_names": frozenset({"q"})},
    {"schedule_ids": frozenset({"s"})},
    {"flow_control_keys": frozenset({"k"})},
]


@pytest.mark.parametrize("fields", MATCHING)
def test_one_value_of_a_field_is_enough(fields: dict[str, Any]) -> None:
    selection = Filter(**fields)
    assert selection.matches(STORED)


@pytest.mark.parametrize("fields", OTHERS)
def test_other_values_are_not_selected(fields: dict[str, Any]) -> None:
    selection = Filter(**fields)
    assert not selection.matches(STORED)


MEMBER = msgspec.structs.replace(
    STORED,
    lane="q:orders f:tenant-7",
    message=Message(url="https://e.com", extras=Extras(url_group="both", schedule_id="scd_1")),
)
CALLBACK = msgspec.structs.replace(STORED, lane=f"h:e.com s:orders/{ID.hex()}", message=Message(url="https://e.com"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("url_groups", "both"), ("schedule_ids", "scd_1"), ("queue_names", "orders"), ("flow_control_keys", "tenant-7")],
)
def test_what_a_message_belongs_to(field: str, value: str) -> None:
    def asks_for(*values: str) -> Filter:
        return msgspec.structs.replace(Filter(), **{field: frozenset(values)})

    assert asks_for(value, "x").matches(MEMBER)
    assert not asks_for("x").matches(MEMBER)
    assert not asks_for(value).matches(STORED)


def test_queue_and_key_are_looked_for_where_they_are() -> None:
    assert not Filter(queue_names=frozenset({"tenant-7"})).matches(MEMBER)
    assert not Filter(flow_control_keys=frozenset({"orders"})).matches(MEMBER)
    both = Filter(queue_names=frozenset({"orders"}), flow_control_keys=frozenset({"tenant-8"}))
    assert not both.matches(MEMBER)


def test_a_callback_of_a_member_is_no_member() -> None:
    assert not Filter(queue_names=frozenset({"orders"})).matches(CALLBACK)


def test_all_fields_have_to_match() -> None:
    assert Filter(hosts=frozenset({"e.com"}), labels=frozenset({"eu"})).matches(STORED)
    assert not Filter(hosts=frozenset({"e.com"}), labels=frozenset({"us"})).matches(STORED)


def test_no_condition_selects_everything() -> None:
    assert Filter().selects_everything
    assert Filter().matches(STORED)


@pytest.mark.parametrize(
    "fields", [*MATCHING, *OTHERS, {"from_ms": 0}, {"to_ms": 0}, {"events": frozenset[LogEvent]()}]
)
def test_any_condition_is_one(fields: dict[str, Any]) -> None:
    assert not Filter(**fields).selects_everything


@pytest.mark.parametrize(("offset_from", "offset_to", "inside"), [(0, 0, True), (1, 1, False), (-1, -1, False)])
def test_dates_are_inclusive_and_compare_with_the_creation(offset_from: int, offset_to: int, inside: bool) -> None:
    assert Filter(from_ms=1000 + offset_from, to_ms=1000 + offset_to).matches(STORED) == inside


@pytest.mark.parametrize(("status", "selected"), [(404, True), (0, False), (999, False)])
def test_statuses_of_dead_letters(status: int, selected: bool) -> None:
    assert Filter(response_statuses=frozenset({status, 1})).matches(FAILED) == selected


def test_status_of_what_had_no_attempt() -> None:
    assert Filter(response_statuses=frozenset({0})).matches(STORED)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://e.com", {"e.com", "e.com:443"}),
        ("http://E.COM./x", {"e.com", "e.com:80"}),
        ("http://127.0.0.1:9000/", {"127.0.0.1", "127.0.0.1:9000"}),
        ("http://[::1]:9000/", {"::1", "[::1]", "[::1]:9000"}),
    ],
)
def test_hosts(url: str, hosts: set[str]) -> None:
    assert hosts_of(url) == hosts


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://e.com", "/"),
        ("https://e.com?x=/y", "/"),
        ("https://e.com/", "/"),
        ("https://e.com/a//b/?x=/y?z", "/a//b/"),
        ("HTTP://e.com:1/A%2Fb", "/A%2Fb"),
        ("", "/"),
    ],
)
def test_paths(url: str, path: str) -> None:
    assert path_of(url) == path


_fields = st.fixed_dictionaries(
    {},
    optional={
        "hosts": st.frozensets(st.sampled_from(["e.com", "f.com"])),
        "labels": st.frozensets(st.sampled_from(["eu", "us"])),
        "paths": st.frozensets(st.sampled_from(["/a/b", "/"])),
        "from_ms": st.integers(999, 1001),
        "to_ms": st.integers(999, 1001),
    },
)


@given(_fields)
def test_fields_combine_with_and(fields: dict[str, Any]) -> None:
    one_by_one = [Filter(**{name: value}).matches(STORED) for name, value in fields.items()]
    assert Filter(**fields).matches(STORED) == all(one_by_one)
