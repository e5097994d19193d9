"""A batch: the JSON array of a request into items, each good or bad on its own. See docs/protocol/batch.md."""

import json
import re
from collections.abc import Iterator
from typing import Final, NoReturn

import msgspec

from qstash_clone.domain.header_names import check_value, is_header_name
from qstash_clone.domain.header_values import HeaderLines
from qstash_clone.domain.quoting import quoted
from qstash_clone.errors import BodyTooLarge, InvalidRequest

_CONTENT_TYPES = frozenset({b"content-type", b"upstash-forward-content-type"})
_CALLBACK = b"upstash-callback"
_JSON_TYPE = (b"content-type", b"application/json")
_MAX_DECODED_TOGETHER: Final = 200_000
"""Objects, of about 100 bytes each. A body of 100 MiB can hold 30 million, so above this they are counted first."""
_SHOWN_CHARACTERS = 200
_BLANKS = re.compile(r"[ \t\n\r]*")


class BatchItem(msgspec.Struct, frozen=True):
    """One item as it was sent; null and what is missing are the same."""

    destination: str | None = None
    headers: dict[str, str | list[str]] | None = None
    body: msgspec.Raw = msgspec.Raw(b"null")
    queue: str | None = None
    callback: str | None = None
    """Another way to write `Upstash-Callback`, which wins over it."""


_decode_all = msgspec.json.Decoder(list[BatchItem]).decode
_decode_item = msgspec.json.Decoder(BatchItem).decode
_decode_string = msgspec.json.Decoder(str).decode


def parse_batch(body: bytes, max_items: int) -> list[BatchItem | InvalidRequest]:
    """The items in order; in the place of one that cannot be read stands what is wrong with it.

    Raises `InvalidRequest` for a body that is no JSON array, `BodyTooLarge` for one with more than `max_items`.
    """
    if body.count(b"{") <= _MAX_DECODED_TOGETHER:
        try:
            items: list[BatchItem | InvalidRequest] = [*_decode_all(body)]
        except (ValueError, RecursionError):
            pass  # Which item is at fault is found out below.
        else:
            if len(items) > max_items:
                raise _too_many(max_items)
            return items
    items = []
    try:
        for text in _split(body):
            if len(items) >= max_items:
                raise _too_many(max_items)
            items.append(_parse_item(text))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not a JSON array: {str(error)[:_SHOWN_CHARACTERS]}") from None
    return items


def header_lines(item: BatchItem, *, max_headers: int, max_bytes: int) -> HeaderLines:
    """The item's headers as if they had come with a request.

    A body that is not a string is JSON, and said to be unless the item names a content type. Raises `InvalidRequest`
    for names and values that no header line can have, `BodyTooLarge` for too many or too long ones.
    """
    lines: list[tuple[bytes, bytes]] = []
    size_bytes = 0
    for name, given in (item.headers or {}).items():
        raw_name = name.lower().encode()
        if not is_header_name(raw_name):
            raise InvalidRequest(f"headers: {quoted(name)} is not a header name")
        for text in (given,) if isinstance(given, str) else given:
            value = check_value(f"headers: {name}", text.encode())
            size_bytes += len(raw_name) + len(value)
            lines.append((raw_name, value))
    if item.callback and not any(name == _CALLBACK for name, _ in lines):
        lines.append((_CALLBACK, check_value("callback", item.callback.encode())))
    if len(lines) > max_headers:
        raise BodyTooLarge(f"headers: {len(lines)} are more than the limit of {max_headers}")
    if size_bytes > max_bytes:
        raise BodyTooLarge(f"headers: {size_bytes} bytes are more than the limit of {max_bytes}")
    if holds_json(item) and not any(name in _CONTENT_TYPES for name, _ in lines):
        lines.append(_JSON_TYPE)
    return lines


def body_bytes(item: BatchItem, max_bytes: int) -> bytes:
    """The body to be delivered: a string in UTF-8, anything else as JSON without blanks, nothing for null.

    Raises `InvalidRequest` for a string that is no text, `BodyTooLarge` for a body over the limit.
    """
    raw = bytes(item.body)
    if raw.startswith(b'"'):
        try:
            body = _decode_string(raw).encode()
        except ValueError as error:
            raise InvalidRequest(f"body: {str(error)[:_SHOWN_CHARACTERS]}") from None
    else:
        body = msgspec.json.format(raw, indent=-1) if holds_json(item) else b""
    if len(body) > max_bytes:
        raise BodyTooLarge(f"the body is larger than the limit of {max_bytes} bytes")
    return body


def holds_json(item: BatchItem) -> bool:
    """Whether the body is neither a string nor null."""
    return bytes(memoryview(item.body)[:5]) != b"null" and bytes(memoryview(item.body)[:1]) != b'"'


def _parse_item(text: str) -> BatchItem | InvalidRequest:
    try:
        return _decode_item(text)
    except msgspec.ValidationError as error:
        return InvalidRequest(f"the item is malformed: {error}")
    except (ValueError, RecursionError) as error:
        return InvalidRequest(f"the item cannot be read: {str(error)[:_SHOWN_CHARACTERS]}")


def _split(body: bytes) -> Iterator[str]:
    """The texts of an array's elements, one after the other. Raises `ValueError` for what is no array."""
    text = body.decode()
    at = _skip_blanks(text, 0)
    if not text.startswith("[", at):
        raise ValueError("it does not begin with [")
    at = _skip_blanks(text, at + 1)
    if not text.startswith("]", at):
        while True:
            _, end = _scanner.raw_decode(text, at)
            yield text[at:end]
            at = _skip_blanks(text, end)
            if not text.startswith(",", at):
                break
            at = _skip_blanks(text, at + 1)
    if not text.startswith("]", at):
        raise ValueError(f"there is neither , nor ] at character {at}")
    if _skip_blanks(text, at + 1) != len(text):
        raise ValueError("something follows its end")


def _skip_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    assert match is not None
    return match.end()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _ignore_number(digits: str) -> int:
    return 0  # Only the end of each element is wanted, and huge numbers take long to read.


_scanner = json.JSONDecoder(parse_int=_ignore_number, parse_float=_ignore_number, parse_constant=_refuse_constant)


def _too_many(max_items: int) -> BodyTooLarge:
    return BodyTooLarge(f"the batch has more than the limit of {max_items} items")
