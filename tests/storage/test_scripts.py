"""Loading and running scripts: headers are contracts, a lost connection or cache is repaired, and by nobody else."""

import asyncio
import re
from importlib import resources
from typing import Any

import pytest

from qstash_clone.errors import StorageUnavailable
from qstash_clone.storage.commands import translate
from qstash_clone.storage.keys import PartitionKeys
from qstash_clone.storage.scripts import MAX_TRIES, Script, check_header
from qstash_clone.storage.store import Store
from tests.storage.conftest import Look, script_names
from tests.support.eventually import eventually
from tests.support.messages import claim_all, delivered, publish

HEADER = """--[[
name.lua: does something.

KEYS
  1  meta  hash  what it is
ARGV
  1  version  int
  2  id       bytes
RETURNS
  {"ok"}
COST  O(1)
]]
"""
BODY = "local a, b, c = KEYS[1], ARGV[1], ARGV[2]\n"


@pytest.mark.parametrize("name", script_names())
def test_every_script_keeps_its_header(name: str) -> None:
    script = Script(name)
    assert "--@include" not in script.text
    assert len(script.digest) == 40


@pytest.mark.parametrize("name", script_names())
def test_every_script_checks_the_store_first(name: str) -> None:
    text = Script(name).text
    # One makes the store, the other works beside the partitions.
    if name not in ("initialise", "replace_entry", "register_schema"):
        body = text[text.rindex("local version") :]
        assert re.search(r"open_partition\(meta, version\)\nif refusal then\n  return refusal\nend", body), name


def test_no_script_runs_an_unbounded_command() -> None:
    folder = resources.files("qstash_clone.storage") / "lua"
    paths = [*folder.iterdir(), *(folder / "include").iterdir()]
    texts = {path.name: path.read_text() for path in paths if path.name.endswith(".lua")}
    assert len(texts) > len(script_names())
    # A range that ends at the limit of the call is bounded.
    bounded = "redis.call('LRANGE', list, start, start + limit - 1)"
    for name, text in texts.items():
        text = text.replace(bounded, "")
        assert not re.search(r"'(KEYS|SCAN|SMEMBERS|LRANGE|HGETALL|LREM|SORT|FLUSHALL|EVAL)'", text), name


def test_a_header_that_fits_is_accepted() -> None:
    check_header("name", HEADER + BODY)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (BODY, "header"),
        (HEADER.replace("name.lua", "other.lua") + BODY, "header"),
        (HEADER + BODY.replace("ARGV[2]", "ARGV[1]"), "ARGV"),
        (HEADER + BODY + "local d = ARGV[3]\n", "ARGV"),
        (HEADER + BODY + "local d = KEYS[2]\n", "KEYS"),
        (HEADER.replace("  1  meta  hash  what it is\n", "") + BODY, "KEYS"),
        (HEADER.replace("  2  id       bytes", "  3  id       bytes") + BODY.replace("ARGV[2]", "ARGV[3]"), "ARGV"),
        (HEADER.replace("COST  O(1)\n", "") + BODY, "COST"),
        (HEADER.replace('RETURNS\n  {"ok"}\n', "") + BODY, "RETURNS"),
        (HEADER.replace("  2  id  ", "  2+ ids ") + "local a, b = KEYS[1], ARGV[1]\n", "ARGV"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(source: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_header("name", source)


def test_open_ended_arguments_may_be_looped_over() -> None:
    source = HEADER.replace("  2  id  ", "  2+ ids ")
    check_header("name", source + "local a, b = KEYS[1], ARGV[1]\nfor at = 2, #ARGV do print(ARGV[at]) end\n")


async def test_an_emptied_script_cache_is_filled_again(store: Store, redis_client: Any, look: Look) -> None:
    for _ in range(3):
        await redis_client.script_flush()
        message_id = await publish(store)
        await redis_client.script_flush()
        [claim] = await claim_all(store)
        assert claim.id == message_id
        await redis_client.script_flush()
        await store.delivery.settle(delivered(claim))
    assert look().entries == {}


async def test_killed_connections_are_replaced(store: Store, redis_client: Any, look: Look) -> None:
    for number in range(5):
        await asyncio.gather(*(publish(store, lane=f"h:{number}") for _ in range(5)))
        await redis_client.client_kill_filter(_type="normal", skipme=True)
    claims = await claim_all(store)
    assert len(claims) == 25
    await redis_client.client_kill_filter(_type="normal", skipme=True)
    await store.delivery.release(claims)


async def test_a_connection_killed_while_it_waits_for_the_reply(store: Store, redis_client: Any, look: Look) -> None:
    await publish(store)

    async def is_held_up() -> bool:
        return bool((await redis_client.info("clients"))["blocked_clients"])

    await redis_client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    publishing = asyncio.create_task(publish(store))
    await eventually(is_held_up)
    await redis_client.client_kill_filter(_type="normal", skipme=True)
    await redis_client.execute_command("CLIENT", "UNPAUSE")
    message_id = await publishing
    assert message_id in look().entries.values()
    assert look().letters(message_id) == "C"


async def test_tries_come_to_an_end(store: Store, monkeypatch: pytest.MonkeyPatch, keys: PartitionKeys) -> None:
    calls: list[str] = []
    send = store.commands.send

    async def broken(*command: Any) -> Any:
        calls.append(str(command[0]))
        raise ConnectionResetError("gone")

    monkeypatch.setattr(store.commands, "send", broken)
    with pytest.raises(StorageUnavailable):
        await publish(store)
    assert calls == ["EVALSHA"] * MAX_TRIES
    monkeypatch.setattr(store.commands, "send", send)
    await publish(store)


async def test_a_refusal_is_not_repeated(store: Store, monkeypatch: pytest.MonkeyPatch, redis_client: Any) -> None:
    """The engine has said no; asking again at once changes nothing."""
    from redis.exceptions import ReadOnlyError

    calls: list[str] = []

    async def refusing(*command: Any) -> Any:
        calls.append(str(command[0]))
        raise ReadOnlyError("You can't write against a read only replica.")

    monkeypatch.setattr(store.commands, "send", refusing)
    with pytest.raises(StorageUnavailable, match="read only"):
        await publish(store)
    assert calls == ["EVALSHA"]


async def test_a_redis_that_forgets_all_the_time_is_unavailable(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forgetful(*command: Any) -> Any:
        return [b"no_store"]

    monkeypatch.setattr(store.commands, "send", forgetful)
    with pytest.raises(StorageUnavailable, match="loses its data"):
        await publish(store)


def test_errors_carry_no_more_than_their_beginning() -> None:
    assert len(str(translate(ValueError("x" * 5000)))) < 300
