"""A publisher that speaks plain HTTP, and the receiver's side of it: checking that a delivery is what was asked for."""

import base64
import hashlib
import json
import urllib.parse
from typing import Any

import jwt
from qstash import Receiver as SignatureReceiver

from qstash_clone.settings import Settings
from tests.support.gates import PASSES_BY
from tests.support.raw_http import Answer, Headers, RawHttp
from tests.support.receiver import ReceivedRequest, Receiver


class Client:
    """Calls one api with the right token."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        self.settings = settings
        self.http = RawHttp(urllib.parse.urlsplit(url).port or 80)

    async def call(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Answer:
        """One request with the token."""
        return await self.http.request(
            method, target, [("Authorization", f"Bearer {self.settings.token}"), *headers], body
        )

    async def publish(self, destination: str, body: bytes = b"", headers: Headers = ()) -> str:
        """Publish, which must succeed, and return the message's id."""
        answer = await self.call("POST", f"/v2/publish/{destination}", headers, body)
        assert answer.status == 200, answer
        return answer.json()["messageId"]

    async def enqueue(self, queue: str, destination: str, body: bytes = b"", headers: Headers = ()) -> str:
        """Enqueue, which must succeed, and return the message's id."""
        answer = await self.call("POST", f"/v2/enqueue/{queue}/{destination}", headers, body)
        assert answer.status == 200, answer
        return answer.json()["messageId"]

    async def send(self, method: str, target: str, fields: object = None) -> Any:
        """One request with a JSON body, or none, which must succeed; the answer's JSON."""
        body = b"" if fields is None else json.dumps(fields).encode()
        answer = await self.call(method, target, body=body)
        assert answer.status in (200, 201), (method, target, answer)
        return answer.json()

    async def message(self, message_id: str) -> dict[str, Any] | None:
        """The message as the api shows it; None if it is not found."""
        answer = await self.call("GET", f"/v2/messages/{message_id}")
        assert answer.status in (200, 404), answer
        return answer.json() if answer.status == 200 else None

    async def states(self, message_id: str) -> list[str]:
        """The states in the log of a message, oldest first."""
        events = (await self.send("GET", f"/v2/events?messageId={message_id}"))["events"]
        return [event["state"] for event in reversed(events)]

    async def pass_by(self, receiver: Receiver) -> None:
        """A plain message is delivered: what was free to go before it has gone as well."""
        before = sum(request.path == PASSES_BY for request in receiver.requests)
        await self.publish(receiver.url + PASSES_BY)
        await receiver.wait_for(before + 1, path=PASSES_BY)

    async def cancel(self, message_id: str) -> Answer:
        return await self.call("DELETE", f"/v2/messages/{message_id}")

    async def dead_letters(self) -> list[dict[str, Any]]:
        """All of them, newest first."""
        letters: list[dict[str, Any]] = []
        target = "/v2/dlq?order=latestFirst"
        while True:
            answer = await self.call("GET", target)
            assert answer.status == 200, answer
            letters += answer.json()["messages"]
            if "cursor" not in answer.json():
                return letters
            target = f"/v2/dlq?order=latestFirst&cursor={answer.json()['cursor']}"

    async def dead_letter_of(self, message_id: str) -> dict[str, Any] | None:
        """The dead letter that a message became, if it did."""
        return next((letter for letter in await self.dead_letters() if letter["messageId"] == message_id), None)


def check_signature(request: ReceivedRequest, url: str, current_key: str, next_key: str) -> dict[str, Any]:
    """Assert that the official receiver accepts a delivery that was sent to `url`; returns the token's claims."""
    signature = request.header("upstash-signature")
    assert signature is not None, request
    try:
        text = request.body.decode()
    except UnicodeDecodeError:
        pass  # The official receiver takes text only; what it would compare is compared below.
    else:
        SignatureReceiver(current_key, next_key).verify(signature=signature, body=text, url=url)
    claims: dict[str, Any] = jwt.decode(  # pyright: ignore[reportUnknownMemberType]
        signature, current_key, algorithms=["HS256"], issuer="Upstash"
    )
    assert jwt.get_unverified_header(signature) == {"alg": "HS256", "typ": "JWT"}
    assert claims["sub"] == url
    assert claims["body"] == base64.urlsafe_b64encode(hashlib.sha256(request.body).digest()).decode()
    return claims
