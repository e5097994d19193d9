"""`qstash-clone topics`: makes, shows and changes topics of a running service."""

import argparse
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from qstash_clone.cli.remote import RemoteService, RequestRefused
from qstash_clone.cli.topic_arguments import FIELDS, LOCAL, TOKEN, URL
from qstash_clone.errors import ConfigurationError, ServiceFailed
from qstash_clone.setting_layers import Layer
from qstash_clone.settings import DEVELOPMENT_TOKEN

_METHODS = {"create": "POST", "change": "PATCH", "delete": "DELETE"}


def run(parsed: argparse.Namespace, layers: Sequence[Layer]) -> int:
    """Do it, and show the topic as it is then; 1 if the service refuses.

    Raises `ConfigurationError` for arguments that do not go together and for a token that is missing or not accepted,
    `ServiceFailed` for a service that does not answer as it should.
    """
    fields = {field: value for field in FIELDS if (value := getattr(parsed, field)) is not None}
    if (parsed.topic is None) != (parsed.action == "list"):
        raise ConfigurationError(
            f"topics {parsed.action}: " + ("name a topic." if parsed.topic is None else "it takes no topic.")
        )
    if fields and parsed.action not in ("create", "change"):
        raise ConfigurationError(f"topics {parsed.action}: a configuration can be given to create and change only.")
    if not fields and parsed.action == "change":
        raise ConfigurationError("topics change: say what is to be changed, such as --partitions.")
    url = parsed.url or _value(layers, URL)
    # With neither, it is the service that `dev` runs on this machine.
    token = _value(layers, TOKEN) or (None if url else DEVELOPMENT_TOKEN)
    if token is None:
        raise ConfigurationError(f"{TOKEN} is not set; it is the token of the service.")
    option = "--url" if parsed.url else URL
    with RemoteService(option, url or LOCAL, TOKEN, token) as service:
        try:
            return _act(service, parsed.action, parsed.topic, fields)
        except RequestRefused as refused:
            raise ServiceFailed(f"{service.url} refuses: {refused}.") from refused


def _act(service: RemoteService, action: str, topic: str | None, fields: dict[str, Any]) -> int:
    if topic is None:
        counts = service.find("/topics")
        if counts is None:
            raise ServiceFailed(f"{service.url} has no /topics: is this the address of a qstash-clone service?")
        for name, count in sorted(counts.items()):
            print(f"{name}  {_counted(count)}")
        return 0
    path = f"/topics/{quote(topic, safe='')}"
    if action in _METHODS:
        service.send(_METHODS[action], path, fields=fields if action != "delete" else None)
    if action == "delete":
        print(f"{topic} is deleted")
        return 0
    found = service.find(path)
    if found is None:
        raise ServiceFailed(f"{service.url} has no topic {topic}.")
    print(_shown(found))
    return 0


def _shown(topic: dict[str, Any]) -> str:
    limits = [
        "records stay for ever" if topic["retentionMs"] < 0 else f"records stay {topic['retentionMs']} ms",
        "without a limit of size"
        if topic["retentionBytes"] < 0
        else f"at most {topic['retentionBytes']} bytes in a partition",
        f"timestamp type {topic['timestampType']}",
    ]
    lines = [f"{topic['name']}  {_counted(topic['partitions'])}, " + ", ".join(limits)]
    lines += [f"  partition {log['partition']}: offsets {log['start']} to {log['end']}" for log in topic["logs"]]
    return "\n".join(lines)


def _counted(partitions: int) -> str:
    return f"{partitions} partition{'' if partitions == 1 else 's'}"


def _value(layers: Sequence[Layer], name: str) -> str | None:
    return next((value for layer in layers if (value := layer.values.get(name, "").strip())), None)
