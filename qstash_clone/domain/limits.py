"""What publishers get by default, and the most they may ask for."""

import msgspec

from qstash_clone.domain.deduplication import ContentScope
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import QuotaExceeded

_DAY_MS = 86_400_000
MAX_DEDUPLICATION_WINDOW_MS = 365 * _DAY_MS


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults, maxima, and how deduplication works where the publisher does not say."""

    default_retries: int
    max_retries: int
    default_timeout_ms: int
    max_timeout_ms: int
    max_delay_ms: int
    deduplication_window_ms: int = 90 * _DAY_MS
    """Of a publish that does not say another."""
    content_hash_scope: ContentScope = "all-upstash"
    strict_deduplication_ids: bool = True
    """Refuse ids with colons or blanks."""


def over_retries(header: str, text: str, limits: Limits) -> QuotaExceeded:
    return _over(header, text, f"{limits.max_retries}")


def over_period(header: str, text: str, maximum_ms: int) -> QuotaExceeded:
    return _over(header, text, f"{maximum_ms // 1000}s")


def _over(header: str, text: str, maximum: str) -> QuotaExceeded:
    return QuotaExceeded(f"{header}: {quoted(text)} is over the maximum of {maximum}")
