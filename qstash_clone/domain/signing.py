"""The `Upstash-Signature` token by which a receiver knows that a delivery is genuine and unchanged."""

import hashlib
import hmac
from base64 import urlsafe_b64encode

import msgspec

VALIDITY_S = 300
"""How long receivers accept a token after it was issued."""

_ISSUER = "Upstash"


class _Claims(msgspec.Struct, frozen=True):
    iss: str
    sub: str
    exp: int
    nbf: int
    iat: int
    jti: str
    body: str


# No JWT library here: measured, one token takes 3 us this way and 16 us with PyJWT, and each delivery makes one.
# The tests verify with PyJWT and with the receiver of the official SDK.
_encode_claims = msgspec.json.Encoder().encode
_HEADER_SEGMENT = urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=") + b"."


def sign(key: str, *, url: str, body: bytes, issued_at_s: int, jwt_id: str) -> str:
    """A compact JWT over destination and body, by HMAC-SHA256 with the text of `key`; docs/protocol/signatures.md.

    `url` is the destination exactly as published, `body` the bytes that are sent, `issued_at_s` unix time rounded
    down (receivers refuse a time in their future), `jwt_id` unique for each token.
    """
    claims = _Claims(
        iss=_ISSUER,
        sub=url,
        exp=issued_at_s + VALIDITY_S,
        # Zero, not the time of issue: a receiver whose clock is behind would refuse that.
        nbf=0,
        iat=issued_at_s,
        jti=jwt_id,
        # With padding, unlike the segments: some receivers compare the padded form.
        body=urlsafe_b64encode(hashlib.sha256(body).digest()).decode("ascii"),
    )
    signed = _HEADER_SEGMENT + urlsafe_b64encode(_encode_claims(claims)).rstrip(b"=")
    signature = urlsafe_b64encode(hmac.digest(key.encode(), signed, "sha256")).rstrip(b"=")
    return (signed + b"." + signature).decode("ascii")
