from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.filter_parameters import (
    CANCEL,
    DEAD_LETTERS,
    DEAD_LETTERS_BULK,
    EVENTS,
    LOGS,
    NOTHING,
    FilterRules,
    ParsedFilter,
    parse_filter,
)
from qstash_clone.domain.filters import Filter
from qstash_clone.domain.lifecycle import LogEvent
from qstash_clone.errors import InvalidRequest
from qstash_clone.ids import MessageId, format_message_id

ID, OTHER_ID = MessageId(b"\x01" * 12), MessageId(b"\x02" * 12)
TEXT, OTHER_TEXT = format_message_id(ID), format_message_id(OTHER_ID)
RULES = {
    "events": EVENTS,
    "logs": LOGS,
    "dlq": DEAD_LETTERS,
    "dlq bulk": DEAD_LETTERS_BULK,
    "cancel": CANCEL,
}
ALL = set(RULES)
WHERE = {
    "messageId": ALL - {"cancel"},
    "messageIds": {"events", "logs", "cancel"},
    "dlqIds": {"dlq", "dlq bulk"},
    **dict.fromkeys(("url", "topicName", "queueName", "scheduleId", "label", "callerIp", "flowControlKey"), ALL),
    "callerIP": ALL,
    "host": {"events", "logs", "cancel"},
    "path": {"events", "logs", "cancel"},
    "state": {"events", "logs"},
    "responseStatus": {"dlq", "dlq bulk"},
    "fromDate": ALL,
    "toDate": ALL,
    "cursor": ALL,
    "count": ALL,
    "order": {"events", "logs", "dlq"},
    "api": ALL,
    "trimBody": {"events", "logs", "dlq"},
    "source": {"dlq"},
    "qstash_token": ALL,
    "Upstash-Retries": ALL,
}
VALUES = {
    "messageId": TEXT,
    "messageIds": TEXT,
    "state": "ERROR",
    "responseStatus": "404",
    "fromDate": "1",
    "toDate": "2",
    "count": "7",
    "order": "latestFirst",
    "trimBody": "10",
}


def parse(*query: tuple[str, str], rules: FilterRules = EVENTS, body: dict[str, object] | None = None) -> ParsedFilter:
    return parse_filter(query, rules, body)


@pytest.mark.parametrize("endpoint", RULES)
@pytest.mark.parametrize("name", [*WHERE, "labels", "urlGroup", "groupBy", "States", ""])
def test_each_endpoint_takes_its_own_parameters(endpoint: str, name: str) -> None:
    value = VALUES.get(name, "x")
    rules = RULES[endpoint]
    if endpoint in WHERE.get(name, set[str]()):
        parse((name, value), rules=rules)
        return
    with pytest.raises(InvalidRequest) as caught:
        parse((name, value), rules=rules)
    assert str(caught.value) == f'"{name}" is not a filter here'
    with pytest.raises(InvalidRequest):
        parse(rules=rules, body={name: value})


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("messageId", TEXT, "message_ids", frozenset({ID})),
        ("messageId", "msg_unknown", "message_ids", frozenset[MessageId]()),
        ("url", "https://a,b", "urls", frozenset({"https://a,b"})),
        ("url", "https://a,b,HTTP://c, https://d", "urls", frozenset({"https://a,b", "HTTP://c", "https://d"})),
        ("path", "/a,b,/c", "paths", frozenset({"/a,b", "/c"})),
        ("host", "E.com,f.com:80", "hosts", frozenset({"e.com", "f.com:80"})),
        ("topicName", "a,b", "url_groups", frozenset({"a", "b"})),
        ("queueName", "a", "queue_names", frozenset({"a"})),
        ("scheduleId", "a", "schedule_ids", frozenset({"a"})),
        ("flowControlKey", "a", "flow_control_keys", frozenset({"a"})),
        ("label", "eu, us,eu", "labels", frozenset({"eu", "us"})),
        ("callerIp", "203.0.113.9", "caller_ips", frozenset({"203.0.113.9"})),
        ("callerIP", "203.0.113.9", "caller_ips", frozenset({"203.0.113.9"})),
        ("state", "DELIVERED", "events", frozenset({LogEvent.DELIVERED})),
        ("state", "canceled", "events", frozenset({LogEvent.CANCELED})),
        ("state", "CANCELLED,FAILED", "events", frozenset({LogEvent.CANCELED, LogEvent.FAILED})),
        ("state", "IN_PROGRESS", "events", frozenset({LogEvent.ACTIVE, LogEvent.RETRY, LogEvent.ERROR})),
        ("fromDate", "1700000000000", "from_ms", 1_700_000_000_000),
        ("toDate", '"1700000000000"', "to_ms", 1_700_000_000_000),
    ],
)
def test_filters(name: str, text: str, field: str, value: Any) -> None:
    assert parse((name, text)).selection == Filter(**{field: value})


def test_statuses_are_any_integers() -> None:
    assert parse(("responseStatus", "404,999"), ("responseStatus", "-1"), rules=DEAD_LETTERS).selection == Filter(
        response_statuses=frozenset({404, 999, -1})
    )


def test_values_of_a_repeated_parameter_add_up() -> None:
    assert parse(("label", "a"), ("host", "x"), ("label", "b,c")).selection == Filter(
        labels=frozenset({"a", "b", "c"}), hosts=frozenset({"x"})
    )
    assert parse(("callerIp", "a"), ("callerIP", "b")).selection == Filter(caller_ips=frozenset({"a", "b"}))


def test_nothing_given() -> None:
    for rules, count, newest_first in (
        (EVENTS, 1000, True),
        (LOGS, 100, True),
        (DEAD_LETTERS, 100, False),
        (DEAD_LETTERS_BULK, 100, False),
        (CANCEL, None, False),
    ):
        for body in (None, dict[str, object]()):
            parsed = parse(rules=rules, body=body)
            assert parsed == ParsedFilter(selection=Filter(), count=count, newest_first=newest_first)
            assert parsed.selection.selects_everything


@pytest.mark.parametrize(("rules", "maximum"), [(EVENTS, 1000), (LOGS, 100), (DEAD_LETTERS, 100), (CANCEL, 500)])
def test_counts_are_cut_to_the_maximum(rules: FilterRules, maximum: int) -> None:
    assert parse(("count", "1"), rules=rules).count == 1
    assert parse(("count", f"{maximum}"), rules=rules).count == maximum
    assert parse(("count", "9" * 18), rules=rules).count == maximum


def test_paging() -> None:
    parsed = parse(("cursor", "1-0"), ("order", "earliestFirst"), ("trimBody", "-1"), ("cursor", "1-0"))
    assert (parsed.cursor, parsed.newest_first, parsed.trim_body_bytes) == ("1-0", False, -1)
    assert parse(("order", "latestFirst"), rules=DEAD_LETTERS).newest_first
    assert parse(("cursor", "x"), rules=CANCEL).cursor is None


@pytest.mark.parametrize(
    ("rules", "name", "text", "error"),
    [
        (EVENTS, "label", "", "label: the value is empty"),
        (EVENTS, "label", " ", "label: the value is empty"),
        (EVENTS, "label", "a,", "label: the value is empty"),
        (EVENTS, "messageId", "", "messageId: the value is empty"),
        (CANCEL, "messageIds", "", "messageIds: the value is empty"),
        (DEAD_LETTERS_BULK, "dlqIds", "1-0,", "dlqIds: the value is empty"),
        (EVENTS, "fromDate", "", "fromDate: the value is empty"),
        (EVENTS, "fromDate", "-1", 'fromDate: invalid timestamp "-1", use milliseconds of Unix time'),
        (EVENTS, "toDate", "2024-01-01", 'toDate: invalid timestamp "2024-01-01", use milliseconds of Unix time'),
        (EVENTS, "toDate", '"', 'toDate: invalid timestamp """, use milliseconds of Unix time'),
        (EVENTS, "toDate", "1" * 16, f'toDate: invalid timestamp "{"1" * 16}", use milliseconds of Unix time'),
        (EVENTS, "count", "", "count: the value is empty"),
        (EVENTS, "count", "0", 'count: invalid number "0", use an integer from 1 on'),
        (EVENTS, "count", "-1", 'count: invalid number "-1", use an integer from 1 on'),
        (EVENTS, "count", "1.0", 'count: invalid number "1.0", use an integer from 1 on'),
        (EVENTS, "count", "\xb2", 'count: invalid number "\xb2", use an integer from 1 on'),
        (EVENTS, "count", "9" * 5000, f'count: invalid number "{"9" * 100}", use an integer from 1 on'),
        (EVENTS, "order", "newest", 'order: invalid value "newest", use earliestFirst or latestFirst'),
        (EVENTS, "trimBody", "x", 'trimBody: invalid number "x", use an integer'),
        (DEAD_LETTERS, "responseStatus", "4xx", 'responseStatus: invalid number "4xx", use an integer'),
        (DEAD_LETTERS, "responseStatus", "", "responseStatus: the value is empty"),
        (EVENTS, "cursor", "", "cursor: the value is empty"),
    ],
)
def test_malformed_values_are_refused(rules: FilterRules, name: str, text: str, error: str) -> None:
    for parsed in (lambda: parse((name, text), rules=rules), lambda: parse(rules=rules, body={name: text})):
        with pytest.raises(InvalidRequest) as caught:
            parsed()
        assert str(caught.value) == error


def test_unknown_states_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r'^state: invalid state "DONE", use one of CREATED, ACTIVE, '):
        parse(("state", "FAILED,DONE"))


@pytest.mark.parametrize("name", ["count", "cursor", "order", "fromDate"])
def test_a_single_value_cannot_be_two(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse((name, "1"), (name, "2"))
    assert str(caught.value) == f"{name}: given twice with different values"


def test_ids_leave_other_filters_aside() -> None:
    parsed = parse(("messageIds", f"{OTHER_TEXT},{TEXT}"), ("messageIds", TEXT), ("label", "a"), ("messageId", TEXT))
    assert parsed.message_ids == (OTHER_ID, ID)
    assert parsed.selection == Filter(message_ids=frozenset({ID, OTHER_ID}))
    parsed = parse(("dlqIds", "2-0,1-0"), ("dlqIds", "1-0"), ("label", "a"), rules=DEAD_LETTERS)
    assert parsed.dlq_ids == ("2-0", "1-0")
    assert parsed.selection == NOTHING


def test_ids_that_are_none_select_nothing() -> None:
    parsed = parse(("messageIds", "x"), rules=CANCEL)
    assert parsed.message_ids == ()
    assert parsed.selection == NOTHING


@pytest.mark.parametrize("none", [[], None])
@pytest.mark.parametrize(
    ("rules", "name"), [(CANCEL, "messageIds"), (DEAD_LETTERS_BULK, "dlqIds"), (DEAD_LETTERS, "dlqIds")]
)
def test_an_empty_list_of_ids_means_nothing(rules: FilterRules, name: str, none: object) -> None:
    for body in ({name: none}, {name: none, "label": "a"}):
        parsed = parse(rules=rules, body=body)
        assert (parsed.message_ids if name == "messageIds" else parsed.dlq_ids) == ()
        assert parsed.selection == NOTHING


def test_another_products_dead_letters_are_not_here() -> None:
    assert parse(("source", "workflow"), rules=DEAD_LETTERS).selection == NOTHING
    assert parse(("source", "qstash"), rules=DEAD_LETTERS).selection == Filter()


def test_bodies_hold_the_same_names() -> None:
    body: dict[str, object] = {
        "label": ["a", "b,c"],
        "host": "e.com",
        "fromDate": 5,
        "toDate": "6",
        "count": 7,
        "api": None,
        "callerIP": ["x"],
    }
    assert parse(rules=CANCEL, body=body) == ParsedFilter(
        selection=Filter(
            labels=frozenset({"a", "b", "c"}),
            hosts=frozenset({"e.com"}),
            caller_ips=frozenset({"x"}),
            from_ms=5,
            to_ms=6,
        ),
        count=7,
        newest_first=False,
    )
    assert parse(rules=CANCEL, body={"messageIds": [TEXT]}).message_ids == (ID,)
    assert parse(rules=DEAD_LETTERS_BULK, body={"responseStatus": [404, 500]}).selection == Filter(
        response_statuses=frozenset({404, 500})
    )


def test_a_name_in_the_query_wins_over_the_body() -> None:
    parsed = parse(("label", "a"), rules=CANCEL, body={"label": "b", "host": "x"})
    assert parsed.selection == Filter(labels=frozenset({"a"}), hosts=frozenset({"x"}))


@pytest.mark.parametrize("value", [True, 1.5, {}, [{}], [[]], [None], {"a": 1}, [False]])
@pytest.mark.parametrize("name", ["label", "count", "messageIds"])
def test_bodies_hold_strings_and_integers_only(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(rules=CANCEL, body={name: value})
    assert str(caught.value) == f"{name}: give a string, an integer or a list of these"


def test_an_empty_or_missing_filter_in_a_body_is_no_filter_left_out() -> None:
    with pytest.raises(InvalidRequest, match=r"^label: the list is empty$"):
        parse(rules=CANCEL, body={"label": []})
    with pytest.raises(InvalidRequest, match=r"^label: give a string, an integer or a list of these$"):
        parse(rules=CANCEL, body={"label": None})


_CONDITIONS = sorted(WHERE.keys() - {"cursor", "count", "order", "api", "trimBody", "source"} - {"qstash_token"})
_names = st.sampled_from([*_CONDITIONS, "count", "labels", "Label"])
_texts = st.one_of(
    st.sampled_from([TEXT, "1-0", "404", "1700000000000", "FAILED", "a,b", "", ",", "https://a,https://b", "/a,/b"]),
    st.text(max_size=6),
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=1),
    max_leaves=4,
)


@given(
    st.sampled_from(sorted(RULES)),
    st.lists(st.tuples(_names, _texts), max_size=4),
    st.dictionaries(_names, _json, max_size=3),
)
def test_a_condition_that_is_accepted_is_never_lost(
    endpoint: str, query: list[tuple[str, str]], body: dict[str, object]
) -> None:
    try:
        parsed = parse_filter(query, RULES[endpoint], body)
    except InvalidRequest as error:
        refusal, parsed = str(error), None
    else:
        refusal = ""
    assert refusal.isprintable()
    if parsed is not None:
        has_condition = any(name in _CONDITIONS and name != "Upstash-Retries" for name, _ in query) or bool(
            body.keys() & set(_CONDITIONS)
        )
        assert parsed.selection.selects_everything == (not has_condition)


@given(st.lists(st.from_regex(r"https?://[a-z,]{1,5}(/[a-z,]{0,3})?", fullmatch=True), min_size=1, max_size=4))
def test_urls_may_hold_commas(urls: list[str]) -> None:
    assert parse(("url", ",".join(urls))).selection == parse(*[("url", url) for url in urls]).selection
