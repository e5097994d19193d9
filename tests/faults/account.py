"""What the ledgers of a fault run say in the end."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.faults.inspection import Remains
from tests.faults.killing import Kills
from tests.faults.load import LANES, Answers, Kind
from tests.faults.recording import Exchange

CALLBACK_PATH = "/callback"


@dataclass(slots=True, kw_only=True)
class Account:
    """Every message: acknowledged, arrived, ended."""

    seed: int
    kills: Kills
    answers: Answers
    exchanges: list[Exchange] = field(default_factory=list[Exchange])
    dead_letters: set[str] = field(default_factory=set[str])
    """Ids of the messages that they were."""
    lost_leases: set[str] = field(default_factory=set[str])
    """Ids whose worker was too slow to renew, by the workers' logs or because it was paused for long."""
    remains: Remains | None = None
    duration_s: float = 0.0
    drain_s: float = 0.0

    @property
    def delivered(self) -> set[str]:
        """Ids whose receiver said 200."""
        return {exchange.message_id for exchange in self.exchanges if exchange.status == 200}

    @property
    def lost(self) -> set[str]:
        """Ids that were acknowledged and neither delivered nor dead-lettered."""
        return self.answers.acknowledged.keys() - self.delivered - self.dead_letters

    @property
    def unreported(self) -> set[str]:
        """Ids whose callback, or failure callback, never arrived."""
        reported = {one.key for one in self.exchanges if one.path == CALLBACK_PATH and one.status == 200}
        to_report = {one for one, kind in self.answers.acknowledged.items() if kind in (Kind.REPORTED, Kind.DOOMED)}
        return to_report - reported

    @property
    def wrongly_dead(self) -> set[str]:
        """Ids of dead letters that nobody refused, or of the refused that are none."""
        doomed = {one.message_id for one in self.exchanges if _kind_of(one) is Kind.DOOMED}
        return doomed ^ self.dead_letters

    @property
    def needless_retries(self) -> int:
        """Arrivals that are not a first attempt although no answer was a failure."""
        may_fail = (Kind.RETRIED, Kind.DOOMED, None)
        return sum(one.retried > 0 and _kind_of(one) not in may_fail for one in self.exchanges)

    @property
    def corrupt(self) -> int:
        return sum(exchange.key == "corrupt" for exchange in self.exchanges)

    @property
    def duplicates(self) -> dict[str, int]:
        """Ids of which an attempt arrived more than once, and how often too many."""
        arrivals = Counter((one.message_id, one.retried) for one in self.exchanges)
        extra: Counter[str] = Counter()
        for (message_id, _), count in arrivals.items():
            extra[message_id] += count - 1
        return {message_id: count for message_id, count in extra.items() if count}

    @property
    def unexplained(self) -> set[str]:
        """Duplicates of messages that were not in flight when anything was killed."""
        return self.duplicates.keys() - self.kills.in_flight - self.lost_leases

    @property
    def published_twice(self) -> set[str]:
        """Keys that were stored more than once: the answer to the first publish was lost."""
        ids: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for one in self.exchanges:
            if one.path != CALLBACK_PATH:
                # Every endpoint of a group gets a message of its own.
                ids[one.key, one.path].add(one.message_id)
        return {key for (key, _), found in ids.items() if len(found) > 1}

    @property
    def most_at_once(self) -> int:
        """The most requests that were under way at once for one flow-control key."""
        return max(_most_at_once(self.exchanges, str(lane)) for lane in range(LANES))

    def table(self) -> str:
        """The account for people."""
        duplicates, acknowledged = self.duplicates, self.answers.acknowledged
        kinds = Counter(acknowledged.values())
        in_flight_at = self.kills.in_flight_at or [0]
        rows = [
            ("kills (kill -9)", self.kills),
            ("in flight at each kill", f"{min(in_flight_at)} to {max(in_flight_at)}"),
            ("acknowledged messages", len(acknowledged)),
            *((f"  {kind}", kinds[kind]) for kind in Kind),
            ("publishes answered 503 / unanswered", f"{self.answers.refused} / {self.answers.unanswered}"),
            ("delivered / dead-lettered", f"{len(acknowledged.keys() & self.delivered)} / {self._dead()}"),
            ("lost", len(self.lost)),
            ("callbacks lost", len(self.unreported)),
            ("duplicate arrivals", f"{sum(duplicates.values())} of {len(duplicates)} messages"),
            ("  in flight in something killed", len(duplicates.keys() & self.kills.in_flight)),
            ("  after a lost lease only", len((duplicates.keys() & self.lost_leases) - self.kills.in_flight)),
            ("  unexplained", len(self.unexplained)),
            ("stored twice, first answer lost", len(self.published_twice)),
            ("damaged", self.corrupt),
            ("most at once for one key", self.most_at_once),
            ("left in the store", self.remains if self.remains and not self.remains.is_empty else "nothing"),
            ("duration", f"{self.duration_s:.0f} s, of which draining {self.drain_s:.1f} s"),
            ("seed", self.seed),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def _dead(self) -> int:
        return len(self.answers.acknowledged.keys() & self.dead_letters)


def _kind_of(exchange: Exchange) -> Kind | None:
    """None for a callback."""
    return None if exchange.path == CALLBACK_PATH else Kind(exchange.path.split("/")[1])


def _most_at_once(exchanges: list[Exchange], lane: str) -> int:
    changes: list[tuple[int, int]] = []
    for one in exchanges:
        if _kind_of(one) in (Kind.LIMITED, Kind.QUEUED_AND_LIMITED) and one.path.endswith(f"/{lane}"):
            assert one.ended_ns is not None
            changes += [(one.began_ns, 1), (one.ended_ns, -1)]
    most = count = 0
    # One that ends when another begins has ended before.
    for _, change in sorted(changes):
        count += change
        most = max(most, count)
    return most
