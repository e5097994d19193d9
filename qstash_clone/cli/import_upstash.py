"""`qstash-clone import-upstash`: copies schedules, URL groups and queues from another QStash service into this one."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import quote

from qstash_clone.cli.copies import CannotRebuild, Definition, Kind, Queues, Schedules, UrlGroups
from qstash_clone.cli.import_arguments import SOURCE_TOKEN, TARGET_TOKEN, TARGET_URL
from qstash_clone.cli.remote import Fields, RemoteService, RequestRefused
from qstash_clone.errors import ConfigurationError, QstashCloneError, ServiceFailed
from qstash_clone.setting_layers import Layer

_KINDS: Final[dict[str, Kind]] = {"url-groups": UrlGroups(), "queues": Queues(), "schedules": Schedules()}
_ROLES: Final = {SOURCE_TOKEN: "copy from", TARGET_TOKEN: "copy into"}


class Action(StrEnum):
    """What became of one object."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    """It cannot be made again from what the source shows."""
    FAILED = "failed"
    """The target refused it, or keeps it in another form."""


_WOULD: Final = {Action.CREATED: "would create", Action.CHANGED: "would change", Action.SKIPPED: "would skip"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One line of the report."""

    action: Action
    noun: str
    name: str
    notes: Sequence[str] = ()
    fires_there: bool = False
    """Of a schedule."""
    fires_here: bool = False


def run(parsed: argparse.Namespace, layers: Sequence[Layer]) -> int:
    """Copy, and report each object and a summary; 0 if every object is here now, else 1.

    Raises `ConfigurationError` for an address or a token that is missing or not accepted, and `ServiceFailed` for a
    service that does not answer as it should.
    """
    target_url = parsed.target_url or _value(layers, TARGET_URL)
    if target_url is None:
        raise ConfigurationError(f"{TARGET_URL} is not set; name there, or with --to, the service to copy into.")
    tokens: dict[str, str] = {}
    for variable, role in _ROLES.items():
        token = _value(layers, variable)
        if token is None:
            raise ConfigurationError(f"{variable} is not set; it is the token of the service to {role}.")
        tokens[variable] = token
    with (
        RemoteService("--from", parsed.source_url, SOURCE_TOKEN, tokens[SOURCE_TOKEN]) as source,
        RemoteService(
            "--to" if parsed.target_url else TARGET_URL, target_url, TARGET_TOKEN, tokens[TARGET_TOKEN]
        ) as target,
    ):
        if source.url == target.url:
            raise ConfigurationError(f"{source.url} is both the service to copy from and the one to copy into.")
        return _report(
            Import(source, target, only=parsed.only, is_dry_run=parsed.is_dry_run, activates=parsed.activates)
        )


def _value(layers: Sequence[Layer], name: str) -> str | None:
    return next((value for layer in layers if (value := layer.values.get(name, "").strip())), None)


class Import:
    """One run over some kinds of objects."""

    def __init__(
        self, source: RemoteService, target: RemoteService, *, only: Sequence[str], is_dry_run: bool, activates: bool
    ) -> None:
        self.source = source
        self.target = target
        self.is_dry_run = is_dry_run
        self._only = only
        self._activates = activates

    def outcomes(self) -> Iterator[Outcome]:
        """One for each object of the source, as soon as it is done. Raises what ends the run early."""
        for name, kind in _KINDS.items():
            if name in self._only:
                yield from self._copy(kind)

    def _copy(self, kind: Kind) -> Iterator[Outcome]:
        at_source = self.source.list(kind.path)
        try:
            here = {kind.name_of(shown): shown for shown in self.target.list(kind.path)}
        except CannotRebuild as error:
            raise ServiceFailed(f"{self.target.url} lists a {kind.noun} without a name: {error}.") from error
        for shown in at_source:
            name = "?"
            try:
                name = kind.name_of(shown)
                yield self._copy_one(kind, name, shown, here.get(name))
            except CannotRebuild as error:
                yield Outcome(action=Action.SKIPPED, noun=kind.noun, name=name, notes=[str(error)])
            except RequestRefused as error:
                yield Outcome(action=Action.FAILED, noun=kind.noun, name=name, notes=[str(error)])

    def _copy_one(self, kind: Kind, name: str, shown: Fields, shown_here: Fields | None) -> Outcome:
        wanted = kind.definition_of(shown)
        here = None if shown_here is None else kind.definition_of(shown_here)
        differing = _differing(wanted, here)
        if differing:
            kind.check(wanted)
        fires_there = fires = False
        notes = [", ".join(differing)] if differing and here is not None else []
        if isinstance(kind, Schedules):
            fires_there = not shown.get("isPaused")
            fires_here = shown_here is not None and not shown_here.get("isPaused")
            # What somebody has resumed here goes on firing; what is new waits until somebody says so.
            fires = fires_here or (self._activates and fires_there)
            wanted["isPaused"] = not fires
            notes.append("active" if fires else "paused" if fires_there else "paused, as at the source")
            if shown_here is not None and fires != fires_here:
                differing.append("isPaused")
        notes += [f"not copied: {part}" for part in kind.unknown_parts(shown)]
        action = Action.CREATED if here is None else Action.CHANGED if differing else Action.UNCHANGED
        if differing and not self.is_dry_run:
            if differing != ["isPaused"]:
                kind.put(self.target, name, wanted, here)
            remaining = self._complete(kind, name, wanted)
            if remaining:
                action = Action.FAILED
                notes = [f"it is here now, but not as at the source: {', '.join(remaining)}"]
        return Outcome(action=action, noun=kind.noun, name=name, notes=notes, fires_there=fires_there, fires_here=fires)

    def _complete(self, kind: Kind, name: str, wanted: Definition) -> list[str]:
        """Pause or resume a schedule that is not yet as it should be, and return the parts that are not as wanted: a
        service may drop what it does not know, also the wish for a paused schedule."""
        path = f"{kind.path}/{quote(name, safe='')}"
        shown = self.target.find(path)
        if shown is None:
            return list(wanted)
        is_paused = wanted.pop("isPaused", None)
        if is_paused is not None and bool(shown.get("isPaused")) is not is_paused:
            self.target.send("PATCH", f"{path}/{'pause' if is_paused else 'resume'}")
        return _differing(wanted, kind.definition_of(shown))


def _differing(wanted: Definition, here: Definition | None) -> list[str]:
    """The wanted parts that are not as they are here."""
    return [part for part in wanted if here is None or wanted[part] != here.get(part)]


def _report(run: Import) -> int:
    counts: Counter[Action] = Counter()
    waiting = twice = 0
    try:
        for outcome in run.outcomes():
            counts[outcome.action] += 1
            waiting += outcome.fires_there and not outcome.fires_here
            twice += outcome.fires_there and outcome.fires_here
            _print_line(outcome, is_dry_run=run.is_dry_run)
    except QstashCloneError:
        print(f"\nEnded early. {_summary(run, counts)}", flush=True)
        raise
    print(f"\n{_summary(run, counts)}")
    if waiting:
        print(f"{_schedules(waiting)} at {run.source.url} only: pause there before you resume here.")
    if twice:
        print(f"{_schedules(twice)} at both services: pause there, or here.")
    return 1 if counts[Action.SKIPPED] or counts[Action.FAILED] else 0


def _print_line(outcome: Outcome, *, is_dry_run: bool) -> None:
    word = _WOULD.get(outcome.action, outcome.action) if is_dry_run else outcome.action
    line = f"{word:<12}  {outcome.noun:<9}  {outcome.name}  {'; '.join(outcome.notes)}".rstrip()
    # Names and reasons come from elsewhere: they must not steer the terminal.
    print("".join(one if one.isprintable() else "?" for one in line), flush=True)


def _schedules(count: int) -> str:
    return "1 schedule fires" if count == 1 else f"{count} schedules fire"


def _summary(run: Import, counts: Counter[Action]) -> str:
    told = ", ".join(f"{counts[action]} {action}" for action in Action)
    summary = f"From {run.source.url} to {run.target.url}: {told}."
    return f"A dry run, nothing was changed. {summary}" if run.is_dry_run else summary
