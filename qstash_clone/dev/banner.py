"""The lines that `dev` prints once it is ready: where it listens, and how to send a first message."""

import qstash_clone
from qstash_clone.settings import (
    DEVELOPMENT_CURRENT_SIGNING_KEY,
    DEVELOPMENT_NEXT_SIGNING_KEY,
    DEVELOPMENT_TOKEN,
    Settings,
    variable_of,
)

_PUBLIC = {
    "token": DEVELOPMENT_TOKEN,
    "current_signing_key": DEVELOPMENT_CURRENT_SIGNING_KEY,
    "next_signing_key": DEVELOPMENT_NEXT_SIGNING_KEY,
}


def base_url(settings: Settings) -> str:
    """The address that a program on this machine uses."""
    return f"http://{_url_host(reachable_host(settings.host))}:{settings.port}"


def reachable_host(host: str) -> str:
    """A host to connect to for a host that is listened on."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)


def banner(settings: Settings, *, engine: str, data_dir: str) -> str:
    """What a person needs to begin; own credentials are not shown."""
    url = base_url(settings)
    token = _shown(settings, "token")
    return f"""\
qstash-clone {qstash_clone.__version__} listens on {url}

For an SDK:
  export QSTASH_URL={url}
  export QSTASH_TOKEN={token}
  export QSTASH_CURRENT_SIGNING_KEY={_shown(settings, "current_signing_key")}
  export QSTASH_NEXT_SIGNING_KEY={_shown(settings, "next_signing_key")}

Try it, with something that answers on port 3000 (docs/quickstart.md has a receiver to paste):
  curl {url}/v2/publish/http://localhost:3000/hello -H 'Authorization: Bearer {token}' -d 'Hello'

Durability: every acknowledged message is on disk (appendfsync always, {engine}, {data_dir})
Behaviour:  compat={settings.compat} (repeats are recognised for {_span(settings.deduplication_window_ms)}), \
{_amount(settings.workers, "worker")}, private destinations {_allowed(settings)}
Ctrl-C stops it; started again on the same folder, it goes on where it was.
"""


def _shown(settings: Settings, name: str) -> str:
    value = str(getattr(settings, name))
    return value if value == _PUBLIC[name] else f"...the {variable_of(name, own=True)} you set..."


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _amount(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _span(duration_ms: int) -> str:
    for unit_ms, name in ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute")):
        if duration_ms % unit_ms == 0:
            return _amount(duration_ms // unit_ms, name)
    return _amount(duration_ms // 1000, "second")


def _allowed(settings: Settings) -> str:
    return "allowed" if settings.allow_private_destinations else "refused"
