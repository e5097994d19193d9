"""The rule for the names of queues, URL groups and schedules."""

import re

from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest

_NAME = re.compile(r"[A-Za-z0-9._-]{1,256}")


def is_name(text: str) -> bool:
    """Whether it is 1 to 256 letters, digits, dots, underscores and hyphens."""
    return _NAME.fullmatch(text) is not None


def check_name(what: str, text: str) -> str:
    """The name itself. Raises `InvalidRequest`, whose text starts with `what`, for one that breaks the rule."""
    if not is_name(text):
        raise InvalidRequest(f"{what}: invalid name {quoted(text)}, use 1 to 256 of A-Z, a-z, 0-9, '.', '_' and '-'")
    return text
