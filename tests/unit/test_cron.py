"""Cron expressions: what may be written, and when they fire, also where clocks are changed."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qstash_clone.domain.cron import MAX_CHARACTERS, Cron, parse_cron
from qstash_clone.domain.time_zones import LAST_MS, local_text
from qstash_clone.errors import InvalidRequest

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse(text: str) -> Cron:
    return parse_cron("Upstash-Cron", text)


def accepted(text: str) -> Cron | None:
    """None for one that is refused; anything else that is raised passes through."""
    try:
        return parse(text)
    except InvalidRequest:
        return None


def ms_of(text: str) -> int:
    """The Unix time of `2026-03-29T03:00+02:00`."""
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


def firings(cron: Cron, after: str, count: int) -> list[str]:
    """The next firings, as clocks of the zone show them."""
    shown: list[str] = []
    at_ms: int | None = ms_of(after)
    for _ in range(count):
        at_ms = cron.next_after(at_ms)
        if at_ms is None:
            break
        shown.append(local_text(cron.zone, at_ms))
    return shown


# Grammar


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * *", ["2026-01-01T00:01", "2026-01-01T00:02", "2026-01-01T00:03"]),
        ("*/20 * * * *", ["2026-01-01T00:20", "2026-01-01T00:40", "2026-01-01T01:00"]),
        ("*/59 0 * * *", ["2026-01-01T00:59", "2026-01-02T00:00", "2026-01-02T00:59"]),
        ("50/5 0 * * *", ["2026-01-01T00:50", "2026-01-01T00:55", "2026-01-02T00:50"]),
        ("1-5/3,30 0 * * *", ["2026-01-01T00:01", "2026-01-01T00:04", "2026-01-01T00:30"]),
        ("07 08 09 02 *", ["2026-02-09T08:07", "2027-02-09T08:07"]),
        ("5-5 12 * * *", ["2026-01-01T12:05", "2026-01-02T12:05"]),
        ("0 0 31 * *", ["2026-01-31T00:00", "2026-03-31T00:00", "2026-05-31T00:00"]),
        ("0 0 29 2 *", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("0 0 1 jan,JUL *", ["2026-07-01T00:00", "2027-01-01T00:00"]),
        ("0 0 1 Feb-apr *", ["2026-02-01T00:00", "2026-03-01T00:00", "2026-04-01T00:00"]),
        ("0 0 * * 0", ["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("0 0 * * 7", ["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("0 0 * * sun", ["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("0 0 * * Mon-wed", ["2026-01-05T00:00", "2026-01-06T00:00", "2026-01-07T00:00", "2026-01-12T00:00"]),
        ("0 0 * * 6-7", ["2026-01-03T00:00", "2026-01-04T00:00", "2026-01-10T00:00"]),
        ("0 0 * * 7/2", ["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("0 0 * * 4/2", ["2026-01-03T00:00", "2026-01-08T00:00", "2026-01-10T00:00"]),
        ("0 0 * * 0-7", ["2026-01-02T00:00", "2026-01-03T00:00"]),
    ],
)
def test_fields(text: str, expected: list[str]) -> None:
    cron = parse(text)
    assert (cron.expression, cron.zone) == (text, "UTC")
    assert firings(cron, "2026-01-01T00:00+00:00", len(expected)) == [f"{time}:00+00:00" for time in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Both day fields name days: either will do.
        ("0 0 13 * fri", ["2026-01-02", "2026-01-09", "2026-01-13", "2026-01-16"]),
        ("0 0 1-31 * mon", ["2026-01-02", "2026-01-03"]),
        ("0 0 13 * 0-6", ["2026-01-02", "2026-01-03"]),
        ("0 0 30 2 mon", ["2026-02-02", "2026-02-09"]),
        # One that begins with * names none, even with a step: both have to hold.
        ("0 0 */2 * fri", ["2026-01-09", "2026-01-23", "2026-02-13"]),
        ("0 0 13 * */2", ["2026-01-13", "2026-06-13", "2026-08-13"]),
        ("0 0 29 2 */7", ["2032-02-29", "2060-02-29"]),
        ("0 0 13 * *", ["2026-01-13", "2026-02-13"]),
        ("0 0 * * fri", ["2026-01-02", "2026-01-09"]),
    ],
)
def test_days_of_month_and_of_week(text: str, expected: list[str]) -> None:
    shown = firings(parse(text), "2026-01-01T00:00+00:00", len(expected))
    assert shown == [f"{day}T00:00:00+00:00" for day in expected]


def test_the_longest_wait_is_forty_years() -> None:
    """2100 is no leap year."""
    assert firings(parse("0 0 29 2 */7"), "2088-03-01T00:00+00:00", 1) == ["2128-02-29T00:00:00+00:00"]


@pytest.mark.parametrize(
    ("macro", "fields"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ],
)
def test_macros(macro: str, fields: str) -> None:
    for text in (macro, macro.upper(), f"CRON_TZ=Asia/Tokyo {macro}"):
        zone = text.removesuffix(macro) if text.endswith(macro) else ""
        cron = parse(text)
        assert cron.expression == text
        assert firings(cron, "2026-05-05T05:05+00:00", 3) == firings(parse(zone + fields), "2026-05-05T05:05+00:00", 3)


@pytest.mark.parametrize("text", ["0 5 * * *", " 0 5 * * * ", "\t0  5\t*\t \t* *\t"])
def test_blanks_around_are_no_part_of_it(text: str) -> None:
    cron = parse(text)
    assert cron.expression == text.strip()
    assert firings(cron, "2026-01-01T00:00+00:00", 1) == ["2026-01-01T05:00:00+00:00"]


@pytest.mark.parametrize("prefix", ["CRON_TZ=America/New_York ", "TZ=America/New_York\t ", "  TZ=America/New_York "])
def test_a_zone_in_front(prefix: str) -> None:
    cron = parse(prefix + "0 9 * * *")
    assert (cron.zone, cron.expression) == ("America/New_York", (prefix + "0 9 * * *").strip())
    assert firings(cron, "2026-01-01T00:00+00:00", 1) == ["2026-01-01T09:00:00-05:00"]


def test_names_of_zones_may_be_aliases() -> None:
    assert firings(parse("TZ=Asia/Calcutta 0 9 * * *"), "2026-01-01T00:00+00:00", 1) == ["2026-01-01T09:00:00+05:30"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has 0 fields instead of five (minute, hour, day of month, month, day of week)"),
        ("  \t", "it has 0 fields"),
        ("* * * *", "it has 4 fields"),
        ("* * * * * *", "it has 6 fields instead of five"),
        ("0 0 12 * * ? 2030", "it has 7 fields"),
        ("*/2 * * * * *", "seconds and years are not supported"),
        ("CRON_TZ=UTC", "it has 0 fields"),
        ("CRON_TZ=UTC * * * *", "it has 4 fields"),
        ("60 * * * *", 'the minute "60" is not from 0 to 59'),
        ("* 24 * * *", 'the hour "24" is not from 0 to 23'),
        ("* * 0 * *", 'the day of month "0" is not from 1 to 31'),
        ("* * 32 * *", 'the day of month "32" is not from 1 to 31'),
        ("* * * 0 *", 'the month "0" is not from 1 to 12'),
        ("* * * 13 *", 'the month "13" is not from 1 to 12'),
        ("* * * * 8", 'the day of week "8" is not from 0 to 7'),
        ("*/0 * * * *", 'the minute step "0" is not from 1 to 59'),
        ("*/90 * * * *", 'the minute step "90" is not from 1 to 59'),
        ("* */24 * * *", 'the hour step "24" is not from 1 to 23'),
        ("* * */32 * *", 'the day of month step "32" is not from 1 to 31'),
        ("* * * */13 *", 'the month step "13" is not from 1 to 12'),
        ("* * * * */8", 'the day of week step "8" is not from 1 to 7'),
        ("5-1 * * * *", 'the minute range "5-1" runs backwards'),
        ("* * * * fri-sun", 'the day of week range "fri-sun" runs backwards'),
        ("* * * nov-feb *", 'the month range "nov-feb" runs backwards'),
        ("*-5 * * * *", '"*-5" is not a minute'),
        ("1-2-3 * * * *", '"1-2-3" is not a minute'),
        ("1//2 * * * *", '"1//2" is not a minute'),
        ("5/ * * * *", '"5/" is not a minute'),
        ("/5 * * * *", '"/5" is not a minute'),
        ("-5 * * * *", '"-5" is not a minute'),
        ("+5 * * * *", '"+5" is not a minute'),
        ("1.5 * * * *", '"1.5" is not a minute'),
        ("1, * * * *", '"" is not a minute'),
        (",1 * * * *", '"" is not a minute'),
        ("1,,2 * * * *", '"" is not a minute'),
        ("** * * * *", '"**" is not a minute'),
        ("R * * * *", '"R" is not a minute'),
        ("H * * * *", '"H" is not a minute'),
        ("? * * * *", '"?" is not a minute'),
        ("* * L * *", '"L" is not a day of month'),
        ("* * LW * *", '"LW" is not a day of month'),
        ("* * 15W * *", '"15W" is not a day of month'),
        ("* * ? * *", '"?" is not a day of month'),
        ("* * * * 5L", '"5L" is not a day of week'),
        ("* * * * L5", '"L5" is not a day of week'),
        ("* * * * 5#2", '"5#2" is not a day of week'),
        ("* * * * friday", '"friday" is not a day of week'),
        ("* * * january *", '"january" is not a month'),
        ("* * * * jan", '"jan" is not a day of week'),
        ("mon * * * *", '"mon" is not a minute'),
        ("* * * feb/mar *", '"feb/mar" is not a month'),
        ("\u0661 * * * *", '"\u0661" is not a minute'),
        ("\u00b2 * * * *", '"\u00b2" is not a minute'),
        ("1\n* * * * *", "is not a minute"),
        ("* * * * *\n", "is not a day of week"),
        ("@reboot", '"@reboot" is none of @yearly, '),
        ("@every 5m", '"@every 5m" is none of @yearly, '),
        ("@", '"@" is none of @yearly, '),
        ("@daily *", '"@daily *" is none of'),
        ("CRON_TZ=Mars/Olympus * * * * *", '"Mars/Olympus" is not a time zone of the IANA data'),
        ("TZ=europe/berlin * * * * *", '"europe/berlin" is not a time zone'),
        ("TZ=../../etc/passwd * * * * *", "is not a time zone"),
        ("TZ= * * * * *", '"" is not a time zone'),
        ("TZ=UTC TZ=UTC * * * * *", "it has 6 fields"),
        ("cron_tz=UTC * * * * *", "it has 6 fields"),
        ("0 0 30 2 *", "no month that it names has a day 30, so that it would never fire"),
        ("0 0 31 2,4,6,9,11 *", "no month that it names has a day 31"),
        ("0 0 30-31 feb */2", "no month that it names has a day 30"),
        ("*" * (MAX_CHARACTERS + 1), f"it has more than {MAX_CHARACTERS} characters"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(why)) as caught:
        parse(text)
    assert str(caught.value).startswith('Upstash-Cron: invalid cron expression "')
    assert "\n" not in str(caught.value)


def test_the_longest_expression() -> None:
    minutes = ",".join(["1"] * ((MAX_CHARACTERS - len(" * * * *") + 1) // 2))
    longest = f"{minutes} * * * *".rjust(MAX_CHARACTERS, "0")
    assert len(longest) == MAX_CHARACTERS
    assert parse(longest).expression == longest


@given(st.text(max_size=300) | st.text(alphabet="*/-,059 \tsunL#?@TZ=CRON_", max_size=40))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    cron = accepted(text)
    assert cron is None or cron.expression == text.strip(" \t")


# Daylight saving


CLOCK_CHANGES = [
    # Europe/Berlin: 02:00 becomes 03:00, and 03:00 becomes 02:00.
    ("Europe/Berlin", "30 2 * * *", "2026-03-28T00:00+01:00", ["2026-03-28T02:30+01:00", "2026-03-30T02:30+02:00"]),
    ("Europe/Berlin", "30 * * * *", "2026-03-29T01:00+01:00", ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"]),
    ("Europe/Berlin", "0 3 * * *", "2026-03-29T01:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T03:00+02:00"]),
    ("Europe/Berlin", "*/30 2 * * *", "2026-03-28T02:30+01:00", ["2026-03-30T02:00+02:00"]),
    ("Europe/Berlin", "30 2-3 * * *", "2026-03-29T00:00+01:00", ["2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00"]),
    ("Europe/Berlin", "0 */2 * * *", "2026-03-29T00:00+01:00", ["2026-03-29T04:00+02:00", "2026-03-29T06:00+02:00"]),
    ("Europe/Berlin", "30 2 * * *", "2026-10-25T00:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
    (
        "Europe/Berlin",
        "30 * * * *",
        "2026-10-25T01:00+02:00",
        ["2026-10-25T01:30+02:00", "2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00", "2026-10-25T03:30+01:00"],
    ),
    (
        "Europe/Berlin",
        "*/30 2 * * *",
        "2026-10-25T00:00+02:00",
        ["2026-10-25T02:00+02:00", "2026-10-25T02:30+02:00", "2026-10-26T02:00+01:00"],
    ),
    ("Europe/Berlin", "30 2-3 * * *", "2026-10-25T00:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-25T03:30+01:00"]),
    ("Europe/Berlin", "30 0-23 * * *", "2026-10-25T02:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-25T03:30+01:00"]),
    (
        "Europe/Berlin",
        "0 */2 * * *",
        "2026-10-25T00:00+02:00",
        ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T04:00+01:00"],
    ),
    (
        "Europe/Berlin",
        "0 0-22/2 * * *",
        "2026-10-24T23:00+02:00",
        ["2026-10-25T00:00+02:00", "2026-10-25T02:00+02:00", "2026-10-25T04:00+01:00"],
    ),
    # The second showing of a repeated hour has begun: it counts for a wildcard only.
    ("Europe/Berlin", "30 2 * * *", "2026-10-25T02:10+01:00", ["2026-10-26T02:30+01:00"]),
    ("Europe/Berlin", "30 * * * *", "2026-10-25T02:10+01:00", ["2026-10-25T02:30+01:00"]),
    # America/New_York: 02:00 becomes 03:00, and 02:00 becomes 01:00.
    ("America/New_York", "15 2 * * *", "2026-03-07T12:00-05:00", ["2026-03-09T02:15-04:00"]),
    ("America/New_York", "15 * * * *", "2026-03-08T01:00-05:00", ["2026-03-08T01:15-05:00", "2026-03-08T03:15-04:00"]),
    ("America/New_York", "15 1 * * *", "2026-11-01T00:00-04:00", ["2026-11-01T01:15-04:00", "2026-11-02T01:15-05:00"]),
    (
        "America/New_York",
        "15 * * * *",
        "2026-11-01T01:00-04:00",
        ["2026-11-01T01:15-04:00", "2026-11-01T01:15-05:00", "2026-11-01T02:15-05:00"],
    ),
    # Australia/Lord_Howe: half an hour each way. 02:00 becomes 02:30, and 02:00 becomes 01:30.
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00+10:30", ["2026-10-05T02:15+11:00"]),
    ("Australia/Lord_Howe", "45 2 * * *", "2026-10-03T12:00+10:30", ["2026-10-04T02:45+11:00"]),
    (
        "Australia/Lord_Howe",
        "*/15 * * * *",
        "2026-10-04T01:45+10:30",
        ["2026-10-04T02:30+11:00", "2026-10-04T02:45+11:00"],
    ),
    (
        "Australia/Lord_Howe",
        "45 1 * * *",
        "2026-04-05T00:00+11:00",
        ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"],
    ),
    (
        "Australia/Lord_Howe",
        "*/15 * * * *",
        "2026-04-05T01:30+11:00",
        ["2026-04-05T01:45+11:00", "2026-04-05T01:30+10:30", "2026-04-05T01:45+10:30", "2026-04-05T02:00+10:30"],
    ),
    # America/Sao_Paulo, until 2019: at midnight. There was no 00:30, and 23:30 came twice, on the day before.
    ("America/Sao_Paulo", "30 0 * * *", "2018-11-03T12:00-03:00", ["2018-11-05T00:30-02:00"]),
    ("America/Sao_Paulo", "0 0 * * *", "2018-11-03T12:00-03:00", ["2018-11-05T00:00-02:00"]),
    ("America/Sao_Paulo", "30 * * * *", "2018-11-03T23:00-03:00", ["2018-11-03T23:30-03:00", "2018-11-04T01:30-02:00"]),
    (
        "America/Sao_Paulo",
        "30 23 * * *",
        "2018-02-17T12:00-02:00",
        ["2018-02-17T23:30-02:00", "2018-02-18T23:30-03:00"],
    ),
    ("America/Sao_Paulo", "0 0 * * *", "2018-02-17T12:00-02:00", ["2018-02-18T00:00-03:00", "2018-02-19T00:00-03:00"]),
    (
        "America/Sao_Paulo",
        "30 * * * *",
        "2018-02-17T23:00-02:00",
        ["2018-02-17T23:30-02:00", "2018-02-17T23:30-03:00", "2018-02-18T00:30-03:00"],
    ),
    # Africa/Cairo: at midnight, on a Friday; and back at midnight after a Thursday.
    ("Africa/Cairo", "30 0 * * *", "2026-04-23T12:00+02:00", ["2026-04-25T00:30+03:00"]),
    ("Africa/Cairo", "30 * * * *", "2026-04-23T23:00+02:00", ["2026-04-23T23:30+02:00", "2026-04-24T01:30+03:00"]),
    ("Africa/Cairo", "30 23 * * *", "2026-10-29T12:00+03:00", ["2026-10-29T23:30+03:00", "2026-10-30T23:30+02:00"]),
    (
        "Africa/Cairo",
        "30 * * * *",
        "2026-10-29T23:00+03:00",
        ["2026-10-29T23:30+03:00", "2026-10-29T23:30+02:00", "2026-10-30T00:30+02:00"],
    ),
    # Asia/Tehran, until 2022: by the sun's calendar.
    ("Asia/Tehran", "30 0 * * *", "2022-03-21T12:00+03:30", ["2022-03-23T00:30+04:30"]),
    ("Asia/Tehran", "30 * * * *", "2022-09-21T23:00+04:30", ["2022-09-21T23:30+04:30", "2022-09-21T23:30+03:30"]),
    # Pacific/Apia crossed the date line: there was no 30 December 2011.
    ("Pacific/Apia", "0 12 * * *", "2011-12-29T00:00-10:00", ["2011-12-29T12:00-10:00", "2011-12-31T12:00+14:00"]),
    ("Pacific/Apia", "0 * * * *", "2011-12-29T22:30-10:00", ["2011-12-29T23:00-10:00", "2011-12-31T00:00+14:00"]),
    ("Pacific/Apia", "0 0 * * fri", "2011-12-28T00:00-10:00", ["2012-01-06T00:00+14:00"]),
    # Europe/Dublin: summer is its standard time, winter is an hour less.
    ("Europe/Dublin", "30 1 * * *", "2026-03-28T12:00+00:00", ["2026-03-30T01:30+01:00"]),
    ("Europe/Dublin", "30 1 * * *", "2026-10-25T00:00+01:00", ["2026-10-25T01:30+01:00", "2026-10-26T01:30+00:00"]),
    ("Europe/Dublin", "30 * * * *", "2026-10-25T01:00+01:00", ["2026-10-25T01:30+01:00", "2026-10-25T01:30+00:00"]),
    # Africa/Casablanca: an hour less during Ramadan.
    ("Africa/Casablanca", "30 2 * * *", "2026-02-15T00:00+01:00", ["2026-02-15T02:30+01:00", "2026-02-16T02:30+00:00"]),
    ("Africa/Casablanca", "30 * * * *", "2026-02-15T02:00+01:00", ["2026-02-15T02:30+01:00", "2026-02-15T02:30+00:00"]),
    ("Africa/Casablanca", "30 2 * * *", "2026-03-21T12:00+00:00", ["2026-03-23T02:30+01:00"]),
    ("Africa/Casablanca", "30 * * * *", "2026-03-22T01:00+00:00", ["2026-03-22T01:30+00:00", "2026-03-22T03:30+01:00"]),
    # Africa/Monrovia, until 1972: seconds, and a day that began late.
    ("Africa/Monrovia", "0 0 * * *", "1972-01-05T12:00+00:00", ["1972-01-06T00:00-00:44:30", "1972-01-08T00:00+00:00"]),
]


@pytest.mark.parametrize(("zone", "fields", "after", "expected"), CLOCK_CHANGES)
def test_clock_changes(zone: str, fields: str, after: str, expected: list[str]) -> None:
    shown = firings(parse(f"CRON_TZ={zone} {fields}"), after, len(expected))
    assert shown == [datetime.fromisoformat(text).isoformat(timespec="seconds") for text in expected]


@pytest.mark.parametrize(
    ("text", "after", "until", "latest"),
    [
        ("0 * * * *", "2026-01-01T00:00+00:00", "2026-01-01T05:59+00:00", "2026-01-01T05:00:00+00:00"),
        ("0 * * * *", "2026-01-01T00:00+00:00", "2026-01-01T05:00+00:00", "2026-01-01T05:00:00+00:00"),
        ("0 * * * *", "2026-01-01T05:00+00:00", "2026-01-01T05:59+00:00", None),
        ("0 * * * *", "2026-01-01T05:00+00:00", "2026-01-01T04:00+00:00", None),
        ("* * * * *", "1970-01-01T00:00+00:00", "2026-01-01T05:59:59+00:00", "2026-01-01T05:59:00+00:00"),
        ("0 0 29 2 *", "1970-01-01T00:00+00:00", "2026-01-01T00:00+00:00", "2024-02-29T00:00:00+00:00"),
        # The repeated hour of Berlin, seen from behind it, from within its second showing, and from within its first.
        (
            "TZ=Europe/Berlin 30 2 * * *",
            "2026-10-25T00:00+02:00",
            "2026-10-25T04:00+01:00",
            "2026-10-25T02:30:00+02:00",
        ),
        (
            "TZ=Europe/Berlin 30 * * * *",
            "2026-10-25T00:00+02:00",
            "2026-10-25T02:59+01:00",
            "2026-10-25T02:30:00+01:00",
        ),
        (
            "TZ=Europe/Berlin 30 * * * *",
            "2026-10-25T00:00+02:00",
            "2026-10-25T02:10+01:00",
            "2026-10-25T02:30:00+02:00",
        ),
        (
            "TZ=Europe/Berlin 30 * * * *",
            "2026-10-25T00:00+02:00",
            "2026-10-25T02:10+02:00",
            "2026-10-25T01:30:00+02:00",
        ),
        ("TZ=Europe/Berlin 30 2 * * *", "2026-10-25T02:30+02:00", "2026-10-25T23:00+01:00", None),
        # The hour that is left out, seen from behind it.
        (
            "TZ=Europe/Berlin 30 2 * * *",
            "2026-03-28T00:00+01:00",
            "2026-03-29T12:00+02:00",
            "2026-03-28T02:30:00+01:00",
        ),
        ("TZ=Europe/Berlin 30 2 * * *", "2026-03-28T12:00+01:00", "2026-03-29T12:00+02:00", None),
    ],
)
def test_the_latest_firing(text: str, after: str, until: str, latest: str | None) -> None:
    cron = parse(text)
    found_ms = cron.latest_until(ms_of(after), ms_of(until))
    assert (None if found_ms is None else local_text(cron.zone, found_ms)) == latest


def test_what_only_clock_changes_keep_from_firing() -> None:
    """02:30 on the last Sunday of March, in a zone whose clocks are set forward at that moment."""
    cron = parse("CRON_TZ=Europe/Berlin 30 2 25-31 3 */7")
    assert cron.next_after(ms_of("2026-01-01T00:00+00:00")) is None
    assert local_text(cron.zone, cron.latest_until(0, ms_of("2026-01-01T00:00+00:00")) or 0).startswith("1980-03-30")


def test_the_ends_of_time() -> None:
    cron = parse("0 0 1 * *")
    assert cron.next_after(-(10**18)) == cron.next_after(-1) == 0
    assert cron.next_after(0) == 31 * DAY_MS
    assert cron.next_after(LAST_MS) is None
    assert cron.next_after(10**18) is None
    assert cron.latest_until(-(10**18), -1) is None
    assert cron.latest_until(-(10**18), 0) == 0
    last = "9899-12-01T00:00:00+00:00"
    assert local_text("UTC", cron.latest_until(0, 10**18) or 0) == last
    assert cron.next_after(ms_of(last)) is None


def test_behind_greenwich_time_begins_in_1969() -> None:
    cron = parse("TZ=America/New_York 0 20 * * *")
    assert firings(cron, "1970-01-01T00:00+00:00", 1) == ["1969-12-31T20:00:00-05:00"]
    assert cron.latest_until(0, 2 * HOUR_MS) == HOUR_MS


# Properties, against an oracle that walks through time minute by minute

RANGES = ((0, 59, 59), (0, 23, 23), (1, 31, 31), (1, 12, 12), (0, 7, 6))
"""First and last value of each field, and what `*` and an open step run to."""


@st.composite
def items(draw: st.DrawFn, first: int, last: int) -> str:
    """One item of a field's list."""
    # Small steps, so that what is drawn fires often enough to be compared.
    step = draw(st.none() | st.integers(1, min(last, 4)))
    behind = "" if step is None else f"/{step}"
    if draw(st.integers(0, 2)) == 0:
        return "*" + behind
    low = draw(st.integers(first, last))
    if draw(st.booleans()):
        return f"{low}{behind}"
    return f"{low}-{draw(st.integers(low, last))}{behind}"


@st.composite
def expressions(draw: st.DrawFn, zones: st.SearchStrategy[str]) -> str:
    """Any accepted expression of five numeric fields."""
    fields = [
        "*" if draw(st.booleans()) else ",".join(draw(st.lists(items(first, last), min_size=1, max_size=2)))
        for first, last, _ in RANGES
    ]
    return f"CRON_TZ={draw(zones)} {' '.join(fields)}"


def written(field: str, first: int, last: int, open_end: int) -> set[int]:
    """The values of a field, in a reading of its own."""
    values: set[int] = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        low, _, high = span.replace("*", f"{first}-{open_end}").partition("-")
        top = high or (str(max(int(low), open_end)) if step else low)
        values |= {
            value
            for value in range(first, last + 1)
            if int(low) <= value <= int(top) and (value - int(low)) % int(step or 1) == 0
        }
    return values


class Oracle:
    """Does an expression fire at a given moment? Asked of the calendar alone."""

    def __init__(self, expression: str) -> None:
        prefix, *fields = expression.split(" ")
        self.zone = ZoneInfo(prefix.removeprefix("CRON_TZ="))
        values = [written(field, *limits) for field, limits in zip(fields, RANGES, strict=True)]
        self.minutes, self.hours, self.days, self.months, self.weekdays = values
        self.weekdays = {weekday % 7 for weekday in self.weekdays}
        self.either = not fields[2].startswith("*") and not fields[4].startswith("*")
        self.has_wildcard_hour = fields[1].startswith("*")

    def fires(self, moment: datetime) -> bool:
        local = moment.astimezone(self.zone)
        day, weekday = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return (
            local.second == 0
            and local.minute in self.minutes
            and local.hour in self.hours
            and local.month in self.months
            and (day or weekday if self.either else day and weekday)
            and (self.has_wildcard_hour or local.fold == 0)
        )

    def walk(self, start_ms: int, end_ms: int) -> Iterator[int]:
        """The firings after the one and until the other."""
        at_ms = start_ms - start_ms % MINUTE_MS + MINUTE_MS
        while at_ms <= end_ms:
            if self.fires(EPOCH + timedelta(milliseconds=at_ms)):
                yield at_ms
            at_ms += MINUTE_MS


NEAR_CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00+00:00"),
    ("Europe/Berlin", "2026-10-25T01:00+00:00"),
    ("America/New_York", "2026-03-08T07:00+00:00"),
    ("America/New_York", "2026-11-01T06:00+00:00"),
    ("Australia/Lord_Howe", "2026-04-04T15:00+00:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:30+00:00"),
    ("America/Sao_Paulo", "2018-11-04T03:00+00:00"),
    ("America/Sao_Paulo", "2018-02-18T02:00+00:00"),
    ("Africa/Cairo", "2026-10-29T21:00+00:00"),
    ("Asia/Tehran", "2022-03-21T20:30+00:00"),
    ("Pacific/Apia", "2011-12-30T10:00+00:00"),
    ("Europe/Dublin", "2026-10-25T01:00+00:00"),
    ("Africa/Casablanca", "2026-02-15T02:00+00:00"),
    ("Pacific/Kwajalein", "1993-08-21T12:00+00:00"),
    ("Asia/Kathmandu", "2026-12-31T23:00+00:00"),
    ("America/Argentina/Buenos_Aires", "1999-12-31T23:00+00:00"),
]


@settings(deadline=None)
@given(st.data())
def test_next_after_agrees_with_a_walk(data: st.DataObject) -> None:
    zone, change = data.draw(st.sampled_from(NEAR_CHANGES))
    expression = data.draw(expressions(st.just(zone)))
    cron = accepted(expression)
    if cron is None:
        return
    start_ms = ms_of(change) + data.draw(st.integers(-4 * HOUR_MS, 2 * HOUR_MS))
    end_ms = start_ms + 8 * HOUR_MS
    expected = list(Oracle(expression).walk(start_ms, end_ms))
    found: list[int] = []
    at_ms = cron.next_after(start_ms)
    while at_ms is not None and at_ms <= end_ms:
        found.append(at_ms)
        at_ms = cron.next_after(at_ms)
    assert found == expected
    until_ms = data.draw(st.integers(start_ms, end_ms))
    assert cron.latest_until(start_ms, until_ms) == max((at for at in expected if at <= until_ms), default=None)
    assert cron.next_after(until_ms) == min((at for at in expected if at > until_ms), default=at_ms)


ZONES = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "Asia/Gaza"]


@settings(deadline=None)
@given(expressions(st.sampled_from(ZONES)), st.integers(-DAY_MS, LAST_MS + DAY_MS), st.integers(0, 40_000 * DAY_MS))
@example("CRON_TZ=Europe/Berlin 30 2 25-31 3 */7", LAST_MS - 400 * DAY_MS, 10**15)
def test_it_only_moves_forward_and_never_fails(expression: str, at_ms: int, span_ms: int) -> None:
    cron = accepted(expression)
    if cron is None:
        return
    found: list[int] = []
    after_ms: int | None = at_ms
    for _ in range(5):
        after_ms = cron.next_after(after_ms)
        if after_ms is None:
            break
        found.append(after_ms)
    assert found == sorted(set(found))
    assert all(at_ms < one <= LAST_MS for one in found)
    latest_ms = cron.latest_until(at_ms, at_ms + span_ms)
    if latest_ms is None:
        assert not found or found[0] > at_ms + span_ms
    else:
        assert found[0] <= latest_ms <= at_ms + span_ms
        following_ms = cron.next_after(latest_ms)
        assert following_ms is None or following_ms > at_ms + span_ms
