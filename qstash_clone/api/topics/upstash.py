"""What all routes of Upstash's Kafka REST API have in common: credentials and the shape of errors."""

from qstash_clone.api.errors import Header, answer_of, stopping_answer
from qstash_clone.api.requests import Head
from qstash_clone.api.topics.authorization import password_of
from qstash_clone.api.topics.calls import Answer, json_answer
from qstash_clone.api.topics.credentials import Credentials, Grant
from qstash_clone.api.topics.queries import first_value
from qstash_clone.api.topics.table import TopicApi
from qstash_clone.errors import QuotaExceeded, Unauthorized
from qstash_clone.settings import Settings
from qstash_clone.topics.producing import NotConfirmed

MAX_URL_BYTES = 16 * 1024
_CHALLENGE: Header = (b"www-authenticate", b'Basic realm="kafka", charset="UTF-8"')
_RETRY: Header = (b"retry-after", b"1")
_MISSING = (
    "unauthorized: send the token as the password of `Authorization: Basic` or as `Authorization: Bearer <token>`"
)


class UpstashApi:
    """The common part of its routes, and of that of its webhook."""

    def __init__(self, settings: Settings) -> None:
        self._credentials = Credentials(settings)
        self.api = TopicApi(self._authenticate, error_answer, MAX_URL_BYTES)
        self.webhook = TopicApi(self._authenticate_webhook, error_answer, MAX_URL_BYTES)

    def _authenticate(self, head: Head) -> Grant:
        header = head.first.get(b"authorization")
        if header is None:
            raise Unauthorized(_MISSING)
        scheme, _, rest = header.partition(b" ")
        match scheme.lower():
            case b"basic":
                return self._grant(password_of(rest))
            case b"bearer":
                return self._grant(rest.strip())
            case _:
                raise Unauthorized(_MISSING)

    def _authenticate_webhook(self, head: Head) -> Grant:
        """The header decides alone where there is one; senders that cannot set it have their token in the URL."""
        if b"authorization" not in head.first:
            password = first_value(head.query, "pass")
            if password is not None:
                return self._grant(password.encode())
        return self._authenticate(head)

    def _grant(self, token: bytes) -> Grant:
        grant = self._credentials.find(token)
        if grant is None:
            raise Unauthorized("unauthorized: the token is not valid")
        return grant


def error_answer(error: BaseException, head: Head) -> Answer:
    """`{"error": <text>, "status": <status>}`."""
    shown = answer_of(error, head.request_id.decode()) if isinstance(error, Exception) else stopping_answer()
    match error:
        case Unauthorized():
            return _error(shown.status, shown.text, (_CHALLENGE,))
        case QuotaExceeded():
            return _error(429, shown.text, (_RETRY,))
        case NotConfirmed():
            cause = answer_of(error.cause, "")
            text = f"message {error.index} is not confirmed, others may be stored: {cause.text}"
            return _error(cause.status, text, cause.headers)
        case _:
            return _error(shown.status, shown.text, shown.headers)


def _error(status: int, text: str, headers: tuple[Header, ...]) -> Answer:
    return json_answer({"error": text.encode("utf-8", "replace").decode(), "status": status}, status, headers)
