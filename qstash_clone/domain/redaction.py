"""What the API shows of a message whose publisher asked for redaction; see docs/protocol/redaction.md.

Only views: deliveries, retries, callbacks and the store have the original.
"""

import re
from hashlib import sha256

from qstash_clone.domain.header_names import canonical_name, is_header_name
from qstash_clone.domain.message import Headers, Redaction
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import InvalidRequest

_BODY = "body"
_ALL_HEADERS = frozenset({"header", "headers"})
_ONE_HEADER = re.compile(r"headers?\[(.*)\]", re.DOTALL)


def parse_redaction(header: str, text: str) -> Redaction | None:
    """What a list such as `body, header[Authorization]` asks to hide, or None for nothing.

    Raises `InvalidRequest` for an item that is none.
    """
    body = all_headers = False
    names: list[str] = []
    for item in text.split(","):
        field = item.strip()
        one = _ONE_HEADER.fullmatch(field)
        if field == _BODY:
            body = True
        elif field in _ALL_HEADERS:
            all_headers = True
        elif one is not None:
            names.append(_header_name(header, field, one[1].strip()))
        elif field:
            raise InvalidRequest(f"{header}: invalid field {quoted(field)}, use body, header or header[Name]")
    if not (body or all_headers or names):
        return None
    return Redaction(
        body=body, all_headers=all_headers, header_names=() if all_headers else tuple(dict.fromkeys(names))
    )


def _header_name(header: str, field: str, text: str) -> str:
    name = text.encode()
    if not is_header_name(name):
        raise InvalidRequest(f"{header}: invalid field {quoted(field)}, it holds no header name")
    return canonical_name(name)


def redacted_text(original: bytes) -> str:
    """What is shown instead: `REDACTED:` and the SHA-256 of the original in hex, which tells equal values."""
    return f"REDACTED:{sha256(original).hexdigest()}"


def shown_headers(headers: Headers, redaction: Redaction | None) -> Headers:
    """Headers of a message, or those for its callbacks, as the API shows them: every name, values as allowed."""
    if redaction is None or not (redaction.all_headers or redaction.header_names):
        return headers
    names = redaction.header_names
    return tuple(
        (name, redacted_text(value.encode("latin-1"))) if redaction.all_headers or name in names else (name, value)
        for name, value in headers
    )


def shown_body(body: bytes, redaction: Redaction | None) -> bytes:
    """The body of a message as the API shows it; an empty one stays empty."""
    if redaction is None or not redaction.body or not body:
        return body
    return redacted_text(body).encode()


def redaction_of_callback(source: Redaction | None) -> Redaction | None:
    """What is hidden of a callback, whose body repeats body and headers of its source."""
    if source is None:
        return None
    return Redaction(body=True, all_headers=source.all_headers, header_names=source.header_names)
