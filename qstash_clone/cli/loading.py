"""Settings for a command, from its arguments, the environment, a file and the defaults, in this order."""

import os
from collections.abc import Mapping, Sequence

from qstash_clone.cli.env_file import read_env_file
from qstash_clone.errors import ConfigurationError
from qstash_clone.setting_layers import Layer, Resolved, resolve
from qstash_clone.settings import (
    DEVELOPMENT_CURRENT_SIGNING_KEY,
    DEVELOPMENT_NEXT_SIGNING_KEY,
    DEVELOPMENT_TOKEN,
    PREFIX,
    RULES,
    Settings,
    masked,
    variable_of,
)

_DEV_DEFAULTS = Layer(
    name="default of dev",
    values={
        PREFIX + "DEV": "true",
        PREFIX + "TOKEN": DEVELOPMENT_TOKEN,
        PREFIX + "CURRENT_SIGNING_KEY": DEVELOPMENT_CURRENT_SIGNING_KEY,
        PREFIX + "NEXT_SIGNING_KEY": DEVELOPMENT_NEXT_SIGNING_KEY,
        PREFIX + "ALLOW_PRIVATE_DESTINATIONS": "true",
        PREFIX + "SHUTDOWN_GRACE_MS": "3000",
        PREFIX + "LOG_FORMAT": "text",
    },
)


def find_layers(flags: Mapping[str, tuple[str, str]], *, env_file: str | None) -> list[Layer]:
    """Where settings come from, the winner first; `flags` maps a field to its flag and value.

    Raises ConfigurationError if the file cannot be read.
    """
    layers = [Layer(name=flag, values={PREFIX + field.upper(): value}) for field, (flag, value) in flags.items()]
    for field, (flag, value) in flags.items():
        if not value.strip():
            raise ConfigurationError(f"{flag}: give a value for {field}.")
    layers.append(Layer(name="environment", values=os.environ))
    if env_file is not None:
        layers.append(Layer(name=env_file, values=read_env_file(env_file)))
    return layers


def load(layers: Sequence[Layer]) -> Settings:
    """Settings of an api or a worker, with usable credentials; raises ConfigurationError."""
    settings = resolve(layers).settings
    settings.check_credentials()
    return settings


def load_dev(layers: Sequence[Layer]) -> Settings:
    """Settings of `dev`; raises ConfigurationError, also if public credentials would be open to other machines."""
    settings = _resolve_dev(layers).settings
    settings.check_credentials()
    return settings


def describe(layers: Sequence[Layer], *, as_dev: bool) -> str:
    """One line for each setting: variable, value with secrets masked, origin; then what keeps it from being served."""
    resolved = _resolve_dev(layers) if as_dev else resolve(layers)
    rows = [
        (
            variable_of(name),
            masked(name, getattr(resolved.settings, name)) or "-",
            resolved.origins.get(name, "default"),
        )
        for name in RULES
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for name, value, origin in rows]
    try:
        resolved.settings.check_credentials()
    except ConfigurationError as error:
        lines += ["", f"Not ready to serve: {error}"]
    return "\n".join(lines)


def _resolve_dev(layers: Sequence[Layer]) -> Resolved:
    return resolve([*layers, _DEV_DEFAULTS], sdk_names=False)
