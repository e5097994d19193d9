"""Requests for the transport's tests."""

from qstash_clone.domain.delivery import OutgoingRequest

TIMEOUT_MS = 10_000


def post(url: str, body: bytes = b"hello", headers: tuple[tuple[str, str], ...] = ()) -> OutgoingRequest:
    return OutgoingRequest("POST", url, headers, body)
