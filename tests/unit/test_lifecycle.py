"""The states of a message and its log are consistent with each other."""

import pytest

from qstash_clone.domain.lifecycle import TRANSITIONS, LogEvent
from qstash_clone.domain.message import State

BY_VERB = {transition.verb: transition for transition in TRANSITIONS}
LAST_EVENTS = {
    State.DELIVERED: LogEvent.DELIVERED,
    State.FAILED: LogEvent.FAILED,
    State.CANCELED: LogEvent.CANCELED,
}
"""The entry that ends the log of a message in a final state."""


def targets_of(source: State | None) -> frozenset[State]:
    """The states that may follow; None stands for the time before there is a message."""
    return frozenset(
        transition.target
        for transition in TRANSITIONS
        if (source in transition.sources if source is not None else not transition.sources)
    )


def log_of(*verbs: str) -> str:
    """The wire names written by these steps, each of which must follow from the one before."""
    events: list[LogEvent] = []
    state = None
    for verb in verbs:
        transition = BY_VERB[verb]
        assert (state in transition.sources) if state is not None else not transition.sources, verb
        state = transition.target
        events += transition.writes
    return " ".join(event.wire_name for event in events)


def test_letters_and_wire_names() -> None:
    assert {event.value: event.wire_name for event in LogEvent} == {
        "C": "CREATED",
        "A": "ACTIVE",
        "D": "DELIVERED",
        "E": "ERROR",
        "R": "RETRY",
        "F": "FAILED",
        "Q": "CANCEL_REQUESTED",
        "X": "CANCELED",
    }


def test_verbs_are_unique() -> None:
    assert len(BY_VERB) == len(TRANSITIONS)


@pytest.mark.parametrize("state", State)
def test_a_state_is_final_if_nothing_leads_out_of_it(state: State) -> None:
    assert state.is_final == (not targets_of(state))
    assert state.is_final == (state in LAST_EVENTS)


def test_every_state_can_be_reached() -> None:
    reached: set[State] = set()
    found = set(targets_of(None))
    while found - reached:
        reached |= found
        found = {target for state in reached for target in targets_of(state)}
    assert reached == set(State)


def test_a_life_begins_with_created_and_only_once() -> None:
    for transition in TRANSITIONS:
        assert (LogEvent.CREATED in transition.writes) == (not transition.sources), transition.verb
    assert targets_of(None) == {State.DELAYED, State.QUEUED}


def test_the_final_event_is_written_last_and_nowhere_else() -> None:
    for transition in TRANSITIONS:
        ends = [event for event in transition.writes if event in {"D", "F", "X"}]
        expected = LAST_EVENTS.get(transition.target)
        assert ends == ([expected] if expected else []), transition.verb
        assert not ends or transition.writes[-1] is expected


def test_every_attempt_that_starts_is_logged() -> None:
    for transition in TRANSITIONS:
        starts = transition.target is State.ACTIVE and transition.verb != "request cancellation"
        assert (LogEvent.ACTIVE in transition.writes) == starts, transition.verb


@pytest.mark.parametrize(
    ("verbs", "log"),
    [
        (("publish", "claim", "deliver"), "CREATED ACTIVE DELIVERED"),
        (("publish for later", "come due", "claim", "deliver"), "CREATED ACTIVE DELIVERED"),
        (("publish", "claim", "fail"), "CREATED ACTIVE ERROR FAILED"),
        (
            ("publish", "claim", "retry", "come due", "claim", "deliver"),
            "CREATED ACTIVE ERROR RETRY ACTIVE DELIVERED",
        ),
        (
            ("publish", "claim", "retry", "come due", "claim", "fail"),
            "CREATED ACTIVE ERROR RETRY ACTIVE ERROR FAILED",
        ),
        (("publish for later", "cancel"), "CREATED CANCEL_REQUESTED CANCELED"),
        (("publish", "cancel"), "CREATED CANCEL_REQUESTED CANCELED"),
        (("publish", "claim", "request cancellation", "deliver"), "CREATED ACTIVE CANCEL_REQUESTED DELIVERED"),
        (
            ("publish", "claim", "request cancellation", "cancel after a failed attempt"),
            "CREATED ACTIVE CANCEL_REQUESTED ERROR CANCELED",
        ),
        (
            ("publish", "claim", "request cancellation", "release", "cancel instead of claiming"),
            "CREATED ACTIVE CANCEL_REQUESTED CANCELED",
        ),
        (("publish", "claim", "reclaim", "fail"), "CREATED ACTIVE ACTIVE ERROR FAILED"),
    ],
)
def test_logs_are_those_of_the_protocol(verbs: tuple[str, ...], log: str) -> None:
    assert log_of(*verbs) == log
