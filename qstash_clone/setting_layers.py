"""Where settings come from: layers of variables, of which the earlier wins, each name checked."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from qstash_clone.errors import ConfigurationError
from qstash_clone.settings import PARENT_FD_VARIABLE, PREFIX, RULES, Settings, variable_of


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One place that settings come from: the command line, the environment, a file."""

    name: str
    values: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Settings, and for each field set somewhere the layer and the variable that set it."""

    settings: Settings
    origins: Mapping[str, str]


def resolve(layers: Sequence[Layer], *, sdk_names: bool = True) -> Resolved:
    """Read settings from layers, of which an earlier one wins; an empty value counts as not set.

    `sdk_names=False` ignores `QSTASH_TOKEN` and its like, which in a developer's shell belong to some other service.
    Raises ConfigurationError for a malformed value or a name that is no setting; credentials are not checked.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        _refuse_unknown(layer)
    for name, rule in RULES.items():
        names = (variable_of(name, own=True), *(v for v in rule.variables if sdk_names or not v.startswith("QSTASH_")))
        for layer, variable in ((layer, variable) for layer in layers for variable in names):
            text = layer.values.get(variable, "").strip()
            if not text or _is_service_link(variable, text):
                continue
            place = layer.name if layer.name.startswith("--") else variable
            try:
                values[name] = rule.parse(text)
            except ValueError as error:
                shown = "" if rule.secret else f' "{text[:100]}"'
                raise ConfigurationError(f"{place}: invalid value{shown}; give {error}.") from None
            origins[name] = layer.name if place == layer.name else f"{layer.name}, {variable}"
            break
    return Resolved(settings=Settings(**values), origins=origins)


def settings_of(environ: Mapping[str, str]) -> Settings:
    """The settings that an environment describes, with usable credentials.

    Raises ConfigurationError, one sentence naming the variable, for a value that is malformed or out of range,
    for a name that is no setting, and for credentials that are missing or public knowledge.
    """
    settings = resolve([Layer(name="environment", values=environ)]).settings
    settings.check_credentials()
    return settings


def _is_service_link(variable: str, text: str) -> bool:
    # Kubernetes describes a service called "qstash-clone" to every pod in variables of these very names.
    return variable == PREFIX + "PORT" and text.startswith(("tcp://", "udp://"))


_NOT_OURS = re.compile(PREFIX + r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?|TEST_\w+)")
"""More of those service links, and what the test-suite tells itself."""


def _refuse_unknown(layer: Layer) -> None:
    known = {variable_of(name, own=True) for name in RULES} | {PARENT_FD_VARIABLE}
    for variable in layer.values:
        if variable.startswith(PREFIX) and variable not in known and not _NOT_OURS.fullmatch(variable):
            near = difflib.get_close_matches(variable[len(PREFIX) :], [name[len(PREFIX) :] for name in known], n=1)
            hint = f"did you mean {PREFIX}{near[0]}?" if near else "see `qstash-clone config` for all of them."
            raise ConfigurationError(f"{variable} is not a setting of this release; {hint}")
