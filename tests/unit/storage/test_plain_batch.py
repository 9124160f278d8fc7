"""The short way gives what the long way gives, or says nothing."""

import asyncio
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.common.offload import InlineOffload
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.errors import KafkaError
from kbroker.record import batch as b
from kbroker.record import compression
from kbroker.record.inflate_at_once import AT_ONCE, AtOnceInflater
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.log_validator import WALK_SLICE, ValidatedRecords, validate_records
from kbroker.storage.plain_batch import validate_plain_batch
from tests.unit.record.batches import batch_of, record_bytes

NOW = 1_700_000_000_000
HOUR = 3_600_000


def config(**settings):
    properties = {name.replace("_", "."): str(value) for name, value in settings.items()}
    return LogConfig.from_properties(properties, LogConfig())


def plain(batch, settings=None, **options):
    return validate_plain_batch(memoryview(batch), settings or LogConfig(), NOW, **options)


def at_length(batch, settings=None, *, inflates=False):
    """None when it is refused, changed, or a coroutine's work, which ``inflates`` does."""
    data = bytearray(batch)
    try:
        validated = validate_records(
            memoryview(data),
            config=settings or LogConfig(),
            origin=AppendOrigin.CLIENT,
            now_ms=NOW,
            offload=InlineOffload(),
        )
        if inflates and inspect.iscoroutine(validated):
            validated = asyncio.run(validated)
    except KafkaError:
        return None
    if not isinstance(validated, ValidatedRecords):
        validated.close()
        return None
    return validated if bytes(validated.data) == bytes(batch) else None


def fields(validated):
    return {name: getattr(validated, name) for name in ValidatedRecords.__slots__}


def records(count, *, key=b"k", timestamps=(NOW,), codec=compression.NONE):
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
    return batch_of(
        data, count=count, codec=codec, base_timestamp=timestamps[0], max_timestamp=max(used)
    )


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


@pytest.mark.parametrize("codec", sorted(AT_ONCE))
@pytest.mark.parametrize("count", [1, 3, 100, 500])
def test_compressed_batches_take_the_short_way_where_they_can_be_inflated(codec, count):
    at_once = AtOnceInflater()
    batch = records(count, codec=codec, key=None, timestamps=(NOW, NOW - 7, NOW + 5))
    for _ in range(2):
        accepted = plain(batch, at_once=at_once)
        assert accepted is not None
        assert fields(accepted) == fields(at_length(batch, inflates=True))
    assert plain(batch) is None
    short = bytearray(batch)
    short[-1:] = b""
    assert plain(short, at_once=at_once) is None


@pytest.mark.parametrize("codec", compression.CODEC_IDS.values())
@pytest.mark.parametrize("topics_codec", compression.CODEC_NAMES)
def test_no_batch_that_must_be_compressed_anew_takes_the_short_way(codec, topics_codec):
    settings = config(compression_type="uncompressed" if topics_codec == "none" else topics_codec)
    accepted = plain(records(3, codec=codec), settings, at_once=AtOnceInflater())
    assert (accepted is not None) == (codec == compression.NONE and topics_codec == "none")


def test_zstd_is_for_requests_that_may_have_it():
    for codec in AT_ONCE:
        accepted = plain(records(3, codec=codec), at_once=AtOnceInflater(), allow_zstd=False)
        assert (accepted is None) == (codec == compression.ZSTD)


@pytest.mark.parametrize("codec", sorted(AT_ONCE))
def test_offset_deltas_of_compressed_records_are_in_order(codec):
    data = b"".join(record_bytes(b"v", index=index) for index in (0, 0))
    batch = batch_of(data, count=2, codec=codec, base_timestamp=NOW, max_timestamp=NOW)
    assert plain(batch, at_once=AtOnceInflater()) is None


@given(
    codec=st.sampled_from(sorted(AT_ONCE)),
    position=st.integers(0, 2**16),
    byte=st.integers(0, 255),
    repair=st.booleans(),
)
def test_it_accepts_only_compressed_batches_that_the_validator_keeps(codec, position, byte, repair):
    batch = bytearray(records(9, codec=codec, timestamps=(NOW, NOW - 7, NOW + 5)))
    position %= len(batch)
    if b.LENGTH_POSITION <= position < b.LEADER_EPOCH_POSITION:
        return
    batch[position] = byte
    if repair:
        b.write_crc(batch, 0, len(batch))
    accepted = plain(bytearray(batch), at_once=AtOnceInflater())
    if accepted is not None:
        assert fields(accepted) == fields(at_length(batch, inflates=True))
