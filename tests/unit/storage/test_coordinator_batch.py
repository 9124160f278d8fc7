"""The short way gives what the long way gives, or says nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.common.offload import InlineOffload
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.errors import KafkaError
from kbroker.record import batch as b
from kbroker.record import compression
from kbroker.record.record import Record
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.coordinator_batch import validate_coordinator_batch
from kbroker.storage.log_validator import ValidatedRecords, validate_records

NOW = 1_700_000_000_000


def config(**settings):
    properties = {name.replace("_", "."): str(value) for name, value in settings.items()}
    return LogConfig.from_properties(properties, LogConfig())


def records(count=1, **options):
    return b.build_batch(
        [Record(key=b"key", value=b"value", timestamp=NOW) for _ in range(count)], **options
    )


def marker():
    return b.build_end_transaction_marker(
        commit=True, producer_id=5, producer_epoch=2, coordinator_epoch=1, timestamp=NOW
    )


def at_length(batch, settings):
    """None when it is refused or changed."""
    data = bytearray(batch)
    try:
        validated = validate_records(
            memoryview(data),
            config=settings,
            origin=AppendOrigin.COORDINATOR,
            now_ms=NOW,
            offload=InlineOffload(),
        )
    except KafkaError:
        return None
    assert isinstance(validated, ValidatedRecords)
    return validated if bytes(validated.data) == bytes(batch) else None


def fields(validated):
    return {name: getattr(validated, name) for name in ValidatedRecords.__slots__}


BATCHES = [
    records(),
    records(3),
    records(producer_id=9, producer_epoch=1, transactional=True),
    marker(),
]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("kept", ["producer", "uncompressed"])
def test_sound_batches_take_the_short_way(batch, kept):
    settings = config(compression_type=kept)
    batch = bytearray(batch)
    accepted = validate_coordinator_batch(memoryview(batch), settings)
    assert accepted is not None
    assert fields(accepted) == fields(at_length(batch, settings))


@pytest.mark.parametrize(
    ("batch", "settings"),
    [
        (records(), {"message_timestamp_type": "LogAppendTime"}),
        (records(), {"compression_type": "gzip"}),
        (records(9), {"max_message_bytes": 100}),
        (records(compression=compression.GZIP), {}),
        (records(log_append_time=NOW), {}),
        (records() + b"\0", {}),
        (records()[:-1], {}),
        (bytearray(), {}),
        (bytearray(60), {}),
        (bytearray(200), {}),
    ],
)
def test_what_needs_a_closer_look_is_left_to_the_validator(batch, settings):
    assert validate_coordinator_batch(memoryview(bytearray(batch)), config(**settings)) is None


def test_read_only_batches_are_left_to_the_validator():
    assert validate_coordinator_batch(memoryview(bytes(records())), LogConfig()) is None


@given(
    batch=st.sampled_from(BATCHES),
    place=st.integers(0, b.HEADER_SIZE + 5),
    byte=st.integers(0, 255),
    sealed=st.booleans(),
)
def test_any_other_byte_is_accepted_only_where_the_validator_accepts_it(batch, place, byte, sealed):
    changed = bytearray(batch)
    changed[place] = byte
    if sealed:
        b.write_crc(changed, 0, len(changed))
    expected = at_length(changed, LogConfig())
    accepted = validate_coordinator_batch(memoryview(changed), LogConfig())
    if accepted is not None:
        assert expected is not None
        assert fields(accepted) == fields(expected)
