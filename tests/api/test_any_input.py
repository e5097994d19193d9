"""Whatever a client sends, it gets an answer of the protocol and never a defect."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qstash_clone.api.app import Api, create_app
from qstash_clone.settings import Settings
from qstash_clone.storage.store import Store
from tests.conftest import TOKEN

targets = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"https://e.com/", b"https://e.com:99999/", b"http://[::1", b"https%3A%2F%2Fe.com", b"https:/e.com", b"%ff",
            b"api/llm", b"group", b"https://\xff", b"http://0x7f.1/", b"https://e.com/%zz#",
        ]
    ),
)  # fmt: skip
prefixes = st.sampled_from(
    [b"/v2/publish/", b"//v2/publish/", b"/v2/messages/", b"/v2/dlq/", b"/v2/dlq/retry/", b"/v2/dlq", b"/v2/", b"/"]
)
queries = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"upstash-delay=%zz", b"upstash-forward-%0a=1", b"count=%ff", b"cursor=%00", b"qstash_token=" + TOKEN.encode()]
    ),
)
names = st.one_of(
    st.sampled_from(
        [
            b"upstash-method", b"upstash-delay", b"upstash-retries", b"upstash-retry-delay", b"upstash-timeout",
            b"upstash-label", b"upstash-not-before", b"upstash-header-forward", b"upstash-forward-", b"content-type",
            b"upstash-forward-x", b"upstash-cron", b"x-request-id", b"x-forwarded-for", b"content-length",
        ]
    ),
    st.binary(min_size=1, max_size=20).map(bytes.lower),
)  # fmt: skip
values = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"1", b"true", b"GET", b"1h", b"pow(2, retried)", b"9" * 30])
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["POST", "POST", "GET", "DELETE", "PUT", "HEAD"]),
    prefix=prefixes,
    target=targets,
    query=queries,
    headers=st.lists(st.tuples(names, values), max_size=5),
    body=st.binary(max_size=20),
)
async def test_any_request_is_answered(
    settings: Settings,
    store: Store,
    method: str,
    prefix: bytes,
    target: bytes,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
) -> None:
    sent = await call(create_app(settings, store), method, prefix + target, query, headers, body)
    start, content = sent
    assert start["status"] in {200, 201, 400, 401, 404, 405, 412, 413}
    assert content["body"]
    assert all(b"\n" not in name + value and b"\r" not in name + value for name, value in start["headers"])
    assert len([name for name, _ in start["headers"] if name == b"x-request-id"]) == 1


async def call(
    app: Api, method: str, raw_path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": raw_path.decode("latin-1"),
        "raw_path": raw_path,
        "query_string": query,
        "headers": [(b"authorization", b"Bearer " + TOKEN.encode()), *headers],
        "client": ("192.0.2.7", 1),
        "server": ("api", 80),
        "scheme": "http",
    }
    await app(scope, receive, send)
    return sent
