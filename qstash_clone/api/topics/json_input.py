"""JSON as the Kafka REST APIs take it: strict, but for a byte-order mark and for commas at the end of a list."""

import re
from typing import Final, TypeVar

import msgspec

from qstash_clone.errors import InvalidRequest

_T = TypeVar("_T")

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# A string that never ends is taken to the end of the text: trying again from each quote in it would take for ever.
_STRING_OR_COMMA: Final = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+"?)|,(?=[ \t\r\n]*+[\]}])', re.DOTALL)


def parse_json(body: bytes, decoder: "msgspec.json.Decoder[_T]") -> _T:
    """What the body holds; if it is no JSON, then what it would without commas right before a closing bracket.

    Raises `InvalidRequest`; and `msgspec.ValidationError` for JSON that is not what the decoder is for.
    """
    if body[:3] == _BYTE_ORDER_MARK:
        body = body[3:]
    if not body.isascii():
        # The decoder looks at what it keeps only.
        try:
            body.decode()
        except UnicodeDecodeError:
            raise InvalidRequest("the body is not valid UTF-8") from None
    if not body or body.isspace():
        raise InvalidRequest("the body is empty")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, RecursionError) as strict:
        try:
            return decoder.decode(without_trailing_commas(body))
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, RecursionError):
            raise InvalidRequest(f"the body is not JSON: {str(strict)[:100]}") from None


def without_trailing_commas(text: bytes) -> bytes:
    """The text without commas outside of strings that only blanks keep apart from the bracket they stand before."""
    return _STRING_OR_COMMA.sub(rb"\1", text)
