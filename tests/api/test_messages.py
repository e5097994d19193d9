"""`/v2/messages/{id}`."""

from collections.abc import Awaitable, Callable

import httpx

from qstash_clone.domain.message import DeadLetter, Settlement, SettlementKind
from qstash_clone.storage.store import Store


async def publish(client: httpx.AsyncClient, **headers: str) -> str:
    answer = await client.post("/v2/publish/https://example.com/hook", headers=headers)
    return answer.json()["messageId"]


async def claim(store: Store, kind: SettlementKind | None = None) -> None:
    """Take the one waiting message, and settle it unless `kind` is None."""
    await store.delivery.heartbeat("test", 10)
    [claimed] = (await store.delivery.claim(0, "test", 10)).claims
    if kind is not None:
        await store.delivery.settle(Settlement(claim=claimed, kind=kind))


async def test_an_unknown_id_is_a_404(client: httpx.AsyncClient) -> None:
    for message_id in ("msg_00000000000000000000", "msg_7Yk2pQ9vTr4mZxB1nL8sWd", "nonsense", "%2e%2e", "a%2Fb"):
        for method in ("GET", "DELETE"):
            answer = await client.request(method, f"/v2/messages/{message_id}")
            assert answer.status_code == 404
            assert "not found" in answer.json()["error"]


async def test_a_waiting_message_is_cancelled_once(client: httpx.AsyncClient) -> None:
    message_id = await publish(client, **{"Upstash-Delay": "1h"})
    answer = await client.delete(f"/v2/messages/{message_id}")
    assert (answer.status_code, answer.json()) == (200, {"cancelled": 1})
    assert (await client.get(f"/v2/messages/{message_id}")).status_code == 404
    assert (await client.delete(f"/v2/messages/{message_id}")).status_code == 404


async def test_a_message_under_way_is_cancelled_and_not_counted_twice(client: httpx.AsyncClient, store: Store) -> None:
    message_id = await publish(client)
    await claim(store)
    assert (await client.delete(f"/v2/messages/{message_id}")).json() == {"cancelled": 1}
    again = await client.delete(f"/v2/messages/{message_id}")
    assert (again.status_code, again.json()) == (200, {"cancelled": 0})


async def test_a_finished_message_is_shown_for_a_while_and_cannot_be_cancelled(
    client: httpx.AsyncClient, store: Store, move_clock: Callable[[int], Awaitable[None]]
) -> None:
    message_id = await publish(client)
    await claim(store, SettlementKind.DELIVERED)
    assert (await client.get(f"/v2/messages/{message_id}")).status_code == 200
    assert (await client.delete(f"/v2/messages/{message_id}")).status_code == 404
    await move_clock(60_001)
    assert (await client.get(f"/v2/messages/{message_id}")).status_code == 404


async def test_a_dead_letter_is_no_longer_to_be_cancelled(
    client: httpx.AsyncClient, fail_message: Callable[[], Awaitable[DeadLetter]]
) -> None:
    letter = await fail_message()
    [shown] = (await client.get("/v2/dlq")).json()["messages"]
    assert shown["dlqId"] == letter.dlq_id
    assert (await client.delete(f"/v2/messages/{shown['messageId']}")).status_code == 404


async def test_a_trailing_slash_never_means_every_message(client: httpx.AsyncClient) -> None:
    message_id = await publish(client)
    answer = await client.delete("/v2/messages/")
    assert answer.status_code == 400
    assert "an id must follow" in answer.json()["error"]
    assert (await client.get(f"/v2/messages/{message_id}")).status_code == 200


async def test_head_is_answered_like_get_without_a_body(client: httpx.AsyncClient) -> None:
    message_id = await publish(client)
    assert (await client.head(f"/V2/Messages/{message_id}")).status_code == 200
    assert (await client.head("/v2/messages/msg_00000000000000000000")).status_code == 404
