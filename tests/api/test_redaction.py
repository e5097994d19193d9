"""What a publisher wants hidden is hidden wherever the api shows it, and delivered all the same."""

import base64
import hashlib

import httpx
import pytest

from qstash_clone.storage.store import Store
from tests.api.lives import claims, dead_letters, fail, publish

SECRET = "s3cret-word"
REDACTED = f"REDACTED:{hashlib.sha256(SECRET.encode()).hexdigest()}"
VIEWS = ("/v2/messages/{id}", "/v2/messages/{id}/explain", "/v2/messages", "/v2/events", "/v2/logs")


async def publish_secret(client: httpx.AsyncClient, fields: str) -> str:
    return await publish(
        client,
        body=SECRET.encode() if "body" in fields else b"open",
        Content_Type="text/plain",
        Upstash_Forward_X_Secret=SECRET if "header" in fields else "open",
        Upstash_Forward_X_Open="open",
        Upstash_Callback="https://example.com/cb",
        Upstash_Callback_Forward_X_Secret=SECRET if "header" in fields else "open",
        Upstash_Redact_Fields=fields,
        Upstash_Delay="1h",
    )


@pytest.mark.parametrize("fields", ["body", "header", "headers", "header[x-SECRET]", "body, headers[X-Secret]"])
async def test_no_view_shows_what_is_redacted(client: httpx.AsyncClient, fields: str) -> None:
    message_id = await publish_secret(client, fields)
    for view in VIEWS:
        answer = await client.get(view.format(id=message_id))
        assert answer.status_code == 200, view
        for secret in (SECRET, base64.b64encode(SECRET.encode()).decode()):
            assert secret not in answer.text, view
    message = (await client.get(f"/v2/messages/{message_id}")).json()
    [entry] = (await client.get("/v2/events")).json()["events"]
    if "body" in fields:
        assert message["body"] == REDACTED
        assert base64.b64decode(entry["body"]).decode() == REDACTED
    if "header" in fields:
        for shown in (message["header"], message["callbackHeader"], entry["header"], entry["callbackHeaders"]):
            assert shown["X-Secret"] == [REDACTED]
    if "[" in fields:
        assert message["header"]["X-Open"] == ["open"]


async def test_a_dead_letter_hides_it_and_a_delivery_has_it(client: httpx.AsyncClient, store: Store) -> None:
    await publish(
        client, body=SECRET.encode(), Upstash_Forward_X_Secret=SECRET, Upstash_Redact_Fields="body,header[X-Secret]"
    )
    [claim] = await claims(store)
    assert claim.body == SECRET.encode()
    assert claim.message.headers == (("X-Secret", SECRET),)
    await store.delivery.release([claim])
    await fail(store)
    [letter] = await dead_letters(client)
    assert letter["body"] == REDACTED
    assert letter["header"] == {"X-Secret": [REDACTED]}
    assert SECRET not in (await client.get(f"/v2/dlq/{letter['dlqId']}")).text


async def test_a_retry_keeps_the_original_and_cannot_undo_the_redaction(
    client: httpx.AsyncClient, store: Store
) -> None:
    await publish(client, body=SECRET.encode(), Upstash_Forward_X=SECRET, Upstash_Redact_Fields="body")
    await fail(store)
    [letter] = await dead_letters(client)
    answer = await client.post(f"/v2/dlq/retry/{letter['dlqId']}", headers={"Upstash-Redact-Fields": "header[X]"})
    assert answer.status_code == 201
    message = (await client.get(f"/v2/messages/{answer.json()['messageId']}")).json()
    assert (message["body"], message["header"]) == (REDACTED, {"X": [REDACTED]})
    [claim] = await claims(store)
    assert (claim.body, claim.message.headers) == (SECRET.encode(), (("X", SECRET),))


async def test_an_empty_body_is_not_shown_as_redacted(client: httpx.AsyncClient) -> None:
    message_id = await publish(client, Upstash_Redact_Fields="body")
    message = (await client.get(f"/v2/messages/{message_id}")).json()
    assert not {"body", "bodyBase64"} & set(message)
