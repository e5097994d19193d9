"""A service that speaks the QStash API, as a command sees it: requests with a token, and errors in sentences."""

import re
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias, cast

import httpx
import msgspec

from qstash_clone.errors import ConfigurationError, ServiceFailed

Fields: TypeAlias = dict[str, Any]
"""An object of the API."""
HeaderLine: TypeAlias = tuple[bytes, bytes]

_TOKEN = re.compile("[!-~]+")
_TIMEOUT_S = 30.0
_MAX_WAITS = 10
_LONGEST_WAIT_S = 5.0
"""Limits on management requests are for a second."""
_SHOWN_CHARACTERS = 300


class RequestRefused(Exception):
    """The service says that this request is wrong; others may be right. The text is the service's."""


class RemoteService:
    """One service. A context manager: its connections are closed at the end.

    `secret` is the name of the variable that the token comes from. The token is never part of an error.
    """

    def __init__(
        self, option: str, url: str, secret: str, token: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.url = _checked_url(option, url)
        self._secret = secret
        self._token = token.strip()
        self._sleep = sleep
        if not _TOKEN.fullmatch(self._token):
            raise ConfigurationError(f"{secret}: there is a character in it that no token has.")
        self._client = httpx.Client(headers={"Authorization": f"Bearer {self._token}"}, timeout=_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def list(self, path: str) -> list[Fields]:
        """The objects of a list. Raises as `send`, and `ServiceFailed` if the answer is not such a list."""
        answer = self._request("GET", path)
        if answer.status_code == 404:
            raise ServiceFailed(f"{self.url} has no {path}: is this the address of a QStash service?")
        self._check(answer)
        listed = self._json(answer)
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in cast("list[object]", listed)):
            raise ServiceFailed(f"{self.url} answers GET {path} with something that is not a list of objects.")
        return cast("list[Fields]", listed)

    def find(self, path: str) -> Fields | None:
        """An object, None if there is none. Raises as `list`."""
        answer = self._request("GET", path)
        if answer.status_code == 404:
            return None
        self._check(answer)
        found = self._json(answer)
        if not isinstance(found, dict):
            raise ServiceFailed(f"{self.url} answers GET {path} with something that is not an object.")
        return cast("Fields", found)

    def send(
        self,
        method: str,
        path: str,
        *,
        fields: Fields | None = None,
        headers: Sequence[HeaderLine] = (),
        body: bytes = b"",
    ) -> None:
        """A request that changes something, with `fields` as JSON or with a body as it is.

        Raises `RequestRefused` where the service says that the request is wrong, `ServiceFailed` where it does not
        answer or cannot do it, and `ConfigurationError` where it does not accept the token.
        """
        content = body if fields is None else msgspec.json.encode(fields)
        self._check(self._request(method, path, headers, content))

    def _request(
        self, method: str, path: str, headers: Sequence[HeaderLine] = (), content: bytes = b""
    ) -> httpx.Response:
        for _ in range(_MAX_WAITS):
            try:
                answer = self._client.request(method, self.url + path, headers=list(headers), content=content)
            except httpx.TimeoutException as error:
                raise ServiceFailed(f"{self.url} does not answer within {_TIMEOUT_S:.0f} s.") from error
            except httpx.LocalProtocolError as error:
                raise RequestRefused(f"it cannot be sent: {self._without_token(str(error))}") from error
            except (httpx.TransportError, httpx.DecodingError) as error:
                raise ServiceFailed(f"{self.url} cannot be reached: {self._without_token(str(error))}.") from error
            # A daily limit does not end while a command waits.
            if answer.status_code != 429 or "ratelimit-limit" in answer.headers:
                return answer
            self._sleep(_wait_s(answer))
        raise ServiceFailed(f"{self.url} answers 429 to every request: its limit is reached again and again.")

    def _check(self, answer: httpx.Response) -> None:
        status, request = answer.status_code, answer.request
        if 200 <= status < 300:
            return
        if status in (401, 403):
            what = "does not accept" if status == 401 else "does not allow this with"
            raise ConfigurationError(f"{self.url} {what} the token of {self._secret}.")
        text = self._reason(answer)
        if 400 <= status < 500 and status != 429:
            raise RequestRefused(text)
        raise ServiceFailed(f"{self.url} answers {status} to {request.method} {request.url.path}: {text}")

    def _json(self, answer: httpx.Response) -> object:
        try:
            return msgspec.json.decode(answer.content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ServiceFailed(
                f"{self.url} answers something that is not JSON: is this the address of a QStash service?"
            ) from None

    def _reason(self, answer: httpx.Response) -> str:
        try:
            decoded: object = msgspec.json.decode(answer.content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            decoded = None
        text = cast("Fields", decoded).get("error") if isinstance(decoded, dict) else None
        shown = text if isinstance(text, str) else answer.text
        return " ".join(self._without_token(shown)[:_SHOWN_CHARACTERS].split()) or "no reason given"

    def _without_token(self, text: str) -> str:
        return text.replace(self._token, "***")


def _checked_url(option: str, text: str) -> str:
    """The address without a slash at its end. Raises `ConfigurationError` for what is none."""
    try:
        url = httpx.URL(text.strip())
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ConfigurationError(f"{option}: give the address of a service, such as http://127.0.0.1:8080.")
    if url.userinfo:
        raise ConfigurationError(f"{option}: the address must not have a user and a password in it.")
    return str(url).rstrip("/")


def _wait_s(answer: httpx.Response) -> float:
    """How long until the limit of this second has passed, as far as the answer says."""
    try:
        until_reset_s = float(answer.headers["burst-ratelimit-reset"]) - time.time()
    except (KeyError, ValueError):
        return 1.0
    return min(max(until_reset_s, 0.0), _LONGEST_WAIT_S)
