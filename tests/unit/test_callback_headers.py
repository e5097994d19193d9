import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.headers import PublishOptions, parse_options
from qstash_clone.domain.limits import Limits
from qstash_clone.domain.message import CallbackSpec, FlowControl
from qstash_clone.errors import CallerError, InvalidRequest, QuotaExceeded

LIMITS = Limits(
    default_retries=3, max_retries=100, default_timeout_ms=60_000, max_timeout_ms=7_200_000, max_delay_ms=86_400_000
)
URL = "https://cb.example/x?y=1"
KINDS = ("Upstash-Callback", "Upstash-Failure-Callback")

Lines = list[tuple[str, str]]


def parse(*lines: tuple[str, str], query: Lines | None = None) -> PublishOptions:
    def encode(given: Lines) -> list[tuple[bytes, bytes]]:
        return [(name.lower().encode(), value.encode("latin-1")) for name, value in given]

    return parse_options(encode(list(lines)), encode(query or []), LIMITS)


def spec_of(kind: str, options: PublishOptions) -> CallbackSpec | None:
    return options.callback if kind == "Upstash-Callback" else options.failure_callback


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_url(kind: str) -> None:
    options = parse((kind, f" {URL} "))
    assert spec_of(kind, options) == CallbackSpec(url=URL, timeout_ms=60_000)
    assert [options.callback, options.failure_callback].count(None) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["header", "query"])
def test_all_settings(kind: str, place: str) -> None:
    lines = [
        (kind, URL),
        (f"{kind}-Method", "put"),
        (f"{kind}-Retries", "0"),
        (f"{kind}-Retry-Delay", "1000 * retried"),
        (f"{kind}-Timeout", "10s"),
        (f"{kind}-Delay", "1h"),
        (f"{kind}-Label", "a, b"),
        (f"{kind}-Label", "c"),
        (f"{kind}-Forward-X-API-key", "one, two"),
        (f"{kind}-Forward-x-api-KEY", "three"),
        (f"{kind}-Forward-Content-Type", "text/plain"),
    ]
    options = parse(*lines) if place == "header" else parse(query=lines)
    assert spec_of(kind, options) == CallbackSpec(
        url=URL,
        method="PUT",
        headers=(("X-Api-Key", "one, two"), ("X-Api-Key", "three"), ("Content-Type", "text/plain")),
        max_retries=0,
        timeout_ms=10_000,
        retry_delay_expression="1000 * retried",
        delay_ms=3_600_000,
        labels=("a", "b", "c"),
    )
    assert options.headers == ()
    assert options.labels == ()


def test_both_kinds_are_told_apart() -> None:
    options = parse(
        ("Upstash-Failure-Callback-Retries", "1"),
        ("Upstash-Callback-Retries", "2"),
        ("Upstash-Retries", "3"),
        ("Upstash-Failure-Callback", "https://f.example"),
        ("Upstash-Callback", "https://c.example"),
        ("Upstash-Callback-Forward-X", "c"),
        ("Upstash-Failure-Callback-Forward-X", "f"),
        ("Upstash-Forward-X", "m"),
    )
    callback, failure_callback = options.callback, options.failure_callback
    assert callback is not None
    assert failure_callback is not None
    assert (failure_callback.max_retries, callback.max_retries, options.max_retries) == (1, 2, 3)
    assert (failure_callback.headers, callback.headers, options.headers) == (
        (("X", "f"),),
        (("X", "c"),),
        (("X", "m"),),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("suffix", "value"),
    [
        ("Retries", "x"),
        ("Flow-Control-Key", "k"),
        ("Forward-X", "1\x00"),
        ("Forward-x y", "1"),
        ("Delay", "1000d"),
    ],
)
def test_settings_without_a_url_have_no_effect(kind: str, suffix: str, value: str) -> None:
    assert parse((f"{kind}-{suffix}", value)) == parse()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "suffix", ["", "Forward", "Forward-", "Forward-Host", "Not-Before", "Queue", "Redact-Fields", "Callback", "Retri"]
)
def test_other_suffixes_are_ignored(kind: str, suffix: str) -> None:
    assert parse((kind, URL), (f"{kind}-{suffix}", "x")) == parse((kind, URL))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("cb.example", "endpoint has invalid scheme, add http:// or https://"),
        ("my-group", "endpoint has invalid scheme, add http:// or https://"),
        ("ftp://cb.example", "endpoint has invalid scheme, add http:// or https://"),
        ("https://", "the host is empty"),
        ("https://u:p@cb.example", "a user before the host is not supported, forward an Authorization header"),
        ("https://cb.example/a b", 'the character " " must be percent-encoded'),
    ],
)
def test_urls_are_those_of_destinations(url: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(("Upstash-Callback", url))
    assert str(caught.value) == f"invalid callback url: {problem}"
    with pytest.raises(InvalidRequest) as caught:
        parse(("Upstash-Failure-Callback", url))
    assert str(caught.value) == f"invalid failure callback url: {problem}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("suffix", "value", "error"),
    [
        ("Method", "HEAD", 'invalid method "HEAD", use GET, POST, PUT, PATCH or DELETE'),
        ("Retries", "-1", 'invalid number "-1", use an integer from 0 on'),
        ("Retry-Delay", "retries", 'invalid expression "retries": unknown name "retries"'),
        ("Timeout", "0s", '"0s" is less than 1s'),
        ("Delay", "5x", 'invalid duration "5x"'),
        ("Label", "a" * 257, f'"{"a" * 100}" has more than 256 characters'),
        ("Forward-X", "hush\n", "the value contains a control character"),
        ("Method", "G\x00", "the value contains a control character"),
    ],
)
def test_malformed_settings_are_refused(kind: str, suffix: str, value: str, error: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(query=[(kind, URL), (f"{kind}-{suffix}", value)])
    assert str(caught.value) == f"{kind}-{suffix}: {error}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_none_is_refused(kind: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(query=[(kind, URL), (f"{kind}-Forward-x y", "1")])
    assert str(caught.value) == f'{kind}-Forward-*: "x y" is not a header name'


@pytest.mark.parametrize("kind", KINDS)
def test_flow_control_takes_both_of_its_headers(kind: str) -> None:
    key, value = (f"{kind}-Flow-Control-Key", "k"), (f"{kind}-Flow-Control-Value", "rate=2, period=1m")
    spec = spec_of(kind, parse((kind, URL), key, value))
    assert spec is not None
    assert spec.flow_control == FlowControl(key="k", rate=2, period_s=60)
    assert parse((kind, URL), key, value).flow_control is None
    with pytest.raises(InvalidRequest) as caught:
        parse((kind, URL), key)
    assert str(caught.value) == f"{kind}-Flow-Control-Key: it needs limits, give {kind}-Flow-Control-Value too"
    with pytest.raises(InvalidRequest) as caught:
        parse((kind, URL), value)
    assert str(caught.value) == f"{kind}-Flow-Control-Value: it needs a key, give {kind}-Flow-Control-Key too"
    with pytest.raises(InvalidRequest) as caught:
        parse((kind, URL), key, (f"{kind}-Flow-Control-Value", "rate=x"))
    assert str(caught.value).startswith(f'{kind}-Flow-Control-Value: invalid rate "x"')


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("suffix", "value", "maximum"), [("Retries", "101", "100"), ("Timeout", "3h", "7200s"), ("Delay", "25h", "86400s")]
)
def test_values_over_their_maximum_exceed_a_quota(kind: str, suffix: str, value: str, maximum: str) -> None:
    with pytest.raises(QuotaExceeded) as caught:
        parse((kind, URL), (f"{kind}-{suffix}", value))
    assert str(caught.value) == f'{kind}-{suffix}: "{value}" is over the maximum of {maximum}'


@pytest.mark.parametrize("kind", KINDS)
def test_maxima_themselves_are_allowed(kind: str) -> None:
    spec = spec_of(
        kind, parse((kind, URL), (f"{kind}-Retries", "100"), (f"{kind}-Timeout", "2h"), (f"{kind}-Delay", "1d"))
    )
    assert spec is not None
    assert (spec.max_retries, spec.timeout_ms, spec.delay_ms) == (100, 7_200_000, 86_400_000)


def test_form_is_checked_before_quotas() -> None:
    with pytest.raises(InvalidRequest):
        parse(("Upstash-Retries", "101"), ("Upstash-Callback", URL), ("Upstash-Callback-Method", "FETCH"))
    with pytest.raises(InvalidRequest):
        parse(
            ("Upstash-Callback", URL),
            ("Upstash-Callback-Retries", "101"),
            ("Upstash-Failure-Callback", URL),
            ("Upstash-Failure-Callback-Method", "FETCH"),
        )


def test_header_wins_over_query_parameter() -> None:
    options = parse(
        ("Upstash-Callback", URL),
        ("Upstash-Callback-Retries", "1"),
        ("Upstash-Callback-Retries", "nonsense"),
        ("Upstash-Callback-Forward-X", "header"),
        query=[
            ("upstash-callback", "https://other.example"),
            ("upstash-callback-retries", "nonsense"),
            ("upstash-callback-forward-x", "query"),
            ("upstash-callback-forward-y", "query"),
            ("upstash-callback-delay", "1s"),
        ],
    )
    assert options.callback == CallbackSpec(
        url=URL, max_retries=1, timeout_ms=60_000, delay_ms=1000, headers=(("X", "header"), ("Y", "query"))
    )


def test_labels_may_be_declined() -> None:
    options = parse(("Upstash-Callback", URL), ("Upstash-Callback-Label", " "))
    assert options.callback is not None
    assert options.callback.labels == ()


_suffixes = st.sampled_from(
    [
        "",
        "-method",
        "-retries",
        "-retry-delay",
        "-timeout",
        "-delay",
        "-label",
        "-forward-x",
        "-forward-host",
        "-forward-",
        "-flow-control-key",
        "-flow-control-value",
        "-other",
        "-forward-\xff",
    ]
)
_values = st.one_of(
    st.sampled_from([b"1", b"rate=1", b"10s", b"GET", b"a,b", b"retried", b"https://e.com"]), st.binary(max_size=12)
)
_lines = st.lists(
    st.tuples(
        st.tuples(st.sampled_from(["upstash-callback", "upstash-failure-callback"]), _suffixes).map(
            lambda parts: "".join(parts).encode("latin-1")
        ),
        _values,
    ),
    max_size=8,
)


@given(_lines, _lines)
def test_any_lines_give_a_specification_that_survives_storing_or_an_error(
    headers: list[tuple[bytes, bytes]], query: list[tuple[bytes, bytes]]
) -> None:
    try:
        options = parse_options(headers, query, LIMITS)
    except CallerError as error:
        refusal, specs = str(error), list[CallbackSpec]()
    else:
        refusal, specs = "", [spec for spec in (options.callback, options.failure_callback) if spec is not None]
    assert refusal.isprintable()
    for spec in specs:
        assert spec.url.isascii()
        assert spec.max_retries is None or 0 <= spec.max_retries <= LIMITS.max_retries
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=CallbackSpec) == spec
