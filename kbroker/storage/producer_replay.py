"""Bringing the producer state up to what is in the log: after a start, a truncation, on demand."""

from kbroker.record.batch import CONTROL_BIT, RecordBatchHeader, increment_sequence
from kbroker.storage.batch_scan import iter_headers, iter_whole_batches
from kbroker.storage.follower_append import batch_metadata
from kbroker.storage.log_segments import LogSegments
from kbroker.storage.producer_state_entry import (
    BATCHES_TO_RETAIN,
    BatchMetadata,
    ProducerStateEntry,
)
from kbroker.storage.producer_state_manager import CompletedTxn, ProducerStateManager
from kbroker.storage.timestamp_search import read_end_transaction_marker

_HISTORY_INDEX_ENTRIES = 512


def replay_batch(
    state: ProducerStateManager, batch: RecordBatchHeader, data: memoryview
) -> CompletedTxn | None:
    """Note a batch that is in the log; ``data`` begins with it.

    Returns the transaction that it ends: the caller completes it.
    """
    if batch.producer_id < 0:
        return None
    if batch.is_control:
        if not batch.record_count:
            return None  # the cleaner removed the marker: the whole transaction is gone
        is_abort, coordinator_epoch = read_end_transaction_marker(data)
        return state.append_marker(
            batch.producer_id,
            batch.producer_epoch,
            coordinator_epoch=coordinator_epoch,
            offset=batch.last_offset,
            timestamp=batch.max_timestamp,
            is_abort=is_abort,
        )
    state.append_data_batch(
        batch.producer_id,
        batch.producer_epoch,
        batch_metadata(batch),
        is_transactional=batch.is_transactional,
    )
    return None


def replay_producers(
    state: ProducerStateManager, segments: LogSegments, start_offset: int, end_offset: int
) -> None:
    """Note the batches of this range of offsets, also the one that the range begins in. OSError."""
    if start_offset >= end_offset:
        return
    for segment in segments.starting_from(start_offset):
        found = segment.translate_offset(start_offset)
        if found is None:
            continue
        for data in iter_whole_batches(segment.file(), found[0], segment.size):
            batch = RecordBatchHeader(data)
            if batch.base_offset >= end_offset:
                return
            completed = replay_batch(state, batch, data)
            if completed is not None:
                state.complete_txn(completed)


def load_history(segments: LogSegments, entry: ProducerStateEntry) -> None:
    """The batches of a producer before the one that a snapshot told of. OSError.

    So a producer that repeats several batches after a restart is answered like one that repeats
    the last. Looks back a bounded way: the entries of the offset index tell where to begin.
    """
    entry.is_restored = False
    if not entry.batches:
        return  # a marker began another epoch since
    first_offset = entry.batches[0].first_offset
    segment = segments.floor(first_offset - 1)
    if segment is None:
        return
    start = segment.offset_index.position_before(first_offset, _HISTORY_INDEX_ENTRIES)
    batches: list[BatchMetadata] = []
    for header in iter_headers(segment.file(), start, segment.size):
        if header.base_offset >= first_offset:
            break
        is_theirs = (header.producer_id, header.producer_epoch) == (
            entry.producer_id,
            entry.producer_epoch,
        )
        if is_theirs and not header.attributes & CONTROL_BIT:
            batches.append(
                BatchMetadata(
                    header.base_sequence,
                    increment_sequence(header.base_sequence, header.last_offset_delta),
                    header.base_offset,
                    header.last_offset,
                    header.max_timestamp,
                )
            )
    entry.batches[:0] = batches[len(entry.batches) - BATCHES_TO_RETAIN :]
