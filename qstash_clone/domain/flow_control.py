"""Flow control as publishers ask for it: a key, and the limits that messages with this key share."""

import re
from functools import lru_cache
from typing import Final

from qstash_clone.domain.durations import parse_duration_ms
from qstash_clone.domain.message import FlowControl
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest

MAX_FLOW_LIMIT: Final = 1_000_000_000
"""Of parallelism and rate: far beyond any real one, and an exact number for every client and for Redis's scripts."""
MAX_FLOW_PERIOD_S: Final = 7 * 86_400

_KEY = re.compile(r"[!-~]{1,256}")
_REFUSED_IN_KEYS = frozenset("/?#%,")
"""Clients put keys into paths and lists without escaping them."""
_LIMIT = re.compile(r"[0-9]{1,100}")
_PARTS = "parallelism", "rate", "period"
_USAGE = "use parallelism=<number>, rate=<number> and period=<duration>, separated by commas"


def check_flow_control_key(header: str, text: str) -> str:
    """The key itself. Raises `InvalidRequest` unless it is 1 to 256 visible ASCII characters other than `/?#%,`."""
    if _KEY.fullmatch(text) is None or not _REFUSED_IN_KEYS.isdisjoint(text):
        raise InvalidRequest(
            f"{header}: invalid key {quoted(text)}, use 1 to 256 visible ASCII characters without / ? # % and ,"
        )
    return text


# Publishers send the same few over and over, and parsing takes as long as that of all other headers together.
@lru_cache(maxsize=1024)
def parse_flow_control(header: str, key: str | None, value: str | None) -> FlowControl | None:
    """What the two headers `<header>-Key` and `<header>-Value` say together, None if neither is given.

    Raises `InvalidRequest` for one without the other and for a malformed one.
    """
    if key is None or value is None:
        if key is not None:
            raise InvalidRequest(f"{header}-Key: it needs limits, give {header}-Value too")
        if value is not None:
            raise InvalidRequest(f"{header}-Value: it needs a key, give {header}-Key too")
        return None
    check_flow_control_key(f"{header}-Key", key)
    header = f"{header}-Value"
    texts: dict[str, str] = {}
    for part in value.split(","):
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if not equals or name not in _PARTS:
            raise InvalidRequest(f"{header}: {quoted(part.strip())} is not a limit, {_USAGE}")
        if name in texts:
            raise InvalidRequest(f"{header}: {name} is given twice")
        texts[name] = text
    if "parallelism" not in texts and "rate" not in texts:
        raise InvalidRequest(f"{header}: {quoted(value)} has neither parallelism nor rate, {_USAGE}")
    return FlowControl(
        key=key,
        parallelism=_limit(header, "parallelism", texts),
        rate=_limit(header, "rate", texts),
        period_s=_period(header, texts["period"]) if "period" in texts else 1,
    )


def _limit(header: str, name: str, texts: dict[str, str]) -> int | None:
    text = texts.get(name)
    if text is None:
        return None
    if _LIMIT.fullmatch(text) is None or not 1 <= int(text) <= MAX_FLOW_LIMIT:
        raise InvalidRequest(f"{header}: invalid {name} {quoted(text)}, use an integer from 1 to {MAX_FLOW_LIMIT}")
    return int(text)


def _period(header: str, text: str) -> int:
    try:
        period_s = parse_duration_ms(text) // 1000
    except ValueError:
        period_s = 0
    if not 1 <= period_s <= MAX_FLOW_PERIOD_S:
        raise InvalidRequest(f"{header}: invalid period {quoted(text)}, use a duration from 1s to 7d")
    return period_s
