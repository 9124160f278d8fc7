"""What outlives a simulated broker: its log of transactions, and the partitions of data.

Before and after each write the broker may die.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from kbroker.coordinator.partitioning import partition_for
from kbroker.coordinator.transaction.marker_writer import TransactionMarker
from kbroker.coordinator.transaction.transaction_metadata import TransactionMetadata
from kbroker.coordinator.transaction.transaction_records import TransactionRecordSerde
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.record import iter_records
from tests.unit.coordinator.memory_log import MemoryLog
from tests.unit.coordinator.transaction.coordinated import PARTITIONS

TopicPartition = tuple[str, int]
Producer = tuple[int, int]
"""Producer id and epoch."""


class Crash(BaseException):
    """The broker is gone, in the middle of whatever it did."""


@dataclass
class Transaction:
    """What one producer wrote between two ends, and what it knows of it."""

    name: str
    written: set[TopicPartition] = field(default_factory=set)
    added: set[TopicPartition] = field(default_factory=set)
    told: bool | None = None
    """Commit or abort as it was acknowledged; None when no answer came."""


class PartitionLog:
    """A partition of data: what the leader keeps of producers, and who is open in it."""

    def __init__(self) -> None:
        self.epochs: dict[int, int] = {}
        self.open: dict[int, list[Transaction]] = defaultdict(list)
        self.outcomes: list[tuple[Transaction, bool]] = []

    def has_open(self, producer: Producer) -> bool:
        """A transaction of this epoch: the coordinator is not asked again."""
        return bool(self.open.get(producer[0])) and self.epochs.get(producer[0]) == producer[1]

    def check(self, producer_id: int, epoch: int) -> None:
        if epoch < self.epochs.get(producer_id, -1):
            raise KafkaError(ErrorCode.INVALID_PRODUCER_EPOCH)

    def write(self, producer: Producer, transaction: Transaction) -> None:
        producer_id, epoch = producer
        self.epochs[producer_id] = epoch
        if transaction not in self.open[producer_id]:
            self.open[producer_id].append(transaction)

    def end(self, marker: TransactionMarker) -> None:
        self.epochs[marker.producer_id] = marker.producer_epoch
        for transaction in self.open.pop(marker.producer_id, []):
            self.outcomes.append((transaction, marker.commit))


class Disk:
    """Counts the writes of a broker and lets it die at one of them."""

    def __init__(self) -> None:
        self.writes_left: int | None = None

    def write(self) -> None:
        """Called before and after each."""
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left <= 0:
                self.writes_left = None
                raise Crash


class SimulatedLog(MemoryLog):
    """``__transaction_state``, which dies when its disk says so."""

    def __init__(self, disk: Disk, on_record: Callable[[TransactionMetadata], None]) -> None:
        super().__init__()
        self._disk = disk
        self._on_record = on_record
        self._written: dict[str, list[tuple[int, TransactionMetadata]]] = defaultdict(list)
        self._is_dead = False

    def successor(self) -> "SimulatedLog":
        """What the next broker finds; nothing of this one is written any more."""
        self._is_dead = True
        log = SimulatedLog(self._disk, self._on_record)
        log.batches, log.ends = self.batches, self.ends
        log.high_watermarks.update(self.ends)
        log._written = self._written
        return log

    def append(self, topic: str, partition: int, batch: bytearray) -> int:
        if self._is_dead:
            raise Crash
        if self.failure is None:
            self._disk.write()
            for offset, metadata in enumerate(metadata_in(batch), self.ends[partition]):
                self._on_record(metadata)
                self._written[metadata.transactional_id].append((offset, metadata))
        committed_at = super().append(topic, partition, batch)
        self._disk.write()
        return committed_at

    def last(self, transactional_id: str, *, committed: bool) -> TransactionMetadata | None:
        """The id's last record; ``committed``: below the high watermark."""
        end = self.high_watermarks[partition_for(transactional_id, PARTITIONS)]
        for offset, metadata in reversed(self._written[transactional_id]):
            if offset < end or not committed:
                return metadata
        return None


def metadata_in(batch: bytearray) -> list[TransactionMetadata]:
    """The states that a batch of ``__transaction_state`` holds."""
    serde = TransactionRecordSerde()
    found = []
    for record in iter_records(batch):
        assert record.key is not None
        _, metadata = serde.deserialize(record.key, record.value)
        assert metadata is not None  # ids do not live long enough here to expire
        found.append(metadata)
    return found
