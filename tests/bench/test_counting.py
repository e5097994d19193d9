"""What makes a run fail: messages that are missing, repeated, unknown or not properly signed."""

from typing import Any

import pytest

from bench.report import BenchFailure
from bench.service import check_arrivals
from bench.tools.receiver import is_signed
from bench.tools.samples import BODY, destination
from qstash_clone.clock import SystemClock
from qstash_clone.domain.signing import sign

KEY = "sig_testcurrent0123456789abcdefgh"
PORT = 54321
ORIGIN = f"http://127.0.0.1:{PORT}"


def _arrived(*message_ids: str, unsigned: int = 0) -> dict[str, Any]:
    return {"message_ids": list(message_ids), "unsigned": unsigned}


def test_each_expected_message_once_is_what_is_wanted() -> None:
    check_arrivals(["a", "b"], _arrived("b", "a"), "deliver")


@pytest.mark.parametrize(
    ("arrived", "complaint"),
    [
        (_arrived("a"), "1 are missing"),
        (_arrived("a", "b", "b"), "1 arrived again"),
        (_arrived("a", "b", "c"), "1 are unknown"),
        (_arrived("a", "b", unsigned=2), "2 have no valid signature"),
    ],
)
def test_anything_else_fails_the_run(arrived: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BenchFailure, match=complaint):
        check_arrivals(["a", "b"], arrived, "deliver")


def _delivery(*, key: str = KEY, url: str | None = None, signed_body: bytes = BODY, age_s: int = 0) -> bytes:
    sent_to = destination(PORT)
    issued_at_s = SystemClock().now_ms() // 1000 - age_s
    token = sign(key, url=url or sent_to, body=signed_body, issued_at_s=issued_at_s, jwt_id="1")
    path = "/" + sent_to.split("/", 3)[3]
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nUpstash-Signature: {token}\r\n"
    return f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY


def test_a_delivery_signed_by_the_service_is_accepted() -> None:
    assert is_signed(_delivery(), KEY, ORIGIN)


@pytest.mark.parametrize(
    "request_bytes",
    [
        _delivery(key="another"),
        _delivery(url=f"{ORIGIN}/elsewhere"),
        _delivery(signed_body=b"another"),
        _delivery(age_s=3600),
        _delivery().replace(b"Upstash-Signature", b"Upstash-Something"),
    ],
    ids=["wrong key", "other destination", "other body", "expired", "no signature"],
)
def test_a_delivery_with_anything_wrong_is_not(request_bytes: bytes) -> None:
    assert not is_signed(request_bytes, KEY, ORIGIN)
