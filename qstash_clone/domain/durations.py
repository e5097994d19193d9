"""Durations as text (`10s`, `1h30m`, `90`) into milliseconds."""

import re

_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_GROUP = re.compile(r"([0-9]+)([smhd])")
_DURATION = re.compile(r"(?:[0-9]+[smhd])+")
_MAX_CHARACTERS = 200
"""Far beyond any real duration; keeps the numbers small enough to handle."""


def parse_duration_ms(text: str) -> int:
    """Milliseconds of one or more `<digits><unit>` groups, which add up; the units are `s`, `m`, `h` and `d`.

    Digits alone are seconds. Raises `ValueError` for anything else: signs, fractions, blanks, other units, nothing.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"a duration has at most {_MAX_CHARACTERS} characters")
    if text.isascii() and text.isdigit():
        return int(text) * 1000
    if _DURATION.fullmatch(text) is None:
        raise ValueError("a duration is digits and a unit (s, m, h or d), once or several times")
    return sum(int(digits) * _UNIT_MS[unit] for digits, unit in _GROUP.findall(text))
