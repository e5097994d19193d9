"""URL groups: named lists of endpoints, each of which gets its own message."""

import msgspec

from qstash_clone.domain.message import Headers


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One destination of a group."""

    url: str
    name: str | None = None


class UrlGroup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A group as it is stored."""

    name: str
    created_ms: int
    updated_ms: int
    endpoints: tuple[Endpoint, ...] = ()
    """In the order in which they were added."""
    headers: Headers = ()
    """What publishes to the group have by default."""
