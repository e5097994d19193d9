import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.cron import parse_cron
from qstash_clone.domain.deduplication import DeduplicationRequest
from qstash_clone.domain.header_values import MAX_LABEL_CHARACTERS, MAX_LABELS
from qstash_clone.domain.headers import PublishOptions, parse_options
from qstash_clone.domain.limits import Limits
from qstash_clone.domain.message import CallbackSpec, FlowControl, Redaction
from qstash_clone.errors import CallerError, InvalidRequest, QuotaExceeded

LIMITS = Limits(
    default_retries=3,
    max_retries=100,
    default_timeout_ms=900_000,
    max_timeout_ms=7_200_000,
    max_delay_ms=31_536_000_000,
)
OF_CURL = {"host": "127.0.0.1:8080", "user-agent": "curl/8.5.0", "accept": "*/*", "authorization": "Bearer T"}

Lines = list[tuple[str, str]]


def encode(lines: Lines) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in lines]


def parse(
    *lines: tuple[str, str], query: Lines | None = None, authorization_is_payload: bool = False
) -> PublishOptions:
    headers = encode([*OF_CURL.items(), *lines])
    return parse_options(headers, encode(query or []), LIMITS, authorization_is_payload=authorization_is_payload)


def test_defaults() -> None:
    assert parse() == PublishOptions(
        method="POST",
        headers=(),
        max_retries=3,
        timeout_ms=900_000,
        retry_delay_expression=None,
        delay_ms=0,
        not_before_ms=None,
        labels=(),
    )


def test_all_settings_together() -> None:
    assert parse(
        ("Content-Type", "application/json"),
        ("Upstash-Method", "put"),
        ("Upstash-Retries", "5"),
        ("Upstash-Retry-Delay", "pow(retried, 2) * 1000"),
        ("Upstash-Timeout", "90"),
        ("Upstash-Delay", "1h30m"),
        ("Upstash-Not-Before", "1700000000"),
        ("Upstash-Label", "billing, nightly"),
        ("Upstash-Forward-X-API-key", "secret"),
    ) == PublishOptions(
        method="PUT",
        headers=(("Content-Type", "application/json"), ("X-Api-Key", "secret")),
        max_retries=5,
        timeout_ms=90_000,
        has_timeout=True,
        retry_delay_expression="pow(retried, 2) * 1000",
        delay_ms=5_400_000,
        not_before_ms=1_700_000_000_000,
        labels=("billing", "nightly"),
    )


@pytest.mark.parametrize("empty", ["", " ", "\t"])
def test_some_headers_without_a_value_count_as_absent(empty: str) -> None:
    names = ("Upstash-Method", "Upstash-Callback", "Upstash-Failure-Callback")
    lines = [(name, empty) for name in names]
    assert parse(*lines) == parse()
    given = [("upstash-method", "PUT"), ("upstash-callback", "https://e.com/c")]
    assert parse(*lines, query=given) == parse(query=given)
    assert parse(*lines, ("Upstash-Method", "GET")).method == "GET"


def test_an_empty_content_type_is_none() -> None:
    group = [(b"content-type", b"text/plain")]
    for name in (b"content-type", b"upstash-forward-x"):
        headers = parse_options([(name, b"")], [], LIMITS, group_headers=group).headers
        assert headers[0] == ("Content-Type", "text/plain")
    assert parse_options([(b"content-type", b"")], [], LIMITS).headers == ()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "get", "Patch"])
def test_methods_in_any_case(method: str) -> None:
    assert parse(("Upstash-Method", method)).method == method.upper()


@pytest.mark.parametrize(
    ("header", "value", "error"),
    [
        ("Upstash-Method", "HEAD", 'invalid method "HEAD", use GET, POST, PUT, PATCH or DELETE'),
        ("Upstash-Method", "GET POST", 'invalid method "GET POST", use GET, POST, PUT, PATCH or DELETE'),
        ("Upstash-Delay", "5x", 'invalid duration "5x"'),
        ("Upstash-Delay", "", 'invalid duration ""'),
        ("Upstash-Delay", "-5s", 'invalid duration "-5s"'),
        ("Upstash-Delay", "1.5s", 'invalid duration "1.5s"'),
        ("Upstash-Delay", "9" * 300, f'invalid duration "{"9" * 100}"'),
        ("Upstash-Timeout", "soon", 'invalid duration "soon"'),
        ("Upstash-Timeout", "0s", '"0s" is less than 1s'),
        ("Upstash-Timeout", "0", '"0" is less than 1s'),
        ("Upstash-Not-Before", "tomorrow", 'invalid timestamp "tomorrow", use whole seconds of Unix time'),
        ("Upstash-Not-Before", "1.5", 'invalid timestamp "1.5", use whole seconds of Unix time'),
        ("Upstash-Not-Before", "", 'invalid timestamp "", use whole seconds of Unix time'),
        ("Upstash-Retries", "-1", 'invalid number "-1", use an integer from 0 on'),
        ("Upstash-Retries", "three", 'invalid number "three", use an integer from 0 on'),
        ("Upstash-Retries", "3.0", 'invalid number "3.0", use an integer from 0 on'),
        ("Upstash-Retries", "+3", 'invalid number "+3", use an integer from 0 on'),
        ("Upstash-Retries", "1_0", 'invalid number "1_0", use an integer from 0 on'),
        ("Upstash-Retries", "", 'invalid number "", use an integer from 0 on'),
        ("Upstash-Retries", "\xb2", 'invalid number "\xb2", use an integer from 0 on'),
        ("Upstash-Retry-Delay", "retries", 'invalid expression "retries": unknown name "retries"'),
        ("Upstash-Retry-Delay", "", 'invalid expression "": it ends too early'),
        ("Upstash-Header-Forward", "yes", 'invalid boolean "yes", use true or false'),
        ("Upstash-Header-Forward", "", 'invalid boolean "", use true or false'),
        ("Upstash-Content-Based-Deduplication", "x", 'invalid boolean "x", use true or false'),
        ("Upstash-Deduplication-Id", "a:b", '"a:b" contains a colon or a blank'),
        ("Upstash-Deduplication-Id", "a b", '"a b" contains a colon or a blank'),
        ("Upstash-Deduplication-Id", "", "the id is empty"),
        ("Upstash-Deduplication-Window", "10 m", 'invalid duration "10 m"'),
        ("Upstash-Deduplication-Window", "0s", '"0s" is less than 1s'),
        ("Upstash-Redact-Fields", "body,url", 'invalid field "url", use body, header or header[Name]'),
        ("Upstash-Label", "ok," + "a" * 257, f'"{"a" * 100}" has more than {MAX_LABEL_CHARACTERS} characters'),
        ("Upstash-Label", "a\tb", '"a\ufffdb" contains a control character'),
        ("Upstash-Label", "a\xc2\x85b", '"a\ufffdb" contains a control character'),
        (
            "Upstash-Label",
            ",".join(map(str, range(MAX_LABELS + 1))),
            f"{MAX_LABELS + 1} labels are more than the {MAX_LABELS} that a message may have",
        ),
    ],
)
def test_malformed_settings_are_refused(header: str, value: str, error: str) -> None:
    for options in (lambda: parse((header, value)), lambda: parse(query=[(header, value)])):
        with pytest.raises(InvalidRequest) as caught:
            options()
        assert str(caught.value) == f"{header}: {error}"


@pytest.mark.parametrize(
    ("header", "value", "error"),
    [
        ("Upstash-Retries", "101", '"101" is over the maximum of 100'),
        ("Upstash-Retries", "9" * 100, f'"{"9" * 100}" is over the maximum of 100'),
        ("Upstash-Timeout", "2h1s", '"2h1s" is over the maximum of 7200s'),
        ("Upstash-Delay", "366d", '"366d" is over the maximum of 31536000s'),
        ("Upstash-Deduplication-Window", "366d", '"366d" is over the maximum of 31536000s'),
        ("Upstash-Delay", "9" * 200, f'"{"9" * 100}" is over the maximum of 31536000s'),
    ],
)
def test_values_over_their_maximum_exceed_a_quota(header: str, value: str, error: str) -> None:
    with pytest.raises(QuotaExceeded) as caught:
        parse((header, value))
    assert str(caught.value) == f"{header}: {error}"


def test_maxima_themselves_are_allowed() -> None:
    options = parse(("Upstash-Retries", "100"), ("Upstash-Timeout", "2h"), ("Upstash-Delay", "365d"))
    assert (options.max_retries, options.timeout_ms, options.delay_ms) == (100, 7_200_000, 31_536_000_000)


def test_least_values() -> None:
    options = parse(("Upstash-Retries", "0"), ("Upstash-Timeout", "1"), ("Upstash-Not-Before", "-5"))
    assert (options.max_retries, options.timeout_ms, options.not_before_ms) == (0, 1000, 0)


def test_a_delay_that_does_not_count_is_not_held_against_the_maximum() -> None:
    assert parse(("Upstash-Delay", "366d"), ("Upstash-Not-Before", "1")).not_before_ms == 1000


def test_syntax_is_checked_before_quotas() -> None:
    with pytest.raises(InvalidRequest):
        parse(("Upstash-Retries", "101"), ("Upstash-Method", "FETCH"))


@pytest.mark.parametrize("place", ["header", "query"])
def test_a_schedule(place: str) -> None:
    lines = [
        ("Upstash-Cron", " */5 * * * * "),
        ("Upstash-Schedule-Id", "nightly"),
        ("Upstash-Queue-Name", "jobs"),
        ("Upstash-Schedule-Paused", "True"),
    ]
    options = parse(*lines) if place == "header" else parse(query=lines)
    assert options.cron == parse_cron("", "*/5 * * * *")
    assert (options.schedule_id, options.queue, options.is_paused) == ("nightly", "jobs", True)
    options = parse(lines[0])
    assert (options.schedule_id, options.queue, options.is_paused) == (None, None, False)
    assert parse(lines[3]) == parse(), "a message is not a schedule"


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("Upstash-Cron", 'invalid cron expression "a/b"'),
        ("Upstash-Schedule-Id", 'invalid name "a/b"'),
        ("Upstash-Queue-Name", 'invalid name "a/b"'),
        ("Upstash-Schedule-Paused", 'invalid boolean "a/b"'),
    ],
)
def test_a_malformed_schedule_is_refused(header: str, error: str) -> None:
    given = {"Upstash-Cron": "* * * * *", header: "a/b"}
    with pytest.raises(InvalidRequest) as caught:
        parse(*given.items())
    assert str(caught.value).startswith(f"{header}: {error}")


@pytest.mark.parametrize("place", ["header", "query"])
def test_flow_control(place: str) -> None:
    lines = [("Upstash-Flow-Control-Key", "k"), ("Upstash-Flow-Control-Value", "parallelism=3, rate=4, period=2")]
    options = parse(*lines) if place == "header" else parse(query=lines)
    assert options.flow_control == FlowControl(key="k", parallelism=3, rate=4, period_s=2)
    assert options.callback is None


def test_neither_flow_control_header_goes_without_the_other() -> None:
    for header in ("Upstash-Flow-Control-Key", "Upstash-Flow-Control-Value"):
        with pytest.raises(InvalidRequest, match=f"^{header}: it needs "):
            parse((header, "rate=1"))


def test_a_url_group_has_the_last_word_before_the_service() -> None:
    group = encode(
        [
            ("Content-Type", "application/json"),
            ("Upstash-Retries", "7"),
            ("Upstash-Delay", "nonsense"),
            ("Upstash-Method", "PUT"),
            ("Upstash-Forward-X", "group"),
            ("Upstash-Forward-Y", "group"),
            ("Upstash-Forward-Z", "group"),
            ("Upstash-Callback", "https://c.example"),
            ("Upstash-Callback-Retries", "7"),
            ("Upstash-Callback-Delay", "7"),
        ]
    )
    headers = encode([("Upstash-Delay", "1s"), ("Upstash-Forward-X", "header"), ("Upstash-Callback-Retries", "1")])
    query = encode([("Upstash-Method", "PATCH"), ("Upstash-Forward-Y", "query")])
    options = parse_options(headers, query, LIMITS, group_headers=group)
    assert options == PublishOptions(
        method="PATCH",
        headers=(("Content-Type", "application/json"), ("X", "header"), ("Y", "query"), ("Z", "group")),
        max_retries=7,
        timeout_ms=900_000,
        retry_delay_expression=None,
        delay_ms=1000,
        not_before_ms=None,
        labels=(),
        callback=CallbackSpec(url="https://c.example", max_retries=1, delay_ms=7000, timeout_ms=900_000),
    )


def test_a_url_group_may_ask_for_the_incoming_headers() -> None:
    headers = encode([("X-GitHub-Event", "push"), ("Content-Type", "text/plain")])
    options = parse_options(headers, (), LIMITS, group_headers=encode([("Upstash-Header-Forward", "true")]))
    assert options.headers == (("Content-Type", "text/plain"), ("X-Github-Event", "push"))


def test_what_a_url_group_adds_is_no_content() -> None:
    headers = encode([("Upstash-Content-Based-Deduplication", "true"), ("Upstash-Retries", "1")])
    group = encode([("Upstash-Label", "a")])
    assert parse_options(headers, (), LIMITS, group_headers=group).deduplication == (
        parse_options(headers, (), LIMITS).deduplication
    )


@pytest.mark.parametrize("flag", ["false", "False", "0"])
def test_content_based_deduplication_may_be_declined(flag: str) -> None:
    assert parse(("Upstash-Content-Based-Deduplication", flag)) == parse()


def test_deduplication_by_id() -> None:
    for options in (
        parse(("Upstash-Deduplication-Id", " order-7 ")),
        parse(("Upstash-Deduplication-Id", "order-7"), ("Upstash-Content-Based-Deduplication", "True")),
        parse(query=[("Upstash-Deduplication-Id", "order-7"), ("Upstash-Content-Based-Deduplication", "1")]),
    ):
        assert options.deduplication == DeduplicationRequest(window_ms=90 * 86_400_000, id="order-7")


@pytest.mark.parametrize("flag", ["true", "True", "TRUE", "1"])
def test_deduplication_by_content(flag: str) -> None:
    given = [
        ("Content-Type", "text/plain"),
        ("Upstash-Content-Based-Deduplication", flag),
        ("Upstash-Telemetry-Sdk", "x"),
        ("Upstash-Retries", "1"),
        ("Upstash-Forward-X", "1"),
        ("Upstash-Unknown", "1"),
    ]
    assert parse(*given, query=[("upstash-retries", "2"), ("upstash-delay", "1s")]).deduplication == (
        DeduplicationRequest(
            window_ms=90 * 86_400_000,
            content_headers=(
                (b"upstash-delay", b"1s"),
                (b"upstash-forward-x", b"1"),
                (b"upstash-retries", b"1"),
                (b"upstash-unknown", b"1"),
            ),
        )
    )
    limits = msgspec.structs.replace(LIMITS, content_hash_scope="forwarded", deduplication_window_ms=600_000)
    assert parse_options(encode(given), (), limits).deduplication == DeduplicationRequest(
        window_ms=600_000,
        scope="forwarded",
        content_headers=((b"content-type", b"text/plain"), (b"upstash-forward-x", b"1")),
    )


@pytest.mark.parametrize(("window", "window_ms"), [("1", 1000), ("1h", 3_600_000), ("365d", 31_536_000_000)])
def test_deduplication_window(window: str, window_ms: int) -> None:
    options = parse(("Upstash-Deduplication-Id", "a"), ("Upstash-Deduplication-Window", window))
    assert options.deduplication == DeduplicationRequest(window_ms=window_ms, id="a")


def test_a_deduplication_window_alone_deduplicates_nothing() -> None:
    assert parse(("Upstash-Deduplication-Window", "1h")) == parse()


def test_deduplication_ids_may_be_relaxed() -> None:
    headers = encode([("Upstash-Deduplication-Id", "a:b c")])
    with pytest.raises(InvalidRequest):
        parse_options(headers, (), LIMITS)
    relaxed = msgspec.structs.replace(LIMITS, strict_deduplication_ids=False)
    assert parse_options(headers, (), relaxed).deduplication == DeduplicationRequest(
        window_ms=90 * 86_400_000, id="a:b c"
    )


def test_redaction() -> None:
    assert parse(
        ("Upstash-Redact-Fields", "body, header[X-API-key]"), ("Upstash-Redact-Fields", "headers[b]")
    ).redaction == Redaction(body=True, header_names=("X-Api-Key", "B"))
    assert parse(("Upstash-Redact-Fields", " ")).redaction is None


@pytest.mark.parametrize(
    "header",
    [
        "Upstash-Telemetry-Sdk",
        "Upstash-Workflow-Init",
        "Upstash-Feature-Set",
        "Upstash-Queue-Name",
        "Upstash-Schedule-Id",
        "Upstash-Callback-Retries",
        "Upstash-Failure-Callback-Forward-X",
        "Upstash-",
        "Upstash-Forward",
        "Upstash-Forward-",
    ],
)
def test_unknown_lines_and_callback_settings_without_a_callback_are_ignored(header: str) -> None:
    assert parse((header, "x"), query=[(header, "y")]) == parse()
    assert parse((header, "x"), ("Upstash-Header-Forward", "true")).headers == (("Accept", "*/*"),)


def test_first_line_of_a_setting_counts() -> None:
    assert parse(("Upstash-Retries", "1"), ("Upstash-Retries", "nonsense")).max_retries == 1


def test_lines_of_labels_add_up() -> None:
    assert parse(("Upstash-Label", "a , b,,"), ("Upstash-Label", " b,c"), ("Upstash-Label", "")).labels == (
        "a",
        "b",
        "c",
    )


@pytest.mark.parametrize(
    ("raw", "labels"),
    [
        (b"", ()),
        (b" , ,", ()),
        (b"caf\xc3\xa9", ("caf\u00e9",)),
        (b"caf\xe9", ("caf\u00e9",)),
        (b"two words", ("two words",)),
        (b"B,a,B", ("B", "a")),
        (b"a" * MAX_LABEL_CHARACTERS, ("a" * MAX_LABEL_CHARACTERS,)),
    ],
)
def test_labels(raw: bytes, labels: tuple[str, ...]) -> None:
    assert parse_options([(b"upstash-label", raw)], (), LIMITS).labels == labels


def test_header_wins_over_query_parameter() -> None:
    options = parse(
        ("Upstash-Retries", "1"),
        ("Upstash-Label", "a"),
        ("Upstash-Forward-X", "from the header"),
        query=[
            ("upstash-retries", "2"),
            ("upstash-label", "b"),
            ("upstash-forward-x", "from the query"),
            ("upstash-forward-y", "y"),
            ("upstash-delay", "10s"),
        ],
    )
    assert options.max_retries == 1
    assert options.labels == ("a",)
    assert options.headers == (("X", "from the header"), ("Y", "y"))
    assert options.delay_ms == 10_000


def test_an_overruled_query_parameter_is_not_judged() -> None:
    assert parse(("Upstash-Retries", "1"), query=[("upstash-retries", "nonsense")]).max_retries == 1


def test_content_type_is_passed_on_and_never_invented() -> None:
    assert parse(("Content-Type", "text/plain;charset=UTF-8")).headers == (
        ("Content-Type", "text/plain;charset=UTF-8"),
    )
    assert parse().headers == ()


@pytest.mark.parametrize("where", ["header", "query"])
def test_forwarded_content_type_is_the_one_of_the_message(where: str) -> None:
    forwarded = [("Upstash-Forward-X", "1"), ("Upstash-Forward-Content-Type", "b/b")]
    plain = ("Content-Type", "a/a")
    options = parse(plain, *forwarded) if where == "header" else parse(plain, query=forwarded)
    assert options.headers == (("Content-Type", "b/b"), ("X", "1"))


def test_a_message_has_one_content_type() -> None:
    assert parse(("Upstash-Forward-Content-Type", "a/a"), ("Upstash-Forward-Content-Type", "b/b")).headers == (
        ("Content-Type", "a/a"),
    )
    assert parse(("Content-Type", "a/a"), ("Content-Type", "b/b")).headers == (("Content-Type", "a/a"),)


def test_forwarded_lines_stay_as_they_are() -> None:
    assert parse(
        ("Upstash-Forward-X", "one, two"),
        ("Upstash-Forward-Y", ""),
        ("Upstash-Forward-x", "three\xe9"),
        ("Upstash-Forward-Upstash-Workflow-Init", "true"),
    ).headers == (("X", "one, two"), ("Y", ""), ("X", "three\xe9"), ("Upstash-Workflow-Init", "true"))


@pytest.mark.parametrize("name", ["Host", "Content-Length", "Connection", "Proxy-Authorization", "Upstash-Message-Id"])
def test_reserved_names_are_dropped(name: str) -> None:
    assert parse((f"Upstash-Forward-{name}", "x"), query=[(f"upstash-forward-{name}", "x")]).headers == ()


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nb", "a\rb", "a\x00b", "\x7f", "\x1b[0m"])
@pytest.mark.parametrize("name", ["Upstash-Forward-X", "Upstash-Label", "Upstash-Retries", "Upstash-Retry-Delay"])
def test_control_characters_cannot_get_in_by_the_query(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(query=[(name, value)])
    assert str(caught.value) == f"{name}: the value contains a control character"


def test_control_characters_cannot_get_in_by_a_content_type() -> None:
    with pytest.raises(InvalidRequest, match=r"^Content-Type: the value contains a control character$"):
        parse(("Content-Type", "a\nb"))


def test_a_name_that_is_none_cannot_get_in_by_the_query() -> None:
    with pytest.raises(InvalidRequest, match=r'^Upstash-Forward-\*: "x y" is not a header name$'):
        parse(query=[("upstash-forward-x y", "v")])


def test_incoming_headers_are_passed_on_when_asked_for() -> None:
    options = parse(
        ("Content-Type", "text/plain"),
        ("Content-Length", "4"),
        ("Accept-Encoding", "gzip"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Proxy-Authorization", "Basic eA=="),
        ("X-GitHub-Event", "push"),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("X-Replaced", "incoming"),
        ("Upstash-Forward-X-Replaced", "forwarded"),
        ("Upstash-Header-Forward", "True"),
        ("Upstash-Telemetry-Sdk", "x"),
    )
    assert options.headers == (
        ("Content-Type", "text/plain"),
        ("Accept", "*/*"),
        ("X-Github-Event", "push"),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("X-Replaced", "forwarded"),
    )


def test_incoming_headers_stay_where_they_are_otherwise() -> None:
    assert parse(("X-Other", "1"), ("Upstash-Header-Forward", "false")).headers == ()


def test_the_credential_is_never_passed_on() -> None:
    passing_on = ("Upstash-Header-Forward", "1")
    assert parse(passing_on).headers == (("Accept", "*/*"),)
    assert parse(passing_on, authorization_is_payload=True).headers == (
        ("Accept", "*/*"),
        ("Authorization", "Bearer T"),
    )
    assert ("Authorization", "Bearer other") in parse(
        passing_on, ("Upstash-Forward-Authorization", "Bearer other")
    ).headers


def test_errors_never_show_a_forwarded_value() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(("Upstash-Forward-Authorization", "Bearer hush\x01"))
    assert "hush" not in str(caught.value)


_names = st.sampled_from(
    [
        "upstash-method",
        "upstash-header-forward",
        "upstash-delay",
        "upstash-not-before",
        "upstash-retries",
        "upstash-retry-delay",
        "upstash-timeout",
        "upstash-label",
        "upstash-callback",
        "upstash-callback-retries",
        "upstash-failure-callback",
        "upstash-failure-callback-forward-x",
        "upstash-deduplication-id",
        "upstash-deduplication-window",
        "upstash-content-based-deduplication",
        "upstash-redact-fields",
        "upstash-forward-x",
        "upstash-forward-host",
        "content-type",
        "connection",
        "x-y",
    ]
).map(str.encode)
_values = st.one_of(
    st.binary(max_size=20), st.sampled_from([b"1", b"10s", b"true", b"GET", b"a,b", b"retried", b"body", b"http://e"])
)
_lines = st.lists(st.tuples(_names, _values), max_size=6)
_query_names = st.one_of(_names, st.binary(max_size=8).map(lambda raw: b"upstash-forward-" + raw))


@given(_lines, st.lists(st.tuples(_query_names, _values), max_size=6))
def test_any_lines_give_sendable_headers_or_an_error(
    headers: list[tuple[bytes, bytes]], query: list[tuple[bytes, bytes]]
) -> None:
    try:
        sent = parse_options(headers, query, LIMITS).headers
    except CallerError as error:
        refusal = str(error)
        sent = ()
    else:
        refusal = "none"
    assert refusal.isprintable()
    for name, value in sent:
        assert name.isascii()
        assert name.isprintable()
        assert not set(value.encode("latin-1")) & ({*range(32), 127} - {9})
        assert name != "Host"
