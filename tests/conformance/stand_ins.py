"""Stand-ins for the public hosts that the SDKs' tests send messages to, on loopback, with certificates of their own."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import trustme

from tests.support.receiver import ReceivedRequest, Receiver, Reply


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host answers, and after how long."""

    status: int = 200
    body: bytes = b""
    after_s: float = 0.0


Host = Callable[[ReceivedRequest], Answer]


def takes_everything(request: ReceivedRequest) -> Answer:
    """Any request is fine."""
    return Answer()


def takes_no_post(request: ReceivedRequest) -> Answer:
    """A web site: pages can be read, and nothing can be sent to it."""
    return Answer() if request.method in ("GET", "HEAD") else Answer(405, b"Method Not Allowed")


def answers_as_asked(request: ReceivedRequest) -> Answer:
    """`/404` is answered with that status and its name; `?sleep=30000` answers after so many milliseconds."""
    parts = urlsplit(request.target)
    match = re.fullmatch(r"(?:/status)?/([2-5]\d\d)", parts.path)
    if match is None:
        return Answer(400, b"400 Bad Request")
    status = HTTPStatus(int(match[1]))
    sleeps_ms = int(parse_qs(parts.query).get("sleep", ["0"])[0])
    return Answer(status, f"{status.value} {status.phrase}".encode(), sleeps_ms / 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIns:
    """Hosts that can be reached with these two settings of the service."""

    host_overrides: str
    ca_file: Path


@contextlib.asynccontextmanager
async def standing_in(hosts: dict[str, Host], folder: Path) -> AsyncGenerator[StandIns]:
    """Serve `hosts` over http and https inside; their authority's certificate is written into `folder`."""
    authority = trustme.CA()
    ca_file = folder / "authority.pem"
    authority.cert_pem.write_to_path(ca_file)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # A certificate is for somebody, also where the tests reach nobody.
    authority.issue_cert(*hosts or ("nobody.invalid",)).configure_cert(tls)  # pyright: ignore[reportUnknownMemberType]
    loop = asyncio.get_running_loop()

    def reply_to(request: ReceivedRequest) -> Reply:
        host = hosts.get((request.header("Host") or "").lower())
        answer = Answer(421, b"Misdirected Request") if host is None else host(request)
        after = None
        if answer.after_s:
            after = asyncio.Event()
            loop.call_later(answer.after_s, after.set)
        return Reply(status=answer.status, body=answer.body, after=after)

    async with Receiver(handler=reply_to) as plain, Receiver(tls=tls, handler=reply_to) as secured:
        overrides = [
            f"{host}:{port}=127.0.0.1:{receiver.port}"
            for port, receiver in ((80, plain), (443, secured))
            for host in hosts
        ]
        yield StandIns(host_overrides=",".join(overrides), ca_file=ca_file)
