"""The short way gives what the long way gives, or says nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.common.offload import InlineOffload
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.errors import KafkaError
from kbroker.record import batch as b
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.log_validator import WALK_SLICE, ValidatedRecords, validate_records
from kbroker.storage.plain_batch import validate_plain_batch
from tests.unit.record.batches import batch_of, record_bytes

NOW = 1_700_000_000_000
HOUR = 3_600_000


def config(**settings):
    properties = {name.replace("_", "."): str(value) for name, value in settings.items()}
    return LogConfig.from_properties(properties, LogConfig())


def plain(batch, settings=None):
    return validate_plain_batch(memoryview(batch), settings or LogConfig(), NOW)


def at_length(batch, settings=None):
    """None when it is refused, changed, or a coroutine's work."""
    data = bytearray(batch)
    try:
        validated = validate_records(
            memoryview(data),
            config=settings or LogConfig(),
            origin=AppendOrigin.CLIENT,
            now_ms=NOW,
            offload=InlineOffload(),
        )
    except KafkaError:
        return None
    if not isinstance(validated, ValidatedRecords):
        validated.close()
        return None
    return validated if bytes(validated.data) == bytes(batch) else None


def fields(validated):
    return {name: getattr(validated, name) for name in ValidatedRecords.__slots__}


def records(count, *, key=b"k", timestamps=(NOW,)):
    data = b"".join(
        record_bytes(
            b"value" * index,
            key=key,
            index=index,
            timestamp_delta=timestamps[index % len(timestamps)] - timestamps[0],
        )
        for index in range(count)
    )
    used = [timestamps[index % len(timestamps)] for index in range(count)]
    return batch_of(data, count=count, base_timestamp=timestamps[0], max_timestamp=max(used))


@pytest.mark.parametrize(
    "batch",
    [
        records(1),
        records(3, key=None, timestamps=(NOW, NOW - 7, NOW + 5)),
        records(2, timestamps=(-1,)),
        batch_of(
            record_bytes(b"v", timestamp_delta=0),
            count=1,
            base_timestamp=NOW,
            max_timestamp=NOW,
            producer_id=7,
            producer_epoch=3,
            base_sequence=2**31 - 1,
        ),
    ],
)
def test_sound_batches_take_the_short_way(batch):
    accepted = plain(batch)
    assert accepted is not None
    assert fields(accepted) == fields(at_length(batch))
    assert bytes(accepted.data) == bytes(batch)


@pytest.mark.parametrize(
    ("batch", "settings"),
    [
        (records(WALK_SLICE + 1), {}),
        (records(1, key=None), {"cleanup_policy": "compact"}),
        (records(1, timestamps=(NOW + 2 * HOUR,)), {}),
        (records(1, timestamps=(NOW - 2,)), {"message_timestamp_before_max_ms": 1}),
        (records(1), {"message_timestamp_type": "LogAppendTime"}),
        (records(1), {"compression_type": "gzip"}),
        (records(9), {"max_message_bytes": 100}),
        (b"", {}),
        (bytes(60), {}),
        (bytes(200), {}),
    ],
)
def test_what_needs_a_closer_look_is_left_to_the_validator(batch, settings):
    assert plain(bytearray(batch), config(**settings)) is None


def test_read_only_batches_are_left_to_the_validator():
    assert validate_plain_batch(memoryview(bytes(records(1))), LogConfig(), NOW) is None


def one(value, key=b"k", **fields):
    return batch_of(
        record_bytes(value, key=key, **fields), count=1, base_timestamp=NOW, max_timestamp=NOW
    )


@pytest.mark.parametrize("size", [0, 1, 63, 64, 100, 8_000, 8_191, 8_192, 20_000])
@pytest.mark.parametrize("key", [None, b"", b"k", bytes(63), bytes(64), bytes(200)])
def test_a_lone_record_of_any_size_is_sound(size, key):
    batch = one(bytes(size), key)
    accepted = plain(batch)
    assert accepted is not None
    assert fields(accepted) == fields(at_length(batch))
    assert (plain(batch, config(cleanup_policy="compact")) is None) == (key is None)


@given(
    batch=st.sampled_from(
        [
            records(3, key=None, timestamps=(NOW, NOW - 7, NOW + 5)),
            one(b"value"),
            one(None, None),
            one(bytes(100), None),
            one(b"", bytes(70)),
            one(b"v", headers=[("name", b"value")]),
        ]
    ),
    position=st.integers(0, 200),
    byte=st.integers(0, 255),
    repair=st.booleans(),
)
def test_it_accepts_only_what_the_validator_keeps_as_it_is(batch, position, byte, repair):
    batch = bytearray(batch)
    position %= len(batch)
    if b.LENGTH_POSITION <= position < b.LEADER_EPOCH_POSITION:
        return  # the caller has looked at the length
    batch[position] = byte
    if repair:
        b.write_crc(batch, 0, len(batch))
    accepted = plain(bytearray(batch))
    if accepted is not None:
        assert fields(accepted) == fields(at_length(batch))


def test_no_byte_of_a_lone_record_goes_unseen():
    for batch in (one(b"value"), one(bytes(9_000), None)):
        places = [*range(b.HEADER_SIZE, b.HEADER_SIZE + 10), len(batch) - 1]
        for position in places:
            for byte in range(256):
                changed = bytearray(batch)
                changed[position] = byte
                b.write_crc(changed, 0, len(changed))
                accepted = plain(bytearray(changed))
                expected = at_length(changed)
                assert (accepted is None) == (expected is None), (position, byte)
