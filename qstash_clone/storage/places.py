"""Places in a stream that is spread over all partitions: one order, which ids of dead letters and cursors name."""

from dataclasses import dataclass
from typing import Self

from qstash_clone.errors import InvalidRequest

_MAX_TEXT = 40


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Sorts by time, then by sequence, then by partition; written `<unix ms>-<number>`."""

    ms: int
    number: int
    """Sequence of the stream entry, times the number of partitions, plus the partition."""

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"

    @classmethod
    def of_entry(cls, entry_id: bytes, partition: int, partitions: int) -> Self:
        """The place of an entry of one partition's stream."""
        ms, _, sequence = entry_id.partition(b"-")
        return cls(int(ms), int(sequence) * partitions + partition)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The place that is written like this; None if none is."""
        ms, dash, number = text.partition("-")
        digits = ms + number
        if not dash or not (ms and number and digits.isascii() and digits.isdigit()) or len(text) > _MAX_TEXT:
            return None
        place = cls(int(ms), int(number))
        return place if str(place) == text and place.ms < 1 << 63 and place.number < 1 << 62 else None

    def entry_of(self, partitions: int) -> tuple[int, str]:
        """Partition and entry id of what is at this place."""
        sequence, partition = divmod(self.number, partitions)
        return partition, f"{self.ms}-{sequence}"


def parse_cursor(cursor: str | None) -> Place | None:
    """The place a cursor names. Raises `InvalidRequest` for a text that is none."""
    if cursor is None:
        return None
    place = Place.parse(cursor)
    if place is None:
        raise not_a_cursor(cursor)
    return place


def not_a_cursor(text: str) -> InvalidRequest:
    """What to raise for a text that was given as a cursor."""
    return InvalidRequest(f'cursor: "{text[:100]}" was not returned by an earlier answer')


def bounds_behind(after: Place, partition: int, partitions: int, *, newest_first: bool) -> str:
    """The end of a partition's stream range next to `after`, so that the range holds all that follows it, not it."""
    of_partition, entry = after.entry_of(partitions)
    # Entries of one millisecond are ordered by sequence, then partition.
    follows = partition < of_partition if newest_first else partition > of_partition
    return entry if follows else f"({entry}"
