"""The default wait before another attempt: exponential, in whole seconds, with a cap."""

import math

_MAX_EXPONENT = 700.0
"""e^709 is the largest power a float holds; any cap is passed long before."""
_MAX_RETRY = 2**53
"""The largest number that a float still counts to."""


def default_delay_ms(retried: int, *, coefficient: float, cap_ms: int) -> int:
    """Milliseconds until the next attempt after `retried` retries; see docs/protocol/retries.md.

    Retry n (from 1) waits e^(coefficient * n) seconds, cut to whole seconds, at most `cap_ms`:

        coefficient    n = 1     2       3        4        5        6
        2.0                7    54     403    2,980   22,026   86,400 (cap of a day)
        2.5               12   148   1,808   22,026   86,400   86,400
    """
    exponent = coefficient * min(retried + 1, _MAX_RETRY)
    if exponent > _MAX_EXPONENT:
        return cap_ms
    return min(cap_ms, int(math.exp(exponent)) * 1000)
