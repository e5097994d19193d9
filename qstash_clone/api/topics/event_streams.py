"""What the two producer APIs of IBM Event Streams have in common."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

from qstash_clone.api.errors import ErrorAnswer, Header, answer_of, stopping_answer
from qstash_clone.api.requests import Head
from qstash_clone.api.topics.credentials import Credentials, Grant
from qstash_clone.errors import QuotaExceeded, StorageTimeout, Unauthorized

MAX_BODY_BYTES: Final = 65_536
MAX_KEY_BYTES: Final = 4_096
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RETRY: Final[Header] = (b"retry-after", b"1")
_SLOW_TEXT: Final = "the store did not confirm in time; the message may be stored"


def find_grant(credentials: Credentials, token: bytes) -> Grant:
    """What a token allows. Raises `Unauthorized` for one that is not known."""
    grant = credentials.find(token)
    if grant is None:
        raise Unauthorized("unauthorized: the token is not valid")
    return grant


def describe_error(error: BaseException, head: Head) -> ErrorAnswer:
    """Status, text and headers of the answer to a request that ended with this error."""
    if not isinstance(error, Exception):
        return stopping_answer()
    match error:
        case StorageTimeout():
            return ErrorAnswer(408, _SLOW_TEXT, (_RETRY,))
        case QuotaExceeded():
            return ErrorAnswer(429, str(error), (_RETRY,))
        case _:
            return answer_of(error, head.request_id.decode())


def new_trace() -> str:
    """Names one error, in the answer and in the log."""
    return str(uuid.uuid4())


def shown_time(timestamp_ms: int) -> str:
    """Milliseconds of Unix time as RFC 3339 has it, in UTC."""
    return (_EPOCH + timedelta(milliseconds=timestamp_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def media_type_of(head: Head) -> bytes:
    """The content type without its parameters; empty without one."""
    return head.first.get(b"content-type", b"").partition(b";")[0].strip().lower()
