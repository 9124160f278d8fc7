"""What validation gives to the log."""

from kbroker.record.batch import CONTROL_BIT, TRANSACTIONAL_BIT, RecordBatchHeader


class ValidatedRecords:
    """One batch that may enter the log: base offset still 0, leader epoch not set.

    ``data`` is a writable view of exactly the batch. ``offset_delta_of_max_timestamp`` is the
    index of the first record with the max timestamp (0 for LogAppendTime: all have it); Kafka's
    time index takes the last offset of the batch instead. ``log_append_time_ms`` is -1 for
    CreateTime.
    """

    __slots__ = (
        "attributes",
        "base_sequence",
        "data",
        "is_control",
        "is_transactional",
        "last_offset_delta",
        "log_append_time_ms",
        "max_timestamp",
        "offset_delta_of_max_timestamp",
        "producer_epoch",
        "producer_id",
        "record_count",
    )

    def __init__(
        self,
        data: memoryview,
        header: RecordBatchHeader,
        *,
        attributes: int,
        max_timestamp: int,
        offset_delta_of_max_timestamp: int,
        log_append_time_ms: int,
    ) -> None:
        self.data = data
        self.record_count = header.record_count
        self.last_offset_delta = header.last_offset_delta
        self.producer_id = header.producer_id
        self.producer_epoch = header.producer_epoch
        self.base_sequence = header.base_sequence
        self.attributes = attributes
        self.is_transactional = header.is_transactional
        self.is_control = header.is_control
        self.max_timestamp = max_timestamp
        self.offset_delta_of_max_timestamp = offset_delta_of_max_timestamp
        self.log_append_time_ms = log_append_time_ms


def as_they_came(
    data: memoryview,
    attributes: int,
    last_offset_delta: int,
    max_timestamp: int,
    producer_id: int,
    producer_epoch: int,
    base_sequence: int,
    record_count: int,
    offset_delta_of_max_timestamp: int,
) -> ValidatedRecords:
    """What is stored byte for byte, by the fields of its header; a header object costs more."""
    validated = ValidatedRecords.__new__(ValidatedRecords)
    validated.data = data
    validated.record_count = record_count
    validated.last_offset_delta = last_offset_delta
    validated.producer_id = producer_id
    validated.producer_epoch = producer_epoch
    validated.base_sequence = base_sequence
    validated.attributes = attributes
    validated.is_transactional = attributes & TRANSACTIONAL_BIT != 0
    validated.is_control = attributes & CONTROL_BIT != 0
    validated.max_timestamp = max_timestamp
    validated.offset_delta_of_max_timestamp = offset_delta_of_max_timestamp
    validated.log_append_time_ms = -1
    return validated
