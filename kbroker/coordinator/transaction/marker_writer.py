"""How the coordinator ends a transaction on a partition, wherever its leader is."""

from typing import NamedTuple, Protocol

from kbroker.coordinator.deferred import Answer


class TransactionMarker(NamedTuple):
    """A COMMIT or ABORT marker, as WriteTxnMarkers carries it."""

    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    commit: bool
    transaction_version: int = 0


class MarkerWriter(Protocol):
    """Writes markers to the partitions of data and of offsets."""

    def write(self, topic: str, partition: int, marker: TransactionMarker) -> Answer[None]:
        """Append a marker as the partition's leader; done when it is committed.

        Raises, or the Deferred gives, KafkaError: UNKNOWN_TOPIC_OR_PARTITION when there is no
        such partition any more; INVALID_PRODUCER_EPOCH and TRANSACTION_COORDINATOR_FENCED when the
        marker is a zombie's; anything else is worth another try.
        """
        ...
