"""The message that everything is measured with: 200 B body, 63 B of forwarded headers, 43 B URL."""

import msgspec

BODY_BYTES = 200
HEADER_BYTES = 63
URL_BYTES = 43
STAMP_DIGITS = 20
"""A body begins with the time it was sent at, in ns, where a measure needs it."""

HEADERS = (("Content-Type", "application/json"), ("X-Event-Kind", "order.created.version-1"))
"""As the destination receives them."""
_FILLER = b'{"order": 1234567890, "lines": ["' + b"x" * BODY_BYTES
BODY = (b"0" * STAMP_DIGITS + _FILLER)[: BODY_BYTES - 3] + b'"]}'

assert len(BODY) == BODY_BYTES
assert sum(len(name) + len(value) for name, value in HEADERS) == HEADER_BYTES


def destination(port: int) -> str:
    """A URL of the usual length on this machine."""
    origin = f"http://127.0.0.1:{port}/"
    return origin + "d" * (URL_BYTES - len(origin))


NUMBER = "#" * STAMP_DIGITS
"""Where a request is to differ from all others: the load generator puts a number there."""


def publish_request(port: int, token: str, url: str, *, options: str = "", path: str = "publish") -> bytes:
    """A whole publish; the last `BODY_BYTES` bytes are the body. `options` are further header lines, `path` may be
    that of an enqueue; `url` is the destination, the name of a URL group too."""
    (content_type, media_type), (name, value) = HEADERS
    return (
        f"POST /v2/{path}/{url} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        f"Authorization: Bearer {token}\r\n"
        f"{content_type}: {media_type}\r\n"
        f"Upstash-Forward-{name}: {value}\r\n"
        f"{options}"
        "Accept: */*\r\n"
        "User-Agent: bench\r\n"
        f"Content-Length: {BODY_BYTES}\r\n\r\n"
    ).encode() + BODY


def batch_request(port: int, token: str, url: str, count: int) -> bytes:
    """A whole batch of `count` messages, each the same as that of a publish."""
    (content_type, media_type), (name, value) = HEADERS
    headers = {content_type: media_type, f"Upstash-Forward-{name}": value}
    item = {"destination": url, "headers": headers, "body": BODY.decode()}
    body = msgspec.json.encode([item] * count)
    return (
        "POST /v2/batch HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        f"Authorization: Bearer {token}\r\n"
        f"{content_type}: {media_type}\r\n"
        "Accept: */*\r\n"
        "User-Agent: bench\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def plain_request(port: int, url: str) -> bytes:
    """The same body sent to the destination itself."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS)
    path = "/" + url.split("/", 3)[3]
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}Accept: */*\r\nUser-Agent: bench\r\n"
        f"Content-Length: {BODY_BYTES}\r\n\r\n"
    ).encode() + BODY


def kafka_request(port: int, token: str, path: str, content: object) -> bytes:
    """A whole request to Upstash's Kafka REST API, with a body in JSON."""
    body = msgspec.json.encode(content)
    return (
        f"POST {path} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        f"Authorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\n"
        "Accept: */*\r\n"
        "User-Agent: bench\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
