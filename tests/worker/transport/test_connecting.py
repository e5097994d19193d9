"""Names, addresses and certificates: what is dialled, what is refused, and what is said when it fails."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
import trustme
from yarl import URL

from qstash_clone.domain.egress import EgressPolicy
from qstash_clone.domain.host_overrides import parse_host_overrides
from qstash_clone.errors import ConfigurationError
from tests.support.receiver import Receiver
from tests.worker.transport.requests import TIMEOUT_MS, post
from worker.network import AddressRefused, make_connector, tls_context
from worker.transport import AiohttpTransport

Resolve = Callable[[str], list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Host names and their addresses; others do not exist."""
    table: dict[str, list[str]] = {}

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host not in table:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in table[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return table


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def server_tls(authority: trustme.CA, *identities: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*identities).configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    return context


async def test_a_blocked_literal_is_not_dialled(receiver: Receiver) -> None:
    async with AiohttpTransport(egress=EgressPolicy()) as transport:
        result = await transport.send(post(receiver.url), TIMEOUT_MS)
    assert (result.status, result.error) == (0, 'address "127.0.0.1" is not an allowed destination')
    assert receiver.connections == 0


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::ffff:127.0.0.1"], ["fe80::1%lo"]])
async def test_a_name_is_refused_if_any_of_its_addresses_is(
    receiver: Receiver, names: dict[str, list[str]], addresses: list[str]
) -> None:
    names["rebound.example"] = addresses
    async with AiohttpTransport(egress=EgressPolicy()) as transport:
        result = await transport.send(post(f"http://rebound.example:{receiver.port}/"), TIMEOUT_MS)
    assert result.error == f'address "{addresses[-1]}" of host "rebound.example" is not an allowed destination'
    assert receiver.connections == 0


async def test_every_socket_is_checked_once_more() -> None:
    # Literals pass no resolver, so this is what stands between them and the network if they are not caught before.
    async with make_connector(EgressPolicy(), tls_context(None)) as connector:
        request = aiohttp.ClientRequest("POST", URL("http://127.0.0.1:9/"))
        with pytest.raises(aiohttp.ClientConnectorError) as refusal:
            await connector.connect(request, [], aiohttp.ClientTimeout())
        assert isinstance(refusal.value.os_error, AddressRefused)


async def test_an_allowed_network_is_dialled(receiver: Receiver, names: dict[str, list[str]]) -> None:
    names["inside.example"] = ["127.0.0.1"]
    async with AiohttpTransport(egress=EgressPolicy(allowed=["127.0.0.0/8"])) as transport:
        assert (await transport.send(post(receiver.url), TIMEOUT_MS)).status == 200
        url = f"http://Inside.Example:{receiver.port}/"
        assert (await transport.send(post(url), TIMEOUT_MS)).status == 200
    assert receiver.requests[1].header("Host") == f"inside.example:{receiver.port}"


async def test_a_host_that_is_allowed_by_name_may_be_anywhere(receiver: Receiver, names: dict[str, list[str]]) -> None:
    names["inside.example"] = names["other.example"] = ["127.0.0.1"]
    async with AiohttpTransport(egress=EgressPolicy(allowed=["inside.example"])) as transport:
        for host, status in (("inside.example", 200), ("other.example", 0), ("127.0.0.1", 0)):
            result = await transport.send(post(f"http://{host}:{receiver.port}/"), TIMEOUT_MS)
            assert result.status == status, host
    assert receiver.connections == 1


async def test_an_overridden_host_is_dialled_at_its_address(
    receiver: Receiver, names: dict[str, list[str]], authority: trustme.CA, ca_file: str
) -> None:
    names["hooks.example"] = ["1.1.1.1"]
    async with Receiver(tls=server_tls(authority, "hooks.example")) as secure:
        overrides = parse_host_overrides(
            [f"hooks.example:443=127.0.0.1:{secure.port}", f"hooks.example:81=127.0.0.1:{receiver.port}"]
        )
        async with AiohttpTransport(
            egress=EgressPolicy(allow_private=True), ca_file=ca_file, host_overrides=overrides
        ) as transport:
            for _ in range(2):
                assert (await transport.send(post("https://Hooks.Example/a"), TIMEOUT_MS)).status == 200
            assert (await transport.send(post("http://hooks.example:81/b"), TIMEOUT_MS)).status == 200
        assert [request.header("Host") for request in secure.requests] == ["hooks.example", "hooks.example"]
        assert secure.connections == 1
    assert [request.header("Host") for request in receiver.requests] == ["hooks.example:81"]


async def test_an_override_does_not_vouch_for_a_certificate(authority: trustme.CA, ca_file: str) -> None:
    async with Receiver(tls=server_tls(authority, "other.example")) as receiver:
        overrides = parse_host_overrides([f"hooks.example:443=127.0.0.1:{receiver.port}"])
        async with AiohttpTransport(
            egress=EgressPolicy(allow_private=True), ca_file=ca_file, host_overrides=overrides
        ) as transport:
            result = await transport.send(post("https://hooks.example/"), TIMEOUT_MS)
    assert result.error is not None
    assert result.error.startswith("cannot trust the certificate of hooks.example:443: ")


@pytest.mark.parametrize(
    ("allowed", "status"),
    [([], 0), (["127.0.0.0/8"], 200), (["hooks.example"], 200), (["other.example"], 0)],
)
async def test_the_address_of_an_override_is_checked_like_any_other(
    receiver: Receiver, allowed: list[str], status: int
) -> None:
    overrides = parse_host_overrides([f"hooks.example:80=127.0.0.1:{receiver.port}"])
    async with AiohttpTransport(egress=EgressPolicy(allowed=allowed), host_overrides=overrides) as transport:
        result = await transport.send(post("http://hooks.example/"), TIMEOUT_MS)
    assert result.status == status
    refusal = 'address "127.0.0.1" of host "hooks.example" is not an allowed destination'
    assert result.error == (None if status else refusal)
    assert receiver.connections == (1 if status else 0)


async def test_an_override_may_lead_to_ipv6(names: dict[str, list[str]]) -> None:
    async with Receiver(host="::1") as receiver:
        overrides = parse_host_overrides([f"hooks.example:80=[::1]:{receiver.port}"])
        async with AiohttpTransport(egress=EgressPolicy(allow_private=True), host_overrides=overrides) as transport:
            assert (await transport.send(post("http://hooks.example/"), TIMEOUT_MS)).status == 200
            result = await transport.send(post("http://other.example/"), TIMEOUT_MS)
    assert result.error == 'cannot resolve host "other.example": name or service not known'


async def test_the_next_address_is_tried_if_one_does_not_answer(
    receiver: Receiver, transport: AiohttpTransport, names: dict[str, list[str]]
) -> None:
    names["two.example"] = ["127.0.0.77", "127.0.0.1"]
    result = await transport.send(post(f"http://two.example:{receiver.port}/"), TIMEOUT_MS)
    assert result.status == 200


async def test_ipv6_literals_are_dialled(transport: AiohttpTransport) -> None:
    async with Receiver(host="::1") as receiver:
        assert (await transport.send(post(receiver.url + "/p"), TIMEOUT_MS)).status == 200
        assert receiver.requests[0].header("Host") == f"[::1]:{receiver.port}"


async def test_an_unknown_name_is_a_failure(transport: AiohttpTransport, names: dict[str, list[str]]) -> None:
    result = await transport.send(post("http://nowhere.example/"), TIMEOUT_MS)
    assert result.error == 'cannot resolve host "nowhere.example": name or service not known'


async def test_a_name_that_cannot_be_looked_up_is_a_failure(
    transport: AiohttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        raise UnicodeError("label too long")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    result = await transport.send(post("http://strange.example/"), TIMEOUT_MS)
    assert result.error == 'cannot resolve host "strange.example": label too long'


async def test_a_name_server_that_hangs_delays_only_its_own_names(
    receiver: Receiver, transport: AiohttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer = threading.Event()

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host != "quick.example":
            may_answer.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for number in range(20):
        result = await transport.send(post(f"http://slow{number}.example:{receiver.port}/"), 5)
        assert result.error == "no complete answer within 0.005 s"
    result = await transport.send(post(f"http://quick.example:{receiver.port}/"), TIMEOUT_MS)
    assert result.status == 200
    may_answer.set()


async def test_a_closed_port_is_a_failure(receiver: Receiver, transport: AiohttpTransport) -> None:
    await receiver.stop()
    result = await transport.send(post(receiver.url), TIMEOUT_MS)
    assert result.error is not None
    assert result.error.startswith(f"cannot connect to 127.0.0.1:{receiver.port}: ")
    assert "refused" in result.error or "connect call failed" in result.error


async def test_a_certificate_of_a_configured_authority_is_trusted(authority: trustme.CA, ca_file: str) -> None:
    async with (
        Receiver(tls=server_tls(authority, "127.0.0.1")) as receiver,
        AiohttpTransport(egress=EgressPolicy(allow_private=True), ca_file=ca_file) as transport,
    ):
        for _ in range(2):
            assert (await transport.send(post(receiver.url, b"x" * 200_000), TIMEOUT_MS)).status == 200
        assert receiver.connections == 1
        assert receiver.requests[0].body == b"x" * 200_000


async def test_an_unknown_authority_is_a_failure(authority: trustme.CA, transport: AiohttpTransport) -> None:
    async with Receiver(tls=server_tls(authority, "127.0.0.1")) as receiver:
        result = await transport.send(post(receiver.url), TIMEOUT_MS)
    assert result.error is not None
    assert result.error.startswith(f"cannot trust the certificate of 127.0.0.1:{receiver.port}: ")
    assert "unable to get local issuer certificate" in result.error


async def test_a_certificate_of_another_host_is_a_failure(authority: trustme.CA, ca_file: str) -> None:
    async with (
        Receiver(tls=server_tls(authority, "other.example")) as receiver,
        AiohttpTransport(egress=EgressPolicy(allow_private=True), ca_file=ca_file) as transport,
    ):
        result = await transport.send(post(receiver.url), TIMEOUT_MS)
    assert result.error is not None
    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in result.error


async def test_a_server_without_tls_is_a_failure(transport: AiohttpTransport) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    result = await transport.send(post(f"https://127.0.0.1:{port}/"), TIMEOUT_MS)
    assert result.error is not None
    assert result.error.startswith(f"TLS handshake with 127.0.0.1:{port} failed: ")
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_file_of_authorities_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"authority\.pem.*set delivery_ca_file"):
        AiohttpTransport(egress=EgressPolicy(), ca_file=str(path))
