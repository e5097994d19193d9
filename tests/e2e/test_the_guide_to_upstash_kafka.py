"""The page on moving from Upstash Kafka: its commands and its program, run as they stand."""

from tests.e2e import typescript_sdk
from tests.e2e.test_howto_pages import STRICT_CURL, code_of, run
from tests.support.client import Client
from tests.support.processes import System
from tests.support.receiver import Receiver

PAGE = "move-from-upstash-kafka"


async def test_the_commands(system: System, receiver: Receiver) -> None:
    client = Client(system.url, system.settings)
    await run("bash", "-c", STRICT_CURL + code_of(PAGE, "sh", receiver), system=system)
    topic = await client.send("GET", "/topics/news")
    assert topic["partitions"] == 2
    assert sum(log["end"] for log in topic["logs"]) == 4
    assert not any(
        group["name"] == "mygroup" and group["instances"] for group in await client.send("GET", "/consumers")
    )
    await client.send("DELETE", "/topics/news")


if typescript_sdk.IS_INSTALLED:

    async def test_the_program(system: System, receiver: Receiver) -> None:
        script = typescript_sdk.FOLDER / "node_modules" / f".{PAGE}.mjs"
        script.write_text(code_of(PAGE, "js", receiver))
        await run("node", str(script), system=system)
        await Client(system.url, system.settings).send("DELETE", "/topics/news")
