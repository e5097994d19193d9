"""How an error becomes an answer: the one place that knows HTTP statuses."""

from collections.abc import Sequence
from typing import Final

import msgspec

from qstash_clone.errors import (
    BodyTooLarge,
    CallerError,
    Forbidden,
    InvalidRequest,
    LengthRequired,
    MethodNotAllowed,
    NotFound,
    QuotaExceeded,
    RateLimited,
    StorageError,
    StorageFull,
    Unauthorized,
    UnsupportedMediaType,
    UrlTooLong,
)

Header = tuple[bytes, bytes]


class WrongMethod(MethodNotAllowed):
    """A path that exists, asked with a method that it does not have."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        self.allowed = ", ".join(allowed)
        super().__init__(f"{method} is not allowed here, only {self.allowed}")


class TooManyRequests(RateLimited):
    """A request over the limit of this second."""

    def __init__(self, text: str, headers: tuple[Header, ...]) -> None:
        self.headers = headers
        super().__init__(text)


STATUSES: Final[dict[type[Exception], int]] = {
    InvalidRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    QuotaExceeded: 412,
    LengthRequired: 411,
    BodyTooLarge: 413,
    UnsupportedMediaType: 415,
    UrlTooLong: 414,
    RateLimited: 429,
    StorageError: 503,
}
"""A subclass that is not listed answers like the class above it; anything else is a 500."""

_STORE_AWAY_TEXT = "the store does not answer at the moment, try again"
_STORE_FULL_TEXT = "the store is full, try again later"
_STOPPING_TEXT = "the service is stopping; the request may have been carried out"
_RETRY_AWAY: Header = (b"retry-after", b"1")
_RETRY_FULL: Header = (b"retry-after", b"10")
_CHALLENGE: Header = (b"www-authenticate", b"Bearer")


class ErrorAnswer(msgspec.Struct, frozen=True):
    """What the client gets to see of an error."""

    status: int
    text: str
    headers: tuple[Header, ...] = ()


def answer_of(error: Exception, request_id: str) -> ErrorAnswer:
    """The answer to a request that ended with this error; never shows what only operators should see."""
    status = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)
    match error:
        case StorageFull():
            return ErrorAnswer(status, _STORE_FULL_TEXT, (_RETRY_FULL,))
        case StorageError():
            return ErrorAnswer(status, _STORE_AWAY_TEXT, (_RETRY_AWAY,))
        case Unauthorized():
            return ErrorAnswer(status, str(error), (_CHALLENGE,))
        case WrongMethod():
            return ErrorAnswer(status, str(error), ((b"allow", error.allowed.encode()),))
        case TooManyRequests():
            return ErrorAnswer(status, str(error), (_RETRY_AWAY, *error.headers))
        case CallerError() if status != 500:
            return ErrorAnswer(status, str(error))
        case _:
            return ErrorAnswer(500, f"internal error, request id {request_id}")


def stopping_answer() -> ErrorAnswer:
    """For a request that was still under way when the time to stop was over."""
    return ErrorAnswer(503, _STOPPING_TEXT, (_RETRY_AWAY,))


def error_body(text: str) -> bytes:
    """`{"error": "..."}`."""
    return msgspec.json.encode({"error": text.encode("utf-8", "replace").decode()})
