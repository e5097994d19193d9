"""Tokens, verified by an independent JWT library and by the official SDK."""

import base64
import hashlib
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qstash import Receiver
from qstash.errors import SignatureError

from qstash_clone.domain.signing import sign

KEY = "sig_0123456789abcdefghijklmnopqr"
OTHER_KEY = "sig_rqponmlkjihgfedcba9876543210"
URL = "https://example.com/hook?a=1&b=%2F"
NOW_S = 1_700_000_000


def token(body: bytes = b"hello", url: str = URL, issued_at_s: int = NOW_S) -> str:
    return sign(KEY, url=url, body=body, issued_at_s=issued_at_s, jwt_id="jwt_0123456789abcdefghij")


def claims_of(text: str) -> dict[str, Any]:
    return jwt.decode(  # pyright: ignore[reportUnknownMemberType]
        text, KEY, algorithms=["HS256"], options={"verify_exp": False}
    )


def segments_of(text: str) -> list[bytes]:
    return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split(".")]


def test_claims_are_exactly_those_of_the_protocol() -> None:
    assert claims_of(token()) == {
        "iss": "Upstash",
        "sub": URL,
        "exp": NOW_S + 300,
        "nbf": 0,
        "iat": NOW_S,
        "jti": "jwt_0123456789abcdefghij",
        "body": base64.urlsafe_b64encode(hashlib.sha256(b"hello").digest()).decode(),
    }


def test_header_names_the_algorithm() -> None:
    assert json.loads(segments_of(token())[0]) == {"alg": "HS256", "typ": "JWT"}


def test_segments_are_unpadded_and_the_body_claim_is_padded() -> None:
    text = token(body=b"")
    assert "=" not in text
    assert claims_of(text)["body"] == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="


def test_another_key_does_not_verify() -> None:
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token(), OTHER_KEY, algorithms=["HS256"])  # pyright: ignore[reportUnknownMemberType]


@given(body=st.binary(max_size=200), url=st.text(max_size=80), issued_at_s=st.integers(0, 2**40))
def test_any_body_and_url_survive(body: bytes, url: str, issued_at_s: int) -> None:
    claims = claims_of_unverified(token(body=body, url=url, issued_at_s=issued_at_s))
    assert claims["sub"] == url
    assert base64.urlsafe_b64decode(claims["body"]) == hashlib.sha256(body).digest()
    assert claims["exp"] - claims["iat"] == 300


def claims_of_unverified(text: str) -> dict[str, Any]:
    # The library's own check of `iat` would compare with this machine's clock.
    return json.loads(segments_of(text)[1])


@given(position=st.integers(0), character=st.sampled_from("AZaz09-_"))
def test_a_changed_token_does_not_verify(position: int, character: str) -> None:
    text = token()
    at = position % len(text)
    changed = text[:at] + character + text[at + 1 :]
    if segments_of_or_none(changed) == segments_of(text):
        return  # only unused bits of the last character differ
    with pytest.raises(jwt.InvalidTokenError):
        claims_of(changed)


def segments_of_or_none(text: str) -> list[bytes] | None:
    try:
        return segments_of(text)
    except ValueError:
        return None


@pytest.mark.parametrize("body", ["", "hello", '{"a": "ü"}'])
def test_the_official_receiver_accepts_it(body: str) -> None:
    text = token(body=body.encode(), issued_at_s=int(time.time()))
    Receiver(KEY, OTHER_KEY).verify(signature=text, body=body, url=URL)
    Receiver(OTHER_KEY, KEY).verify(signature=text, body=body, url=URL)


@pytest.mark.parametrize(
    ("current", "body", "url"), [(OTHER_KEY, "hello", URL), (KEY, "hello!", URL), (KEY, "hello", URL + "/")]
)
def test_the_official_receiver_rejects_what_differs(current: str, body: str, url: str) -> None:
    text = token(issued_at_s=int(time.time()))
    with pytest.raises(SignatureError):
        Receiver(current, OTHER_KEY).verify(signature=text, body=body, url=url)


def test_the_official_receiver_rejects_an_expired_token() -> None:
    text = token(issued_at_s=int(time.time()) - 301)
    with pytest.raises(SignatureError):
        Receiver(KEY, OTHER_KEY).verify(signature=text, body="hello", url=URL)
