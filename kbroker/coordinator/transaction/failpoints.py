"""Failpoints and planted faults of transactions; see ``kbroker.common.faults``.

They sit around what the coordinators write to, so that nothing of them is in the way of a broker
that runs without: the composition root puts them there only when one is asked for.

``txn.init``, ``txn.add``, ``txn.prepare`` and ``txn.complete`` are records of
``__transaction_state``, ``txn.offsets`` those of TxnOffsetCommit, ``txn.marker`` is one partition's
COMMIT or ABORT; each dies ``before_write`` or ``after_write``. ``txn.end.answered`` dies when the
answer to EndTxn has left.
"""

from typing import Final

from kbroker.common.faults import Faults
from kbroker.common.timer import Timer
from kbroker.coordinator.deferred import Answer
from kbroker.coordinator.transaction.marker_writer import MarkerWriter, TransactionMarker
from kbroker.coordinator.transaction.transaction_metadata import (
    TransactionMetadata,
    TransactionState,
)
from kbroker.coordinator.transaction.transaction_records import TransactionRecordSerde
from kbroker.coordinator.transaction.transaction_shard import TransactionShard
from kbroker.coordinator.writer import PartitionListener, PartitionWriter
from kbroker.metadata.topic_names import TRANSACTION_STATE
from kbroker.protocol.error_codes import ErrorCode
from kbroker.record.batch import RecordBatchHeader
from kbroker.record.record import iter_records

ANSWERED_AFTER_S: Final = 0.02
"""The answer has left by then, the client's next request may be under way."""
MARKERS_PER_LOST_ONE: Final = 7
"""With the planted fault ``marker_lost``: one in so many is not written."""

_STEPS: Final = {
    TransactionState.EMPTY: "init",
    TransactionState.ONGOING: "add",
    TransactionState.PREPARE_COMMIT: "prepare",
    TransactionState.PREPARE_ABORT: "prepare",
    TransactionState.COMPLETE_COMMIT: "complete",
    TransactionState.COMPLETE_ABORT: "complete",
}


class FailpointWriter:
    """``PartitionWriter`` of a coordinator that dies before or after the write of a step."""

    def __init__(self, writer: PartitionWriter, faults: Faults, timer: Timer) -> None:
        self._writer = writer
        self._faults = faults
        self._timer = timer
        self._serde = TransactionRecordSerde()

    def append(self, topic: str, partition: int, batch: bytearray) -> int:
        step = self._step(topic, batch)
        self._faults.hit(f"txn.{step}.before_write")
        committed_at = self._writer.append(topic, partition, batch)
        self._faults.hit(f"txn.{step}.after_write")
        if step == "prepare" and self._faults.is_due("txn.end.answered"):
            self._timer.schedule(ANSWERED_AFTER_S, self._faults.die)
        return committed_at

    def _step(self, topic: str, batch: bytearray) -> str:
        """The step whose record this is, "other" for what is no step of a transaction."""
        header = RecordBatchHeader(batch)
        if topic != TRANSACTION_STATE:
            return "offsets" if header.is_transactional and not header.is_control else "other"
        record = next(iter(iter_records(batch)))
        assert record.key is not None
        _, metadata = self._serde.deserialize(record.key, record.value)
        return "other" if metadata is None else _STEPS.get(metadata.state, "other")

    def high_watermark(self, topic: str, partition: int) -> int:
        return self._writer.high_watermark(topic, partition)

    def max_batch_size(self, topic: str, partition: int) -> int:
        return self._writer.max_batch_size(topic, partition)

    def register_listener(self, topic: str, partition: int, listener: PartitionListener) -> None:
        self._writer.register_listener(topic, partition, listener)

    def deregister_listener(self, topic: str, partition: int, listener: PartitionListener) -> None:
        self._writer.deregister_listener(topic, partition, listener)


class FailpointMarkerWriter:
    """``MarkerWriter`` that dies before or after a marker, or loses one (``marker_lost``)."""

    def __init__(self, markers: MarkerWriter, faults: Faults) -> None:
        self._markers = markers
        self._faults = faults
        self._passed = 0

    def write(self, topic: str, partition: int, marker: TransactionMarker) -> Answer[None]:
        self._passed += 1
        if self._faults.planted == "marker_lost" and self._passed % MARKERS_PER_LOST_ONE == 0:
            return None
        self._faults.hit("txn.marker.before_write")
        outcome = self._markers.write(topic, partition, marker)
        self._faults.hit("txn.marker.after_write")
        return outcome


class UnfencedTransactionShard(TransactionShard):
    """The planted fault ``epoch_not_fenced``: a zombie may go on as if it were still the one.

    The logs' own check of epochs is off with it (``ProducerStateManager``).
    """

    @staticmethod
    def _check_producer(
        metadata: TransactionMetadata | None, producer_id: int, producer_epoch: int
    ) -> ErrorCode:
        present = producer_epoch if metadata is None else metadata.producer_epoch
        return TransactionShard._check_producer(metadata, producer_id, present)

    @staticmethod
    def _is_valid_epoch(
        metadata: TransactionMetadata, producer_epoch: int, *, bumps: bool, is_retry: bool
    ) -> bool:
        return True
