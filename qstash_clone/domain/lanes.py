"""The route of a message: the waiting lines that it goes through when it is due, and the text its record holds of it.

A route is one or two tokens with a blank between them; see docs/explanation/lanes.md:

    h:<host>[:<port>]           a plain destination waits in the lane of its host
    q:<queue>                   a member of a queue
    f:<key>                     a message with a flow-control key
    q:<queue> f:<key>           first its turn in the queue, then the limits of the key
    ... s:<queue>/<id in hex>   a callback: the member of the queue whose slot ends only with it
"""

import msgspec

from qstash_clone.domain.urls import Origin, origin_of
from qstash_clone.ids import MessageId


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The lanes of one message; without a queue and a key it has a host."""

    queue: str | None = None
    flow_control_key: str | None = None
    host: str | None = None
    """`<host>[:<port>]`."""
    slot: tuple[str, MessageId] | None = None
    """Of a callback: queue and id of the member that holds the slot."""

    @property
    def text(self) -> str:
        """As the record holds it."""
        if self.queue is None and self.flow_control_key is None:
            tokens = [f"h:{self.host}"]
        else:
            tokens = [] if self.queue is None else [f"q:{self.queue}"]
            if self.flow_control_key is not None:
                tokens.append(f"f:{self.flow_control_key}")
        if self.slot is not None:
            tokens.append(f"s:{self.slot[0]}/{self.slot[1].hex()}")
        return " ".join(tokens)

    @property
    def limited_lanes(self) -> tuple[str, ...]:
        """The lanes with limits of their own; they decide in which partition the message has to be."""
        lanes = () if self.queue is None else (queue_lane(self.queue),)
        return lanes if self.flow_control_key is None else (*lanes, flow_control_lane(self.flow_control_key))


def parse_route(text: str) -> Route:
    """The route behind its text. Raises `ValueError` for a text that is none."""
    queue = key = host = slot = None
    for token in text.split(" "):
        kind, value = token[:2], token[2:]
        if kind == "h:":
            host = value
        elif kind == "q:":
            queue = value
        elif kind == "f:":
            key = value
        elif kind == "s:":
            name, _, hexadecimal = value.rpartition("/")
            slot = (name, MessageId(bytes.fromhex(hexadecimal)))
        else:
            raise ValueError(f"{text!r} is not a route")
    return Route(queue=queue, flow_control_key=key, host=host, slot=slot)


def queue_lane(name: str) -> str:
    """The lane of a queue."""
    return f"q:{name}"


def is_queue_lane(lane: str) -> bool:
    """Whether this is the lane of a queue."""
    return lane.startswith("q:")


def flow_control_lane(key: str) -> str:
    """The lane of a flow-control key."""
    return f"f:{key}"


def host_lane(url: str) -> str:
    """The lane of a destination's host, `h:<host>` and `:<port>` unless it is the scheme's default.

    Raises `ValueError` for what is no destination URL.
    """
    return origin_lane(origin_of(url))


def origin_lane(origin: Origin) -> str:
    """The lane of a host that is known already."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return f"h:{host}" if origin.has_default_port else f"h:{host}:{origin.port}"


def route_text(origin: Origin, queue: str | None = None, flow_control_key: str | None = None) -> str:
    """The route of a message for a destination, as its record holds it."""
    if queue is None and flow_control_key is None:
        return origin_lane(origin)
    return Route(queue=queue, flow_control_key=flow_control_key).text
