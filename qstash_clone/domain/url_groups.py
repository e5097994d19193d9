"""URL groups: named lists of endpoints, each of which gets its own message. See docs/protocol/url-groups.md."""

from collections.abc import Sequence

import msgspec

from qstash_clone.domain.message import Headers
from qstash_clone.errors import QuotaExceeded


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


class EndpointPattern(msgspec.Struct, frozen=True, kw_only=True):
    """Which endpoints are meant: those equal in everything that is given, of which there is something."""

    url: str | None = None
    name: str | None = None

    def matches(self, endpoint: Endpoint) -> bool:
        return self.url in (None, endpoint.url) and self.name in (None, endpoint.name)


def add_endpoints(
    name: str, group: UrlGroup | None, endpoints: Sequence[Endpoint], now_ms: int, *, max_endpoints: int
) -> UrlGroup:
    """The group with these endpoints; a new one if there was none.

    One after the other: where the URL is known its name is updated, where the name is known its URL is updated, any
    other endpoint goes to the end. Raises `QuotaExceeded` for one more than `max_endpoints`.
    """
    if group is None:
        group = UrlGroup(name=name, created_ms=now_ms, updated_ms=now_ms)
    present = list(group.endpoints)
    places_of_urls = {endpoint.url: place for place, endpoint in enumerate(present)}
    for endpoint in endpoints:
        place = places_of_urls.get(endpoint.url)
        if place is not None:
            if endpoint.name is not None:
                present[place] = endpoint
            continue
        place = None if endpoint.name is None else _place_of_name(present, endpoint.name)
        if place is None:
            if len(present) >= max_endpoints:
                raise QuotaExceeded(f"endpoints: a URL group has at most {max_endpoints} of them")
            place = len(present)
            present.append(endpoint)
        else:
            del places_of_urls[present[place].url]
            present[place] = endpoint
        places_of_urls[endpoint.url] = place
    # Redis's clock may have been set back since.
    updated_ms = max(now_ms, group.created_ms)
    return msgspec.structs.replace(group, endpoints=tuple(present), updated_ms=updated_ms)


def _place_of_name(endpoints: Sequence[Endpoint], name: str) -> int | None:
    return next((place for place, endpoint in enumerate(endpoints) if endpoint.name == name), None)


def remove_endpoints(group: UrlGroup, patterns: Sequence[EndpointPattern], now_ms: int) -> UrlGroup | None:
    """The group without the endpoints that match one of the patterns; None if no endpoint is left."""
    kept = tuple(one for one in group.endpoints if not any(pattern.matches(one) for pattern in patterns))
    if len(kept) == len(group.endpoints):
        return group
    return msgspec.structs.replace(group, endpoints=kept, updated_ms=max(now_ms, group.created_ms)) if kept else None


def replace_headers(group: UrlGroup, headers: Headers, now_ms: int) -> UrlGroup:
    """The group with these default headers and no others."""
    return msgspec.structs.replace(group, headers=headers, updated_ms=max(now_ms, group.created_ms))
