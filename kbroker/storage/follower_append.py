"""Checks of batches that a leader sent, or that recovery reads back."""

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import RecordBatchHeader, iter_batches, verify_crc
from kbroker.storage.producer_state_entry import BatchMetadata


def check_follower_records(view: memoryview, log_end_offset: int) -> list[RecordBatchHeader]:
    """The whole batches at the front of ``view``, each with a good CRC.

    KafkaError CORRUPT_MESSAGE for a batch that is damaged. ValueError when offsets do not ascend
    or begin below ``log_end_offset``.
    """
    batches: list[RecordBatchHeader] = []
    next_offset = log_end_offset
    for header in iter_batches(view):
        if not verify_crc(view, header.position, header.size):
            raise KafkaError(
                ErrorCode.CORRUPT_MESSAGE,
                f"Record is corrupt (stored crc = {header.crc}) at offset {header.base_offset}",
            )
        if header.base_offset < next_offset or header.last_offset_delta < 0:
            raise ValueError(
                f"a batch with offsets {header.base_offset}..{header.last_offset} cannot be "
                f"appended where {next_offset} or above is expected"
            )
        next_offset = header.next_offset
        batches.append(header)
    return batches


def batch_metadata(header: RecordBatchHeader) -> BatchMetadata:
    """What the producer state keeps of a batch."""
    return BatchMetadata(
        header.base_sequence,
        header.last_sequence,
        header.base_offset,
        header.last_offset,
        header.max_timestamp,
    )
