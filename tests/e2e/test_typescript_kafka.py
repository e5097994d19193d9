"""The official TypeScript client of Upstash Kafka, unchanged, against this service; collected like that of QStash."""

import asyncio
import os
import re

import pytest

from tests.e2e.typescript_sdk import FOLDER
from tests.support.processes import System

SCRIPT = FOLDER / "kafka.mjs"
SCENARIOS = re.findall(r"^  async (\w+)\(\)", SCRIPT.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario(name: str, system: System) -> None:
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SCRIPT),
        name,
        env={**os.environ, "KAFKA_URL": system.url, "KAFKA_TOKEN": system.settings.token},
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
