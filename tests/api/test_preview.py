"""`POST /v2/preview/retries`."""

import json
import time

import httpx
import pytest


async def test_the_default_backoff(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v2/preview/retries")
    assert answer.status_code == 200
    preview = answer.json()
    assert abs(preview["now"] - time.time() * 1000) < 60_000
    delays = [7_000, 54_000, 403_000]
    assert preview["retries"] == [
        {"retry": index + 1, "delay": delay, "time": preview["now"] + sum(delays[: index + 1]), "isDefault": True}
        for index, delay in enumerate(delays)
    ]
    assert "expression" not in preview


async def test_an_expression(client: httpx.AsyncClient) -> None:
    given = {"expression": "1000 * (1 + retried)", "count": 4}
    preview = (await client.post("/v2/preview/retries", json=given)).json()
    assert preview["expression"] == given["expression"]
    assert [retry["delay"] for retry in preview["retries"]] == [1000, 2000, 3000, 4000]
    assert [retry["time"] - preview["now"] for retry in preview["retries"]] == [1000, 3000, 6000, 10_000]
    assert not any(retry["isDefault"] for retry in preview["retries"])


async def test_an_expression_without_a_value_falls_back(client: httpx.AsyncClient) -> None:
    given = {"expression": "1000 / retried", "count": 2}
    retries = (await client.post("/v2/preview/retries", json=given)).json()["retries"]
    assert [(retry["delay"], retry["isDefault"]) for retry in retries] == [(7_000, True), (1000, False)]


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
async def test_the_body_is_json_whatever_its_type_says(client: httpx.AsyncClient, content_type: str) -> None:
    answer = await client.post(
        "/v2/preview/retries", content=b'{"expression": null, "count": 1}', headers={"Content-Type": content_type}
    )
    assert len(answer.json()["retries"]) == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"[]", "not a JSON object"),
        (b"7", "not a JSON object"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'"\xff"', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"count": 0}', 'count: invalid number "0"'),
        (b'{"count": 1001}', "from 1 to 1000"),
        (b'{"count": "3"}', "count: invalid number"),
        (b'{"count": true}', "count: invalid number"),
        (b'{"count": 1.5}', "count: invalid number"),
        (b'{"expression": 5}', "expression: give a string"),
        (b'{"expression": "1 +"}', 'expression: invalid expression "1 +"'),
        (b'{"expression": "__import__(1)"}', "expression: invalid expression"),
        (json.dumps({"retries": 3}).encode(), '"retries" is not a field'),
    ],
    ids=range(15),
)
async def test_what_is_no_preview_is_refused(client: httpx.AsyncClient, body: bytes, text: str) -> None:
    answer = await client.post("/v2/preview/retries", content=body)
    assert answer.status_code == 400
    assert text in answer.json()["error"]


async def test_a_body_has_a_limit(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v2/preview/retries", content=b" " * 1_048_577)).status_code == 413
