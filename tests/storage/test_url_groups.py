"""replace_entry.lua and URL groups: one change at a time, made from what is stored, done once however often sent."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from qstash_clone.domain.url_groups import Endpoint, UrlGroup
from qstash_clone.errors import StorageError, StorageFull, StorageUnavailable
from qstash_clone.settings import Settings
from qstash_clone.storage.keys import url_groups_key
from qstash_clone.storage.scripts import Script
from qstash_clone.storage.store import Store
from qstash_clone.storage.url_group_store import MAX_RACES
from tests.storage.conftest import MoveClock, Opened
from tests.support.lossy_proxy import LossyProxy

Change = Callable[[UrlGroup | None, int], UrlGroup | None]


def adding(*urls: str, name: str = "g") -> Change:
    """A change that appends endpoints, even if they are there already."""

    def change(group: UrlGroup | None, now_ms: int) -> UrlGroup:
        old = group or UrlGroup(name=name, created_ms=now_ms, updated_ms=now_ms)
        endpoints = (*old.endpoints, *(Endpoint(url=url) for url in urls))
        return UrlGroup(name=name, created_ms=old.created_ms, updated_ms=now_ms, endpoints=endpoints)

    return change


def deleting(group: UrlGroup | None, now_ms: int) -> None:
    return None


def urls_of(group: UrlGroup | None) -> list[str]:
    return [] if group is None else [endpoint.url for endpoint in group.endpoints]


async def test_a_group_is_made_changed_and_deleted(store: Store) -> None:
    groups = store.url_groups
    assert await groups.get_url_group("g") is None
    before_ms = time.time() * 1000
    made = await groups.change_url_group("g", adding("https://a.example"))
    assert made is not None
    assert before_ms - 1000 <= made.created_ms <= time.time() * 1000 + 1000
    assert await groups.get_url_group("g") == made
    changed = await groups.change_url_group("g", adding("https://b.example"))
    assert await groups.get_url_group("g") == changed
    assert urls_of(changed) == ["https://a.example", "https://b.example"]
    assert await groups.change_url_group("g", deleting) is None
    assert await groups.get_url_group("g") is None
    assert await groups.list_url_groups() == []


async def test_everything_of_a_group_survives(store: Store) -> None:
    group = UrlGroup(
        name="a.b-c_1",
        created_ms=1,
        updated_ms=2,
        endpoints=(Endpoint(url="https://a.example", name="with a blank, \u00e4"), Endpoint(url="https://b.example")),
        headers=(("Upstash-Retries", "3"), ("Upstash-Forward-X", "\xc3\xa4"), ("Upstash-Forward-X", "")),
    )
    assert await store.url_groups.change_url_group(group.name, lambda old, now_ms: group) == group
    assert await store.url_groups.get_url_group(group.name) == group
    assert await store.url_groups.list_url_groups() == [group]


async def test_groups_are_listed_in_the_order_of_their_creation(store: Store) -> None:
    groups = [UrlGroup(name=f"g{number}", created_ms=1000 - number // 2, updated_ms=0) for number in range(700)]
    for group in groups:
        await store.url_groups.change_url_group(group.name, lambda old, now_ms, group=group: group)
    expected = sorted(groups, key=lambda group: (group.created_ms, group.name))
    assert await store.url_groups.list_url_groups() == expected


async def test_a_change_that_raises_changes_nothing(store: Store) -> None:
    made = await store.url_groups.change_url_group("g", adding("https://a.example"))

    def refuse(group: UrlGroup | None, now_ms: int) -> UrlGroup:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.url_groups.change_url_group("g", refuse)
    assert await store.url_groups.get_url_group("g") == made


async def test_a_change_that_changes_nothing_writes_nothing(
    store: Store, lossy_store: Store, proxy: LossyProxy
) -> None:
    made = await store.url_groups.change_url_group("g", adding("https://a.example"))
    proxy.lose_request(Script("replace_entry").digest, times=10)
    assert await lossy_store.url_groups.change_url_group("g", lambda group, now_ms: group) == made
    assert await lossy_store.url_groups.change_url_group("unknown", deleting) is None
    assert proxy.losses == 0


async def test_a_change_is_made_again_from_what_somebody_else_left(
    store: Store, opened: Opened, settings: Settings
) -> None:
    other = await opened(settings)
    seen: list[list[str]] = []
    interfering: list[Change] = [adding("https://other.example"), deleting, adding("https://last.example")]

    async def change_in_between(change: Change) -> None:
        await other.url_groups.change_url_group("g", change)

    ask_all = store.url_groups._commands.ask_all  # pyright: ignore[reportPrivateUsage]

    async def ask_and_be_overtaken(*commands: Any, **options: Any) -> list[Any]:
        replies = await ask_all(*commands, **options)
        if interfering:
            await change_in_between(interfering.pop(0))
        return replies

    store.url_groups._commands.ask_all = ask_and_be_overtaken  # type: ignore # pyright: ignore

    def change(group: UrlGroup | None, now_ms: int) -> UrlGroup | None:
        seen.append(urls_of(group))
        return adding("https://mine.example")(group, now_ms)

    result = await store.url_groups.change_url_group("g", change)
    assert seen == [[], ["https://other.example"], [], ["https://last.example"]]
    assert urls_of(result) == ["https://last.example", "https://mine.example"]
    assert await other.url_groups.get_url_group("g") == result


async def test_no_change_is_lost_among_many_at_once(store: Store, opened: Opened, settings: Settings) -> None:
    others = [store, await opened(settings), await opened(settings)]
    urls = [f"https://{number}.example" for number in range(90)]
    await asyncio.gather(
        *(others[number % 3].url_groups.change_url_group("g", adding(url)) for number, url in enumerate(urls))
    )
    assert sorted(urls_of(await store.url_groups.get_url_group("g"))) == sorted(urls)


async def test_changes_of_different_groups_do_not_meet(store: Store) -> None:
    names = [f"g{number}" for number in range(50)]
    await asyncio.gather(
        *(store.url_groups.change_url_group(name, adding("https://a.example", name=name)) for name in names)
    )
    assert sorted(group.name for group in await store.url_groups.list_url_groups()) == sorted(names)


async def test_who_loses_every_race_gives_up(
    store: Store, opened: Opened, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await opened(settings)
    races = 0

    def change(group: UrlGroup | None, now_ms: int) -> UrlGroup | None:
        nonlocal races
        races += 1
        return adding("https://mine.example")(group, now_ms)

    run = store.url_groups._runner.run  # pyright: ignore[reportPrivateUsage]

    async def overtaken(*call: Any) -> Any:
        await other.url_groups.change_url_group("g", adding("https://o.example"))
        await other.url_groups.change_url_group("g", lambda group, now_ms: replace_updated(group, races))
        return await run(*call)

    monkeypatch.setattr(store.url_groups._runner, "run", overtaken)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(StorageUnavailable, match="too many others"):
        await store.url_groups.change_url_group("g", change)
    assert races == MAX_RACES
    assert "https://mine.example" not in urls_of(await other.url_groups.get_url_group("g"))


def replace_updated(group: UrlGroup | None, updated_ms: int) -> UrlGroup | None:
    return UrlGroup(name="g", created_ms=1, updated_ms=updated_ms)


@pytest.mark.parametrize("losses", [1, 2])
async def test_a_lost_reply_changes_once(store: Store, lossy_store: Store, proxy: LossyProxy, losses: int) -> None:
    await store.url_groups.change_url_group("g", adding("https://a.example"))
    proxy.lose_reply(Script("replace_entry").digest, times=losses)
    changed = await lossy_store.url_groups.change_url_group("g", adding("https://b.example"))
    assert proxy.losses == losses
    assert urls_of(changed) == ["https://a.example", "https://b.example"]
    assert await store.url_groups.get_url_group("g") == changed


async def test_a_lost_reply_deletes_once(store: Store, lossy_store: Store, proxy: LossyProxy) -> None:
    await store.url_groups.change_url_group("g", adding("https://a.example"))
    proxy.lose_reply(Script("replace_entry").digest)
    assert await lossy_store.url_groups.change_url_group("g", deleting) is None
    assert await store.url_groups.get_url_group("g") is None


async def test_a_lost_request_is_sent_again(store: Store, lossy_store: Store, proxy: LossyProxy) -> None:
    proxy.lose_request(Script("replace_entry").digest, times=2)
    made = await lossy_store.url_groups.change_url_group("g", adding("https://a.example"))
    assert await store.url_groups.get_url_group("g") == made


async def test_the_moved_clock_of_messages_does_not_date_groups(store: Store, move_clock: MoveClock) -> None:
    await move_clock(86_400_000)
    made = await store.url_groups.change_url_group("g", adding("https://a.example"))
    assert made is not None
    assert abs(made.created_ms - time.time() * 1000) < 60_000


@pytest.mark.parametrize("partitions", [3])
async def test_groups_lie_beside_the_partitions(store: Store, redis_client: Any, settings: Settings) -> None:
    await store.url_groups.change_url_group("g", adding("https://a.example"))
    assert await redis_client.hkeys(url_groups_key(settings.key_namespace)) == [b"g"]
    await store.url_groups.change_url_group("g", deleting)
    assert not await redis_client.exists(url_groups_key(settings.key_namespace))


async def test_namespaces_have_groups_of_their_own(store: Store, opened: Opened, settings: Settings) -> None:
    other = await opened(replace(settings, key_namespace=settings.key_namespace + "-other"))
    await store.url_groups.change_url_group("g", adding("https://a.example"))
    assert await other.url_groups.list_url_groups() == []


async def test_a_group_that_cannot_be_read_is_said_to_be(
    store: Store, redis_client: Any, settings: Settings, breaks_invariants: None
) -> None:
    """No release writes such a thing; a later one might write what this one cannot read."""
    await redis_client.hset(url_groups_key(settings.key_namespace), "g", b"\x80")
    for reading in (
        store.url_groups.get_url_group("g"),
        store.url_groups.list_url_groups(),
        store.url_groups.change_url_group("g", deleting),
    ):
        with pytest.raises(StorageError, match="URL group g cannot be read"):
            await reading


async def test_a_full_redis_refuses_new_groups_and_lets_old_ones_go(store: Store, redis_client: Any) -> None:
    made = await store.url_groups.change_url_group("g", adding("https://a.example"))
    await redis_client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StorageFull):
            await store.url_groups.change_url_group("g", adding("https://b.example"))
        assert await store.url_groups.get_url_group("g") == made
        await store.url_groups.change_url_group("g", deleting)
    finally:
        await redis_client.config_set("maxmemory", "0")
    assert await store.url_groups.get_url_group("g") is None
