"""Opens connections for the transport: names resolved in threads, every address checked, certificates verified."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import TypeAlias, cast

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from qstash_clone.domain.egress import EgressPolicy, IPAddress
from qstash_clone.domain.host_overrides import HostOverride
from qstash_clone.errors import ConfigurationError

_AddressInfo: TypeAlias = tuple[int, int, int, str, tuple[str | int, ...]]
"""As `getaddrinfo` returns it: family, kind, protocol, canonical name, address."""

_IDLE_S = 15.0
_NAME_CACHE_S = 10
_LOOKUPS_AT_ONCE = 64
"""Threads in `getaddrinfo`; a name server that hangs must not stop the look-up of other names."""


class AddressRefused(OSError):
    """The destination leads to an address that the egress policy does not allow."""


def make_connector(egress: EgressPolicy, tls: ssl.SSLContext, overrides: Iterable[HostOverride] = ()) -> TCPConnector:
    """A pool of connections to addresses that `egress` allows; anything else is refused with `AddressRefused`.

    A host that is overridden is dialled at the address given for it, which `egress` must allow as well; its
    certificate is still expected to be the host's.
    """
    return TCPConnector(
        resolver=_CheckedResolver(egress, overrides),
        socket_factory=_checked_socket_factory(egress),
        ssl=tls,
        limit=0,  # the worker bounds how many deliveries run at once
        keepalive_timeout=_IDLE_S,
        ttl_dns_cache=_NAME_CACHE_S,
    )


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Trusts the system's authorities, and those in `ca_file` (PEM).

    Raises `ConfigurationError` for a file that cannot be used.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            raise ConfigurationError(
                f'the certificate authorities in "{ca_file}" cannot be used: {error.strerror or error}; '
                "set delivery_ca_file to a readable PEM file"
            ) from error
    return context


def refusal_text(address: str, host: str | None = None) -> str:
    """One sentence for people: which address, and which name led to it."""
    of_host = "" if host is None else f' of host "{host}"'
    return f'address "{address}"{of_host} is not an allowed destination'


class _CheckedResolver(AbstractResolver):
    """Looks names up in threads, and refuses a name if any of its addresses is refused.

    Not by the event loop, whose own few threads are everybody's. Daemon threads, because a look-up cannot be ended
    and must not hold up the end of the process.
    """

    def __init__(self, egress: EgressPolicy, overrides: Iterable[HostOverride]) -> None:
        self._egress = egress
        self._overrides = {(override.host, override.port): _address_info(override) for override in overrides}
        self._free_threads = asyncio.Semaphore(_LOOKUPS_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        override = self._overrides.get((host, port))
        infos = await self._ask(host, port) if override is None else [override]
        for info in infos:
            if not self._egress.allows_address(_parse_address(info[4])):
                raise AddressRefused(refusal_text(str(info[4][0]), host))
        return [
            ResolveResult(
                hostname=host,
                host=str(info[4][0]),
                port=int(info[4][1]),
                family=info[0],
                proto=info[2],
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for info in infos
        ]

    async def _ask(self, host: str, port: int) -> list[_AddressInfo]:
        async with self._free_threads:
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[list[_AddressInfo]] = loop.create_future()
            threading.Thread(target=_look_up, args=(host, port, loop, answer), daemon=True).start()
            return await answer

    async def close(self) -> None:
        pass


def _address_info(override: HostOverride) -> _AddressInfo:
    family = socket.AF_INET if override.address.version == 4 else socket.AF_INET6
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(override.address), override.address_port)


def _look_up(
    host: str, port: int, loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[list[_AddressInfo]]"
) -> None:
    error = None
    infos: list[_AddressInfo] = []
    try:
        infos = cast(
            "list[_AddressInfo]",
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG),
        )
    except (OSError, UnicodeError) as exception:
        error = exception

    def deliver() -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(infos)
        else:
            answer.set_exception(error if isinstance(error, OSError) else OSError(str(error)))

    with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
        loop.call_soon_threadsafe(deliver)


def _checked_socket_factory(egress: EgressPolicy) -> Callable[[_AddressInfo], socket.socket]:
    """Every socket is made here, also for literal addresses, which no resolver sees, and for cached names."""

    def make(info: _AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not egress.allows_address(_parse_address(address)):
            raise AddressRefused(refusal_text(str(address[0])))
        return socket.socket(family, kind, protocol)

    return make


def _parse_address(address: tuple[str | int, ...]) -> IPAddress:
    return ip_address(str(address[0]))
