"""The HTTP request that an attempt sends."""

import msgspec

from qstash_clone.domain.header_names import forwardable_name
from qstash_clone.domain.llm import LlmUpstream
from qstash_clone.domain.message import Claim, Headers
from qstash_clone.ids import format_message_id

_AUTHORIZATION = "Authorization"
_USER_AGENT = "User-Agent"
_PRODUCT = "Upstash-QStash"


class OutgoingRequest(msgspec.Struct, frozen=True):
    """What goes to the destination; the transport adds only `Host` and `Content-Length`."""

    method: str
    url: str
    """Exactly as published."""
    headers: Headers
    """Values are bytes decoded as latin-1."""
    body: bytes


def build_request(
    claim: Claim, body: bytes, signature: str, region: str | None = None, llm: LlmUpstream | None = None
) -> OutgoingRequest:
    """The request of this attempt, see docs/protocol/delivery.md.

    `body` is the whole body (the claim may hold only a part of it), `signature` the token made for it. A message for
    `llm` gets its key, in place of any that its publisher forwards.
    """
    message = claim.message
    key = llm.key if llm is not None and llm.takes(message) else ""
    headers: list[tuple[str, str]] = []
    has_user_agent = False
    for line in message.headers:
        # Checked when it was published as well, but by the release that ran then.
        if forwardable_name(line[0].encode("ascii")) is None:
            continue
        if key and line[0] == _AUTHORIZATION:
            continue
        if line[0] == _USER_AGENT:
            has_user_agent = True
        headers.append(line)
    if not has_user_agent:
        headers.append((_USER_AGENT, _PRODUCT))
    if key:
        headers.append((_AUTHORIZATION, f"Bearer {key}"))
    headers.append(("Upstash-Signature", signature))
    headers.append(("Upstash-Message-Id", format_message_id(claim.id)))
    headers.append(("Upstash-Retried", str(claim.retried)))
    headers.append(("Upstash-Caller-Ip", message.caller_ip))
    extras = message.extras
    if extras is not None:
        if extras.schedule_id is not None:
            headers.append(("Upstash-Schedule-Id", extras.schedule_id))
        if extras.url_group is not None:
            headers.append(("Upstash-Topic-Name", extras.url_group))
    if region is not None:
        headers.append(("Upstash-Region", region))
    return OutgoingRequest(message.method, message.url, tuple(headers), body)
