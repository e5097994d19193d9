"""The official TypeScript SDK, unchanged, against this service; collected once `npm ci` was run in `typescript`."""

import asyncio
import os
import re

import pytest

from tests.e2e.typescript_sdk import FOLDER
from tests.support.processes import System

SCRIPT = FOLDER / "scenarios.mjs"
SCENARIOS = re.findall(r"^  async (\w+)\(receiver\)", SCRIPT.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario(name: str, system: System) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("QSTASH", "UPSTASH"))}
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SCRIPT),
        name,
        env=environ
        | {
            "QSTASH_URL": system.url,
            "QSTASH_TOKEN": system.settings.token,
            "QSTASH_CURRENT_SIGNING_KEY": system.settings.current_signing_key,
            "QSTASH_NEXT_SIGNING_KEY": system.settings.next_signing_key,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
