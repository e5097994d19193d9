"""Names of lanes: the waiting lines that messages join when they are due."""

from qstash_clone.domain.urls import Origin, origin_of


def host_lane(url: str) -> str:
    """The lane of a destination's host, `h:<host>` and `:<port>` unless it is the scheme's default.

    Raises `ValueError` for what is no destination URL.
    """
    return origin_lane(origin_of(url))


def origin_lane(origin: Origin) -> str:
    """The lane of a host that is known already."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return f"h:{host}" if origin.has_default_port else f"h:{host}:{origin.port}"
