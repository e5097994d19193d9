"""Flow control as publishers ask for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstash_clone.domain.flow_control import MAX_FLOW_LIMIT, check_flow_control_key, parse_flow_control
from qstash_clone.domain.message import FlowControl
from qstash_clone.errors import InvalidRequest

HEADER = "Upstash-Flow-Control"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("parallelism=3", FlowControl(key="k", parallelism=3)),
        ("rate=4", FlowControl(key="k", rate=4)),
        ("parallelism=3, rate=4, period=2", FlowControl(key="k", parallelism=3, rate=4, period_s=2)),
        ("period=1h30m3s,rate=1", FlowControl(key="k", rate=1, period_s=5403)),
        (" rate = 1 ,\tperiod= 7d ", FlowControl(key="k", rate=1, period_s=604_800)),
        ("parallelism=1,period=1d", FlowControl(key="k", parallelism=1, period_s=86_400)),
        (f"rate={MAX_FLOW_LIMIT}", FlowControl(key="k", rate=MAX_FLOW_LIMIT)),
        ("rate=007", FlowControl(key="k", rate=7)),
    ],
)
def test_limits_in_any_order(value: str, expected: FlowControl) -> None:
    assert parse_flow_control(HEADER, "k", value) == expected


def test_nothing_given_is_no_flow_control() -> None:
    assert parse_flow_control(HEADER, None, None) is None


USAGE = "use parallelism=<number>, rate=<number> and period=<duration>, separated by commas"
NUMBER = f"use an integer from 1 to {MAX_FLOW_LIMIT}"
PERIOD = "use a duration from 1s to 7d"


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("", f'"" is not a limit, {USAGE}'),
        ("3", f'"3" is not a limit, {USAGE}'),
        ("parallelism=3,", f'"" is not a limit, {USAGE}'),
        ("parallelism=3, burst=1", f'"burst=1" is not a limit, {USAGE}'),
        ("Rate=3", f'"Rate=3" is not a limit, {USAGE}'),
        ("rate=1,rate=1", "rate is given twice"),
        ("period=10s", f'"period=10s" has neither parallelism nor rate, {USAGE}'),
        ("parallelism=0", f'invalid parallelism "0", {NUMBER}'),
        ("parallelism=", f'invalid parallelism "", {NUMBER}'),
        ("rate=-1", f'invalid rate "-1", {NUMBER}'),
        ("rate=1.5", f'invalid rate "1.5", {NUMBER}'),
        ("rate=\xb2", f'invalid rate "\xb2", {NUMBER}'),
        (f"rate={MAX_FLOW_LIMIT + 1}", f'invalid rate "{MAX_FLOW_LIMIT + 1}", {NUMBER}'),
        ("rate=" + "9" * 300, f'invalid rate "{"9" * 100}", {NUMBER}'),
        ("rate=1,period=0", f'invalid period "0", {PERIOD}'),
        ("rate=1,period=7d1s", f'invalid period "7d1s", {PERIOD}'),
        ("rate=1,period=soon", f'invalid period "soon", {PERIOD}'),
        ("rate=1,period=", f'invalid period "", {PERIOD}'),
    ],
)
def test_malformed_limits_are_refused(value: str, error: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_flow_control(HEADER, "k", value)
    assert str(caught.value) == f"{HEADER}-Value: {error}"


def test_neither_header_goes_without_the_other() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_flow_control(HEADER, "k", None)
    assert str(caught.value) == f"{HEADER}-Key: it needs limits, give {HEADER}-Value too"
    with pytest.raises(InvalidRequest) as caught:
        parse_flow_control(HEADER, None, "rate=1")
    assert str(caught.value) == f"{HEADER}-Value: it needs a key, give {HEADER}-Key too"


@pytest.mark.parametrize("key", ["k", "tenant-7:eu", "!~", "a" * 256])
def test_keys_are_visible_ascii(key: str) -> None:
    assert check_flow_control_key("key", key) == key


@pytest.mark.parametrize("key", ["", "a b", "a/b", "a?", "#a", "a%20", "a,b", "\xe9", "a\n", "a" * 257])
def test_other_keys_are_refused(key: str) -> None:
    shown = key.replace("\n", "\ufffd")[:100]
    with pytest.raises(InvalidRequest) as caught:
        parse_flow_control(HEADER, key, "rate=1")
    assert str(caught.value) == (
        f'{HEADER}-Key: invalid key "{shown}", use 1 to 256 visible ASCII characters without / ? # % and ,'
    )


@given(st.text(alphabet="parlesmtiod=, 0123456789smhd", max_size=40))
def test_any_text_gives_limits_or_an_error(value: str) -> None:
    try:
        control = parse_flow_control(HEADER, "k", value)
    except InvalidRequest as error:
        control, refusal = None, str(error)
    else:
        refusal = ""
    assert refusal.isprintable()
    assert (control is None) == bool(refusal)
    assert control is None or control.parallelism or control.rate
