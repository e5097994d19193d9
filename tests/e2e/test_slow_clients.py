"""A request that does not arrive in time is given up, and stores nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.processes import Api, System
from tests.support.receiver import Receiver


class HastyApi(Api):
    """Waits half a second for a request, but is otherwise the product."""

    module = "tests.e2e.hasty_api"


@pytest.fixture(scope="module")
def hasty(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HastyApi]:
    """One more api of the shared system."""
    log: Path = tmp_path_factory.mktemp("hasty") / "api.log"
    api = HastyApi(settings=system.settings, log=log)
    try:
        yield api.start().wait_ready()
    finally:
        api.end()


@pytest.mark.parametrize(
    "rest",
    ["X-Half: ", "Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
    ids=["head", "body", "chunks"],
)
async def test_what_does_not_arrive_in_time_is_answered_408(
    hasty: HastyApi, client: Client, receiver: Receiver, rest: str
) -> None:
    head = f"POST /v2/publish/{receiver.url}/slow HTTP/1.1\r\nAuthorization: Bearer {client.settings.token}\r\n"
    answer = await Client(hasty.url, hasty.settings).http.exchange(f"{head}{rest}".encode())
    assert (answer.status, answer.header("connection")) == (408, "close")
    assert "in time" in answer.error
    assert hasty.metric("messages_published_total") == 0
    await client.pass_by(receiver)
    assert not any(request.path == "/slow" for request in receiver.requests)
