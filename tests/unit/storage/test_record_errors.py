"""What is wrong with single records, and which of several faults names the error."""

import pytest

from kbroker.common.offload import InlineOffload
from kbroker.protocol.error_codes import ErrorCode
from kbroker.record.batch import build_batch
from kbroker.record.record import Record
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.log_validator import (
    RecordValidationError,
    ValidatedRecords,
    validate_records,
)
from tests.unit.storage.log_fixture import config

NOW = 1_000_000


def validate(*records: tuple[bytes | None, int], **settings: object) -> ValidatedRecords:
    data = build_batch([Record(key=key, value=b"v", timestamp=time) for key, time in records])
    found = validate_records(
        memoryview(data),
        config=config(**settings),
        origin=AppendOrigin.CLIENT,
        now_ms=NOW,
        offload=InlineOffload(),
        topic_partition="t-0",
    )
    assert isinstance(found, ValidatedRecords)
    return found


def test_records_without_a_key_and_out_of_time_are_told_together() -> None:
    """The batch is refused for its timestamps then; a record has one error, that of its key."""
    with pytest.raises(RecordValidationError) as caught:
        validate(
            (None, NOW),
            (b"k", NOW - 2000),
            (None, NOW - 2000),
            (b"k", NOW),
            (b"k", NOW + 9000),
            cleanup_policy=("compact",),
            message_timestamp_before_max_ms=1000,
            message_timestamp_after_max_ms=5000,
        )
    assert caught.value.error_code is ErrorCode.INVALID_TIMESTAMP
    assert [index for index, _ in caught.value.record_errors] == [0, 1, 2, 4]
    texts = [text for _, text in caught.value.record_errors]
    assert [text is not None and "without key" in text for text in texts] == [
        True,
        False,
        True,
        False,
    ]


def test_a_refused_record_leaves_the_others_out_too() -> None:
    with pytest.raises(RecordValidationError) as caught:
        validate((b"k", NOW), (None, NOW), cleanup_policy=("compact", "delete"))
    assert caught.value.error_code is ErrorCode.INVALID_RECORD
    assert [index for index, _ in caught.value.record_errors] == [1]
    assert validate((b"k", NOW), (b"", NOW), cleanup_policy=("compact",)).record_count == 2
    assert validate((None, NOW)).record_count == 1


def test_the_bounds_of_time_belong_to_the_range() -> None:
    bounds = {"message_timestamp_before_max_ms": 1000, "message_timestamp_after_max_ms": 5000}
    assert validate((b"k", NOW - 1000), (b"k", NOW + 5000), (b"k", -1), **bounds).record_count == 3
    for time in (NOW - 1001, NOW + 5001):
        with pytest.raises(RecordValidationError):
            validate((b"k", time), **bounds)
