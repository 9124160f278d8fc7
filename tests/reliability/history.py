"""What the producers of one round did, as they saw it themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class RecordId(NamedTuple):
    """A record's name: the ``number``-th that ``producer`` sent to ``partition``, from 0."""

    producer: int
    partition: int
    number: int


@dataclass
class History:
    """Of each record sent: acknowledged at an offset, failed, or never answered.

    ``sent`` counts per (producer, partition): numbers 0 .. sent-1 were handed to the client, in
    that order. A record neither in ``acked`` nor in ``failed`` has an unknown outcome. A failed
    one may still have been written: the error can come after the append. ``fatal`` lists errors
    after which a producer could not go on.
    """

    sent: dict[tuple[int, int], int] = field(default_factory=dict)
    acked: dict[RecordId, int] = field(default_factory=dict)
    failed: dict[RecordId, str] = field(default_factory=dict)
    fatal: list[str] = field(default_factory=list)


class LogEntry(NamedTuple):
    """One record as a consumer read it back; ``record`` is None when its value is not ours."""

    offset: int
    record: RecordId | None


def value_of(record: RecordId, size: int) -> bytes:
    """The value that carries a record's name, padded to at least ``size`` bytes.

    The padding repeats the name, so that a value torn or mixed with another is recognised.
    """
    name = b"%d/%d/%d;" % record
    return name * max(1, -(-size // len(name)))


def record_of(value: bytes | None) -> RecordId | None:
    """The name in a value; None when the value is not, in full, one that ``value_of`` made."""
    if not value:
        return None
    name, separator, _ = value.partition(b";")
    numbers = name.split(b"/")
    if not separator or len(numbers) != 3 or not all(part.isdigit() for part in numbers):
        return None
    if value != (name + separator) * (len(value) // (len(name) + 1)):
        return None
    producer, partition, number = map(int, numbers)
    return RecordId(producer, partition, number)
