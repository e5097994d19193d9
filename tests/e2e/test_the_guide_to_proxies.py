"""docs/howto/verify-signatures-behind-a-proxy.md: its programs, for a delivery that a proxy has passed on."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qstash.errors import SignatureError

from tests.e2e import typescript_sdk
from tests.support.client import Client
from tests.support.receiver import ReceivedRequest, Receiver

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "verify-signatures-behind-a-proxy.md"
PREFIX = "/hooks"
TARGET = "/orders?a=%2F&b"
"""What the application sees of `PREFIX + TARGET`."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def environ_of(client: Client, receiver: Receiver) -> dict[str, str]:
    return {
        "PUBLIC_URL": receiver.url + PREFIX,
        "QSTASH_CURRENT_SIGNING_KEY": client.settings.current_signing_key,
        "QSTASH_NEXT_SIGNING_KEY": client.settings.next_signing_key,
    }


async def delivered(client: Client, receiver: Receiver) -> ReceivedRequest:
    await client.publish(receiver.url + PREFIX + TARGET, '{"order": "\u00e4"}'.encode())
    [request] = await receiver.wait_for(1)
    return request


async def test_one_public_address(client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environ_of(client, receiver).items():
        monkeypatch.setenv(name, value)
    request = await delivered(client, receiver)
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    verify: Callable[..., None] = names["verify"]
    headers = {"upstash-signature": request.header("upstash-signature")}
    verify(headers, request.body, TARGET)
    for body, target in ((request.body + b" ", TARGET), (request.body, TARGET + "/"), (request.body, PREFIX + TARGET)):
        with pytest.raises(SignatureError):
            verify(headers, body, target)


async def test_several_public_addresses() -> None:
    names: dict[str, Any] = {}
    exec(blocks("python")[1], names)
    told = {"x-forwarded-proto": "https", "x-forwarded-host": "shop.example.com"}
    assert names["published_url"](told, TARGET) == f"https://shop.example.com{TARGET}"
    for prefix in (PREFIX, PREFIX + "/"):
        url = names["published_url"](told | {"x-forwarded-prefix": prefix}, TARGET)
        assert url == f"https://shop.example.com{PREFIX}{TARGET}"


async def test_the_claims_are_shown(client: Client, receiver: Receiver) -> None:
    request = await delivered(client, receiver)
    [command] = blocks("sh")
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        command.replace("python3", sys.executable),
        env=os.environ | {"SIGNATURE": request.header("upstash-signature") or ""},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 10)
    assert f'"sub":"{receiver.url}{PREFIX}{TARGET}"' in output.decode()


if typescript_sdk.IS_INSTALLED:

    async def test_one_public_address_in_javascript(client: Client, receiver: Receiver) -> None:
        request = await delivered(client, receiver)
        [code] = blocks("js")
        # Where Node finds the package.
        script = typescript_sdk.FOLDER / "node_modules" / ".verify-behind-a-proxy.mjs"
        script.write_text(
            code
            + f"""
const headers = {{ "upstash-signature": {json.dumps(request.header("upstash-signature"))} }};
const seen = (body) =>
  new Request("http://10.0.0.1:8080" + {json.dumps(TARGET)}, {{ method: "POST", headers, body }});
const body = {json.dumps(request.body.decode())};
console.log(await verifiedBody(seen(body)) === body);
console.log(await verifiedBody(seen(body + " ")).catch(() => "refused"));
"""
        )
        process = await asyncio.create_subprocess_exec(
            "node",
            str(script),
            env=os.environ | environ_of(client, receiver),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 30)
        assert output.decode().split() == ["true", "refused"]
