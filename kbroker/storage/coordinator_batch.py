"""A coordinator's batch, checked in one pass: groups and transactions write many small ones.

``validate_coordinator_batch`` accepts a batch only where ``log_validator`` would store it byte for
byte as it came; it refuses nothing. Whatever is out of the ordinary goes through that, which knows
the error that belongs to each fault.
"""

from typing import Final

from kbroker.config.topic_config import LogConfig
from kbroker.record.batch import (
    ATTRIBUTES_POSITION,
    CONTROL_BIT,
    HEADER,
    HEADER_SIZE,
    LOG_OVERHEAD,
    MAGIC,
    TRANSACTIONAL_BIT,
)
from kbroker.record.crc import crc32c
from kbroker.storage.plain_batch import STORED_AS_THEY_CAME
from kbroker.storage.validated_records import ValidatedRecords, as_they_came

_UNUSUAL: Final = ~(TRANSACTIONAL_BIT | CONTROL_BIT)
"""Attributes that are left to ``log_validator``, codecs among them."""


def validate_coordinator_batch(batch: memoryview, config: LogConfig) -> ValidatedRecords | None:
    """What ``validate_records`` gives for a coordinator's sound, uncompressed batch; None: ask it.

    As there the records are believed to be what the header says of them: they are our own.
    """
    size = len(batch)
    if size < HEADER_SIZE:
        return None
    (
        _,
        length,
        _,
        magic,
        crc,
        attributes,
        last_offset_delta,
        _,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        record_count,
    ) = HEADER.unpack_from(batch)
    if (
        length + LOG_OVERHEAD != size
        or magic != MAGIC
        or attributes & _UNUSUAL
        or record_count < 0
        or size > config.max_message_bytes
        or size > config.segment_bytes
        or batch.readonly
        or config.compression_type not in STORED_AS_THEY_CAME
        or config.message_timestamp_type != "CreateTime"
        or crc32c(batch[ATTRIBUTES_POSITION:]) != crc
    ):
        return None
    return as_they_came(
        batch,
        attributes,
        last_offset_delta,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        record_count,
        last_offset_delta,
    )
