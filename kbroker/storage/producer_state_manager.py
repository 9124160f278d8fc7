"""Producers of one partition: sequence numbers, duplicates, open transactions (KIP-98, KIP-360).

Memory is the truth; snapshots in the log's directory shorten the way back to it after a restart:
the newest sound one is loaded and the batches behind it are replayed.
"""

import os
from collections.abc import Callable
from typing import Final, NamedTuple

from kbroker.common.files import remove_if_exists
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import NO_PRODUCER_EPOCH
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.log_environment import LogEnvironment
from kbroker.storage.log_segment import SNAPSHOT_SUFFIX, segment_file_name
from kbroker.storage.producer_state_entry import (
    MAX_SEQUENCE,
    BatchMetadata,
    CorruptSnapshotError,
    ProducerStateEntry,
    decode_snapshot,
    encode_snapshot,
)

_FENCING_EPOCH: Final = 32767
"""No client has it; a marker may repeat it, so that a producer that got there can be aborted."""


MAX_VERIFYING: Final = 10_000
"""Producers of a partition whose transaction may begin; whoever makes up more ids is forgotten."""


class CompletedTxn(NamedTuple):
    """A transaction whose marker was appended at ``last_offset``."""

    producer_id: int
    first_offset: int
    last_offset: int
    is_aborted: bool


class _Verifying(NamedTuple):
    """A producer whose transaction has no records here yet: what its coordinator was asked for."""

    producer_epoch: int
    first_sequence: int
    """The least one of the epoch."""
    begins_at_zero: bool
    since_ms: int


def _no_history(entry: ProducerStateEntry) -> None:
    entry.is_restored = False


class ProducerStateManager:
    """State of all producers that wrote to the partition, up to ``map_end_offset``."""

    __slots__ = (
        "_directory",
        "_env",
        "_load_history",
        "_name",
        "_ongoing_txns",
        "_unreplicated_txns",
        "_verifying",
        "last_snapshot_offset",
        "map_end_offset",
        "producers",
        "snapshot_offsets",
    )

    def __init__(
        self,
        env: LogEnvironment,
        directory: str,
        name: str,
        load_history: Callable[[ProducerStateEntry], None] = _no_history,
    ) -> None:
        """``name`` is the partition's, for messages. Nothing is read yet.

        ``load_history`` completes the batches of an entry that a snapshot restored, from the log.
        """
        self._env = env
        self._load_history = load_history
        self._directory = directory
        self._name = name
        self.producers: dict[int, ProducerStateEntry] = {}
        # Open transactions, first offset to producer id. Offsets grow, so the first is the oldest.
        self._ongoing_txns: dict[int, int] = {}
        # Ended ones whose marker is not below the high watermark: first offset to marker's offset.
        self._unreplicated_txns: dict[int, int] = {}
        self._verifying: dict[int, _Verifying] = {}
        self.map_end_offset = 0
        self.last_snapshot_offset = 0
        self.snapshot_offsets: list[int] = []

    # Checks before an append

    def check_data_batch(
        self,
        producer_id: int,
        producer_epoch: int,
        first_sequence: int,
        last_sequence: int,
        *,
        is_transactional: bool,
        origin: AppendOrigin,
    ) -> BatchMetadata | None:
        """The earlier batch that this one repeats, None when it is to be appended.

        KafkaError: INVALID_PRODUCER_EPOCH, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_TXN_STATE. A
        coordinator's batch has no sequence numbers, so only its epoch is looked at.
        """
        entry = self.producers.get(producer_id)
        is_client = origin is AppendOrigin.CLIENT
        if entry is None:
            if is_client and self._verifying:
                self._check_verified_sequence(producer_id, first_sequence)
            return None  # any sequence number: what was known may have expired or been deleted
        batches = entry.batches
        if (
            is_client
            and producer_epoch == entry.producer_epoch
            and batches
            and first_sequence == batches[-1].last_sequence + 1
            and producer_id not in self._verifying
            and (is_transactional or entry.current_txn_first_offset < 0)
        ):
            return None  # the next one in order, as nearly all are
        if is_client:
            duplicate = entry.find_duplicate(producer_epoch, first_sequence, last_sequence)
            if (
                duplicate is None
                and entry.is_restored
                and first_sequence != entry.last_sequence + 1
            ):
                self._load_history(entry)
                duplicate = entry.find_duplicate(producer_epoch, first_sequence, last_sequence)
            if duplicate is not None:
                return duplicate
        if self.is_fenced(producer_id, producer_epoch):
            raise KafkaError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"Epoch of producer {producer_id} in {self._name} is {producer_epoch}, which is "
                f"smaller than the last seen epoch {entry.producer_epoch}",
            )
        if producer_epoch < entry.producer_epoch:
            return None  # the planted fault "epoch_not_fenced"
        if is_client:
            self._check_verified_sequence(producer_id, first_sequence)
            self._check_sequence(entry, producer_epoch, first_sequence)
        if entry.current_txn_first_offset >= 0 and not is_transactional:
            raise KafkaError(
                ErrorCode.INVALID_TXN_STATE,
                f"Expected transactional write from producer {producer_id} in {self._name}",
            )
        return None

    def is_fenced(self, producer_id: int, producer_epoch: int) -> bool:
        """Whether the partition has seen a later epoch of the producer."""
        entry = self.producers.get(producer_id)
        if entry is None or producer_epoch >= entry.producer_epoch:
            return False
        return self._env.faults.planted != "epoch_not_fenced"

    def has_open_transaction(self, producer_id: int, producer_epoch: int) -> bool:
        """Whether the log holds records of the producer's present transaction."""
        entry = self.producers.get(producer_id)
        return (
            entry is not None
            and entry.current_txn_first_offset >= 0
            and entry.producer_epoch == producer_epoch
        )

    def start_verification(
        self, producer_id: int, producer_epoch: int, first_sequence: int, *, begins_at_zero: bool
    ) -> None:
        """The transaction coordinator is asked whether a batch may begin a transaction here.

        Until one is appended none may begin behind the least sequence number that was asked for:
        what was refused for a while comes again, and nothing may overtake it.
        ``begins_at_zero``: of level 2 (KIP-890).
        """
        known = self._verifying.get(producer_id)
        if known is None:
            since_ms = self._env.clock.time_ms()
            known = _Verifying(producer_epoch, first_sequence, begins_at_zero, since_ms)
        elif known.producer_epoch < producer_epoch:
            known = known._replace(producer_epoch=producer_epoch, first_sequence=first_sequence)
        elif known.producer_epoch == producer_epoch:
            known = known._replace(first_sequence=min(first_sequence, known.first_sequence))
        self._verifying[producer_id] = known
        if len(self._verifying) > MAX_VERIFYING:
            del self._verifying[next(iter(self._verifying))]

    def _check_verified_sequence(self, producer_id: int, first_sequence: int) -> None:
        verifying = self._verifying.get(producer_id)
        if verifying is None:
            return
        entry = self.producers.get(producer_id)
        is_new = entry is None or not entry.batches
        if (verifying.begins_at_zero and is_new and first_sequence != 0) or (
            first_sequence > verifying.first_sequence
        ):
            raise KafkaError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"Out of order sequence number for producer {producer_id} in partition "
                f"{self._name}: {first_sequence} (incoming seq. number), "
                f"{verifying.first_sequence} (earliest seen sequence)",
            )

    def _check_sequence(
        self, entry: ProducerStateEntry, producer_epoch: int, first_sequence: int
    ) -> None:
        if producer_epoch != entry.producer_epoch:
            if first_sequence != 0 and entry.producer_epoch != NO_PRODUCER_EPOCH:
                raise KafkaError(
                    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                    f"Invalid sequence number for new epoch of producer {entry.producer_id} in "
                    f"partition {self._name}: {producer_epoch} (request epoch), {first_sequence} "
                    f"(seq. number), {entry.producer_epoch} (current producer epoch)",
                )
            return
        last = entry.last_sequence
        is_next = first_sequence == last + 1 or (first_sequence == 0 and last == MAX_SEQUENCE)
        if not is_next and entry.producer_epoch != NO_PRODUCER_EPOCH:
            raise KafkaError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"Out of order sequence number for producer {entry.producer_id} in partition "
                f"{self._name}: {first_sequence} (incoming seq. number), {last} "
                "(current end sequence number)",
            )

    def check_marker(
        self,
        producer_id: int,
        producer_epoch: int,
        coordinator_epoch: int,
        *,
        ends_epoch: bool = False,
    ) -> None:
        """KafkaError INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED: a zombie's marker.

        ``ends_epoch``: of level 2 (KIP-890), whose markers are one epoch above the records. One of
        the records' own epoch would end the next transaction; with nothing open it is a retry.
        """
        entry = self.producers.get(producer_id)
        if entry is None:
            return
        is_late = producer_epoch < entry.producer_epoch or (
            ends_epoch
            and producer_epoch == entry.producer_epoch
            and entry.current_txn_first_offset >= 0
            and producer_epoch != _FENCING_EPOCH
        )
        if is_late:
            raise KafkaError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"Epoch of producer {producer_id} in {self._name} is {producer_epoch}, which is "
                f"{'not above' if ends_epoch else 'smaller than'} the last seen epoch "
                f"{entry.producer_epoch}",
            )
        if coordinator_epoch < entry.coordinator_epoch:
            raise KafkaError(
                ErrorCode.TRANSACTION_COORDINATOR_FENCED,
                f"Invalid coordinator epoch for producerId {producer_id} in partition "
                f"{self._name}: {coordinator_epoch} (zombie), {entry.coordinator_epoch} (current)",
            )

    # What was appended, or is replayed from the log

    def _entry(self, producer_id: int) -> ProducerStateEntry:
        entry = self.producers.get(producer_id)
        if entry is None:
            entry = self.producers[producer_id] = ProducerStateEntry(producer_id)
        return entry

    def append_data_batch(
        self,
        producer_id: int,
        producer_epoch: int,
        batch: BatchMetadata,
        *,
        is_transactional: bool,
    ) -> None:
        """Note a batch with a producer id; its first transactional one opens a transaction."""
        entry = self._entry(producer_id)
        entry.add_batch(producer_epoch, batch)
        if is_transactional and self._verifying:
            self._verifying.pop(producer_id, None)
        if is_transactional and entry.current_txn_first_offset < 0:
            entry.current_txn_first_offset = batch.first_offset
            self._ongoing_txns[batch.first_offset] = producer_id

    def append_marker(
        self,
        producer_id: int,
        producer_epoch: int,
        *,
        coordinator_epoch: int,
        offset: int,
        timestamp: int,
        is_abort: bool,
    ) -> CompletedTxn | None:
        """Note a transaction marker; the transaction that it ends, None when none was open.

        The caller passes the result to ``complete_txn`` once the transaction index has it.
        """
        entry = self._entry(producer_id)
        verifying = self._verifying.get(producer_id)
        if verifying is not None and not (
            verifying.begins_at_zero and verifying.producer_epoch == producer_epoch
        ):  # else it is of the next transaction, which has that epoch already
            del self._verifying[producer_id]
        first_offset = entry.current_txn_first_offset
        if producer_epoch != entry.producer_epoch:
            entry.producer_epoch = producer_epoch
            entry.batches.clear()
        entry.coordinator_epoch = coordinator_epoch
        entry.current_txn_first_offset = -1
        entry.last_timestamp = timestamp
        if first_offset < 0:
            return None
        return CompletedTxn(producer_id, first_offset, offset, is_abort)

    def complete_txn(self, completed: CompletedTxn) -> None:
        """The transaction is over; it stays unstable until its marker is replicated."""
        if self._ongoing_txns.pop(completed.first_offset, None) is None:
            raise ValueError(f"{self._name}: {completed} was not started")
        self._unreplicated_txns[completed.first_offset] = completed.last_offset

    def last_stable_offset(self, completed: CompletedTxn) -> int:
        """The last stable offset once ``completed`` is out of the way."""
        for first_offset, producer_id in self._ongoing_txns.items():
            if producer_id != completed.producer_id:
                return first_offset
        return completed.last_offset + 1

    @property
    def first_unstable_offset(self) -> int:
        """First offset of the oldest transaction that is open or not replicated; -1 without any."""
        first = next(iter(self._ongoing_txns), -1)
        if self._unreplicated_txns:
            unreplicated = min(self._unreplicated_txns)
            if first < 0 or unreplicated < first:
                return unreplicated
        return first

    def may_expire(self) -> bool:
        """Whether ``remove_expired`` has anything to look at."""
        return bool(self.producers or self._verifying)

    def has_transactions(self) -> bool:
        """Some transaction is open or not replicated."""
        return bool(self._ongoing_txns or self._unreplicated_txns)

    def on_high_watermark_updated(self, high_watermark: int) -> None:
        """Transactions whose marker is replicated are stable."""
        if self._unreplicated_txns:
            self._unreplicated_txns = {
                first: last
                for first, last in self._unreplicated_txns.items()
                if last >= high_watermark
            }

    def on_log_start_offset_incremented(self, log_start_offset: int) -> None:
        """Records below are gone; the producers that wrote them are still known."""
        self.on_high_watermark_updated(log_start_offset)
        self.map_end_offset = max(self.map_end_offset, log_start_offset)
        self.last_snapshot_offset = (
            self.snapshot_offsets[-1] if self.snapshot_offsets else log_start_offset
        )

    def remove_expired(self, now_ms: int) -> None:
        """Forget producers that were idle for producer.id.expiration.ms and have nothing open."""
        for producer_id in [
            entry.producer_id
            for entry in self.producers.values()
            if self._is_expired(entry, now_ms)
        ]:
            del self.producers[producer_id]
        oldest_ms = now_ms - self._env.producer_id_expiration_ms
        self._verifying = {
            producer_id: verifying
            for producer_id, verifying in self._verifying.items()
            if verifying.since_ms > oldest_ms
        }

    def _is_expired(self, entry: ProducerStateEntry, now_ms: int) -> bool:
        return (
            entry.current_txn_first_offset < 0
            and now_ms - entry.last_timestamp >= self._env.producer_id_expiration_ms
        )

    # Snapshots

    def _snapshot_path(self, offset: int) -> str:
        return os.path.join(self._directory, segment_file_name(offset, SNAPSHOT_SUFFIX))

    def take_snapshot(self, *, sync: bool = False) -> None:
        """Write the state as of ``map_end_offset`` unless a snapshot is there.

        A kill in between leaves a file whose CRC is wrong: it is skipped for the one before.
        """
        offset = self.map_end_offset
        if offset <= self.last_snapshot_offset:
            return
        file = self._env.files.open(self._snapshot_path(offset), create=True)
        try:
            file.truncate(0)
            file.write_at(encode_snapshot(self.producers.values()), 0)
            if sync:
                file.sync()
        finally:
            file.close()
        if offset not in self.snapshot_offsets:
            self.snapshot_offsets.append(offset)
            self.snapshot_offsets.sort()
        self.last_snapshot_offset = offset

    def set_snapshots(self, offsets: list[int], segment_base_offsets: list[int]) -> None:
        """The snapshots that a directory listing shows.

        Those that belong to no segment are removed, except the newest one when it lies above all
        segments: a clean shutdown left it.
        """
        bases = set(segment_base_offsets)
        strays = sorted(offset for offset in offsets if offset not in bases)
        keep = strays[-1] if strays and strays[-1] > max(bases, default=-1) else None
        for offset in strays:
            if offset != keep:
                remove_if_exists(self._env.files, self._snapshot_path(offset))
        self.snapshot_offsets = sorted(
            offset for offset in offsets if offset in bases or offset == keep
        )

    def _remove_snapshot(self, offset: int) -> None:
        self.snapshot_offsets.remove(offset)
        remove_if_exists(self._env.files, self._snapshot_path(offset))

    def delete_snapshots_before(self, offset: int) -> None:
        """Remove the snapshots below ``offset``."""
        for each in [each for each in self.snapshot_offsets if each < offset]:
            self._remove_snapshot(each)

    def remove_snapshots(self, offsets: list[int]) -> None:
        """Remove the snapshots of segments that are no more."""
        for offset in offsets:
            if offset in self.snapshot_offsets:
                self._remove_snapshot(offset)

    def clear(self) -> None:
        """Forget every producer and transaction; snapshots stay."""
        self.producers.clear()
        self._ongoing_txns.clear()
        self._unreplicated_txns.clear()

    def truncate_and_load(self, log_start_offset: int, log_end_offset: int) -> None:
        """Go back to the newest snapshot in range; ``map_end_offset`` tells where replay begins.

        Snapshots above ``log_end_offset``, and those at or below ``log_start_offset``, go.
        """
        for offset in [
            offset
            for offset in self.snapshot_offsets
            if offset > log_end_offset or offset <= log_start_offset
        ]:
            self._remove_snapshot(offset)
        if log_end_offset == self.map_end_offset:
            self.on_log_start_offset_incremented(log_start_offset)
            return
        self.clear()
        now_ms = self._env.clock.time_ms()
        while self.snapshot_offsets:
            offset = self.snapshot_offsets[-1]
            try:
                entries = decode_snapshot(self._env.files.read(self._snapshot_path(offset)))
            except (CorruptSnapshotError, FileNotFoundError) as error:
                topic, _, partition = self._name.rpartition("-")
                self._env.log.warning(
                    "%s-%d: skipping the producer snapshot at %d: %s",
                    topic,
                    int(partition),
                    offset,
                    error,
                )
                self._remove_snapshot(offset)
                continue
            for entry in entries:
                if not self._is_expired(entry, now_ms):
                    self._load_entry(entry)
            self._ongoing_txns = dict(sorted(self._ongoing_txns.items()))
            self.last_snapshot_offset = self.map_end_offset = offset
            return
        self.last_snapshot_offset = self.map_end_offset = log_start_offset

    def _load_entry(self, entry: ProducerStateEntry) -> None:
        self.producers[entry.producer_id] = entry
        entry.is_restored = bool(entry.batches)
        if entry.current_txn_first_offset >= 0:
            self._ongoing_txns[entry.current_txn_first_offset] = entry.producer_id

    def truncate_fully_and_start_at(self, offset: int) -> None:
        """Forget everything, snapshots too."""
        self.clear()
        for each in list(self.snapshot_offsets):
            self._remove_snapshot(each)
        self.last_snapshot_offset = 0
        self.map_end_offset = offset
