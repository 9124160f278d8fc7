"""What a shard's method returns: the records to write, and the answer they allow."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from kbroker.protocol.errors import KafkaError

R = TypeVar("R")


class CoordinatorRecord(NamedTuple):
    """One record as messages: what is written and, unencoded, what is replayed."""

    key: Any
    """A message of ``protocol.internal_records`` named ...Key."""
    value: Any | None
    """The matching ...Value message; None is a tombstone."""
    value_version: int = 0


class CoordinatorResult(NamedTuple, Generic[R]):
    """Records of one step, appended as one batch, and the response to release with them."""

    records: Sequence[CoordinatorRecord]
    response: R
    replay: bool = True
    """False when the step has changed the state itself (classic groups: most of their state is
    never written); then ``on_done`` undoes what a failed write must undo."""
    on_done: "Callable[[KafkaError | None], CoordinatorResult[None] | None] | None" = None
    """Called once: with None when the records are committed, with the error when they are not.
    May return a further step."""
    producer_id: int = -1
    producer_epoch: int = -1
    """Whose transaction the records belong to; -1 for none."""
    atomic: bool = True
    """False lets the records be written as several batches when they do not fit in one."""


def then_also(
    first: "Callable[[KafkaError | None], CoordinatorResult[None] | None] | None",
    second: "Callable[[KafkaError | None], CoordinatorResult[None] | None]",
) -> "Callable[[KafkaError | None], CoordinatorResult[None] | None]":
    """One ``on_done`` that calls both, ``second`` last; the further step is the first's."""
    if first is None:
        return second

    def both(error: KafkaError | None) -> CoordinatorResult[None] | None:
        step = first(error)
        second(error)
        return step

    return both
