import asyncio
import gzip
import inspect
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.common.offload import InlineOffload
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record import batch as b
from kbroker.record import compression
from kbroker.record.inflate_at_once import AT_ONCE, AtOnceInflater
from kbroker.record.record import Record, iter_records
from kbroker.storage import log_validator, record_errors
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.log_validator import (
    RecordValidationError,
    ValidatedRecords,
    check_request_records,
    inflated_limit,
    validate_records,
)
from tests.unit.record.batches import (
    CODECS,
    COMPRESSED,
    batch_of,
    raw_record,
    record_bytes,
    record_data,
)

NOW = 1_700_000_000_000
HOUR = 3_600_000
SEEN = ValidatedRecords.__slots__
OLD = {"base_timestamp": 1000, "max_timestamp": 1000}


def config(**settings):
    properties = {name.replace("_", "."): str(value) for name, value in settings.items()}
    return LogConfig.from_properties(properties, LogConfig())


def validate_once(batch, settings, *, origin=AppendOrigin.CLIENT, **options):
    validated = validate_records(
        memoryview(batch),
        config=settings or LogConfig(),
        origin=origin,
        now_ms=NOW,
        offload=InlineOffload(),
        topic_partition="t-0",
        **options,
    )
    return asyncio.run(validated) if inspect.iscoroutine(validated) else validated


def outcome(batch, settings, **options):
    """All that can be seen of a validation, be it an error."""
    try:
        validated = validate_once(batch, settings, **options)
    except KafkaError as error:
        errors = getattr(error, "record_errors", None)
        return type(error), error.error_code, error.message, errors
    return [bytes(getattr(validated, n)) if n == "data" else getattr(validated, n) for n in SEEN]


def validate(batch, settings=None, **options):
    """The result, whether or not it took a coroutine; the same when it is inflated at once."""
    if len(batch) > b.HEADER_SIZE and batch[b.ATTRIBUTES_POSITION + 1] & 7 in AT_ONCE:
        streamed = outcome(bytearray(batch), settings, **options)
        at_once = outcome(bytearray(batch), settings, at_once=AtOnceInflater(), **options)
        assert at_once == streamed
    return validate_once(batch, settings, **options)


def error_of(batch, settings=None, **options):
    before = bytes(batch)
    with pytest.raises(KafkaError) as caught:
        validate(batch, settings, **options)
    assert bytes(batch) == before, "a refused batch is not touched"
    return caught.value


def code_of(batch, settings=None, **options):
    return error_of(batch, settings, **options).error_code.name


def three(codec=0, *, deltas=(0, 1, 2), timestamps=(1000, 1000, 1000), keys=(b"k",) * 3, **header):
    data = b"".join(
        record_bytes(b"v", key=key, index=delta, timestamp_delta=timestamp - timestamps[0])
        for delta, timestamp, key in zip(deltas, timestamps, keys, strict=True)
    )
    settings = {
        "base_timestamp": timestamps[0],
        "max_timestamp": max(timestamps),
        **header,
    }
    return batch_of(data, count=settings.pop("count", 3), codec=codec, **settings)


def many(count, codec=0, **header):
    data = b"".join(record_bytes(b"value", index=index) for index in range(count))
    return batch_of(data, count=count, codec=codec, **header)


@pytest.mark.parametrize("codec", CODECS)
def test_a_good_batch_is_kept_byte_for_byte(codec):
    batch = three(
        codec, timestamps=(2000, 3000, 1000), producer_id=4, producer_epoch=1, base_sequence=8
    )
    before = bytes(batch)
    validated = validate(batch)
    assert bytes(validated.data) == before
    assert validated.data.obj is batch
    assert not validated.data.readonly
    assert (validated.record_count, validated.last_offset_delta) == (3, 2)
    assert (validated.max_timestamp, validated.offset_delta_of_max_timestamp) == (3000, 1)
    assert validated.log_append_time_ms == -1
    assert (validated.producer_id, validated.producer_epoch, validated.base_sequence) == (4, 1, 8)
    assert not validated.is_transactional
    assert not validated.is_control


def test_read_only_records_are_copied():
    validated = validate(bytes(three()))
    assert not validated.data.readonly


@pytest.mark.parametrize(
    ("records", "code"),
    [
        (b"", "INVALID_RECORD"),
        (bytes(11), "INVALID_RECORD"),
        (bytes(12), "CORRUPT_MESSAGE"),
        (bytes(17), "CORRUPT_MESSAGE"),
        (bytes(8) + struct.pack(">i", 20), "INVALID_RECORD"),
    ],
)
def test_what_is_no_batch(records, code):
    assert code_of(bytearray(records)) == code


@pytest.mark.parametrize(
    ("length", "code"),
    [
        (-1, "CORRUPT_MESSAGE"),
        (13, "CORRUPT_MESSAGE"),
        (14, "CORRUPT_MESSAGE"),
        (48, "CORRUPT_MESSAGE"),
        (10_000, "INVALID_RECORD"),
        (2**31 - 13, "INVALID_RECORD"),
        (2**31 - 12, "UNKNOWN_SERVER_ERROR"),
        (2**31 - 1, "UNKNOWN_SERVER_ERROR"),
    ],
)
def test_lying_batch_lengths(length, code):
    batch = three()
    struct.pack_into(">i", batch, b.LENGTH_POSITION, length)
    # A shorter first batch leaves bytes behind it that are no batch either.
    assert code_of(batch[:74] if 14 <= length <= 48 else batch) == code


@pytest.mark.parametrize(
    ("magic", "code"),
    [
        (0, "INVALID_RECORD"),
        (1, "INVALID_RECORD"),
        (3, "CORRUPT_MESSAGE"),
        (255, "CORRUPT_MESSAGE"),
    ],
)
def test_magic(magic, code):
    batch = three()
    batch[b.MAGIC_POSITION] = magic
    assert code_of(batch) == code


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        (bytes(11), None),
        (bytes(17), "CORRUPT_MESSAGE"),
        (bytes(three()), "INVALID_RECORD"),
        (bytes(three())[:-1], None),
    ],
)
def test_bytes_after_the_batch(tail, code):
    batch = three()
    size = len(batch)
    if code is None:
        validated = validate(batch + tail)
        assert len(validated.data) == size
        assert check_request_records(memoryview(batch + tail), allow_zstd=True) == size
    else:
        assert code_of(batch + tail) == code


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"base_offset": 1}, "INVALID_RECORD"),
        ({"count": 0}, "INVALID_RECORD"),
        ({"count": -1}, "INVALID_RECORD"),
        ({"count": 4}, "INVALID_RECORD"),
        ({"last_offset_delta": 1}, "INVALID_RECORD"),
        ({"last_offset_delta": -1}, "INVALID_RECORD"),
        ({"count": 4, "last_offset_delta": 3}, "INVALID_RECORD"),
        ({"count": 2, "last_offset_delta": 1}, "INVALID_RECORD"),
        ({"count": 2**31 - 1, "last_offset_delta": 2**31 - 2}, "INVALID_RECORD"),
        ({"attributes": b.CONTROL_BIT}, "INVALID_RECORD"),
        ({"attributes": b.CONTROL_BIT | b.TRANSACTIONAL_BIT}, "INVALID_RECORD"),
        ({"producer_id": 1, "producer_epoch": 0}, "INVALID_RECORD"),
        ({"attributes": 5}, "UNKNOWN_SERVER_ERROR"),
        ({"attributes": 7}, "UNKNOWN_SERVER_ERROR"),
    ],
)
@pytest.mark.parametrize("codec", [compression.NONE, compression.GZIP])
def test_header_checks(header, code, codec):
    if codec and "attributes" in header and header["attributes"] & b.CODEC_MASK:
        codec = 0
    assert code_of(three(codec, **header)) == code


@pytest.mark.parametrize(
    "header",
    [
        {"producer_id": -2},
        {"producer_id": 5, "producer_epoch": -1, "base_sequence": 0},
        {"attributes": b.DELETE_HORIZON_BIT},
        {"attributes": 0x80},
        {"attributes": -0x8000},
        {"attributes": b.TRANSACTIONAL_BIT, "producer_id": 5, "base_sequence": 0},
    ],
)
def test_oddities_that_kafka_accepts_are_stored_as_they_came(header):
    batch = three(**header)
    before = bytes(batch)
    assert bytes(validate(batch).data) == before


def test_a_wrong_crc_and_the_checks_before_it():
    batch = three()
    batch[-1] ^= 1
    assert code_of(batch) == "CORRUPT_MESSAGE"
    assert code_of(batch, config(max_message_bytes=80)) == "MESSAGE_TOO_LARGE"
    struct.pack_into(">q", batch, 0, 7)
    assert code_of(batch, config(max_message_bytes=80)) == "INVALID_RECORD"


def test_max_message_bytes_counts_the_whole_batch():
    batch = three()
    validate(batch, config(max_message_bytes=len(batch)))
    assert code_of(batch, config(max_message_bytes=len(batch) - 1)) == "MESSAGE_TOO_LARGE"


def test_a_batch_larger_than_a_segment():
    batch = batch_of(record_bytes(bytes(1_200_000)), count=1)
    settings = config(max_message_bytes=3_000_000, segment_bytes=1_048_576)
    assert code_of(batch, settings) == "RECORD_LIST_TOO_LARGE"


@pytest.mark.parametrize(
    ("codec", "code"),
    [
        (compression.NONE, None),
        (compression.LZ4, None),
        (compression.ZSTD, "UNSUPPORTED_COMPRESSION_TYPE"),
        (6, "UNKNOWN_SERVER_ERROR"),
    ],
)
def test_codecs_below_version_7(codec, code):
    batch = three(codec) if codec < 5 else three(attributes=codec)
    if code is None:
        validate(batch, allow_zstd=False)
    else:
        batch[-1] ^= 1  # a wrong CRC is found later
        assert code_of(batch, allow_zstd=False) == code


@pytest.mark.parametrize("codec", COMPRESSED)
@pytest.mark.parametrize("junk", [b"junkjunkjunkjunkjunkjunk", b"\x1f\x8b\x08\x00"])
def test_undecodable_data(codec, junk):
    batch = batch_of(b"", count=3, codec=codec, compressed=junk)
    assert code_of(batch) == "UNKNOWN_SERVER_ERROR"


@pytest.mark.parametrize("codec", CODECS)
def test_wrong_counts_of_records(codec):
    for count in (2, 4):
        batch = three(codec, count=count, last_offset_delta=count - 1)
        assert code_of(batch) == "INVALID_RECORD"


def test_a_structural_fault_comes_before_the_faults_of_records():
    batch = three(keys=(None, b"k", b"k"), count=4, last_offset_delta=3)
    error = error_of(batch, config(cleanup_policy="compact"))
    assert not isinstance(error, RecordValidationError)


def test_lengths_that_lie_are_refused_uncompressed_and_skipped_compressed():
    data = raw_record(b"\0\0\0\x02k\x02v\0", length=40)
    assert code_of(batch_of(data, count=1)) == "INVALID_RECORD"
    assert validate(batch_of(data, count=1, codec=compression.GZIP)).record_count == 1
    recompressed = config(compression_type="lz4")
    assert code_of(batch_of(data, count=1, codec=compression.GZIP), recompressed) == (
        "INVALID_RECORD"
    )


def test_offset_deltas_that_are_not_sequential():
    """Kept without compression, rebuilt with another codec, and Kafka's -1 with the same one."""
    odd = {"deltas": (0, 5, 9)}
    before = bytes(three(**odd))
    assert bytes(validate(three(**odd)).data) == before
    for target in ("gzip", "snappy", "lz4", "zstd"):
        validated = validate(three(**odd), config(compression_type=target))
        assert [record.offset for record in iter_records(validated.data)] == [0, 1, 2]
    validated = validate(three(compression.GZIP, **odd), config(compression_type="uncompressed"))
    assert [record.offset for record in iter_records(validated.data)] == [0, 1, 2]
    assert code_of(three(compression.GZIP, **odd)) == "UNKNOWN_SERVER_ERROR"


@pytest.mark.parametrize("codec", CODECS)
def test_compacted_topics_need_keys(codec):
    compacted = config(cleanup_policy="compact")
    error = error_of(three(codec, keys=(b"k", None, None)), compacted)
    assert isinstance(error, RecordValidationError)
    assert error.error_code is ErrorCode.INVALID_RECORD
    message = "Compacted topic cannot accept message without key in topic partition t-0"
    assert error.record_errors == [(1, message), (2, message)]
    assert error.message == (
        "One or more records have been rejected due to 2 record errors in total, and only showing "
        f"the first three errors at most: [RecordError(batchIndex=1, message='{message}'), "
        f"RecordError(batchIndex=2, message='{message}')]"
    )
    assert validate(three(codec, keys=(b"", b"", b"")), compacted).record_count == 3
    validate(three(codec, keys=(None,) * 3))


@pytest.mark.parametrize("codec", CODECS)
def test_timestamps_out_of_range(codec):
    limits = config(message_timestamp_before_max_ms=HOUR, message_timestamp_after_max_ms=HOUR)
    batch = three(codec, timestamps=(NOW, NOW - 2 * HOUR, NOW + 2 * HOUR))
    error = error_of(batch, limits)
    assert isinstance(error, RecordValidationError)
    assert error.error_code is ErrorCode.INVALID_TIMESTAMP
    assert error.message == "One or more records have been rejected due to invalid timestamp"
    assert error.record_errors == [
        (
            index,
            f"Timestamp {timestamp} of message with offset {index} is out of range. The timestamp "
            f"should be within [{NOW - HOUR}, {NOW + HOUR}]",
        )
        for index, timestamp in ((1, NOW - 2 * HOUR), (2, NOW + 2 * HOUR))
    ]
    for timestamps in ((NOW - HOUR, NOW, NOW + HOUR), (-1, -1, -1), (NOW, -1, NOW)):
        validate(three(codec, timestamps=timestamps), limits)


@pytest.mark.parametrize(
    ("timestamp", "accepted"),
    [(0, True), (-2, True), (-(2**63), False), (NOW + HOUR, True), (NOW + HOUR + 1, False)],
)
def test_timestamps_by_kafkas_defaults(timestamp, accepted):
    batch = three(timestamps=(timestamp,) * 3)
    if accepted:
        assert validate(batch).max_timestamp == max(timestamp, -1)
    else:
        assert code_of(batch) == "INVALID_TIMESTAMP"


@pytest.mark.parametrize("codec", CODECS)
def test_a_wrong_max_timestamp_is_corrected(codec):
    batch = three(codec, timestamps=(3000, 1000, 4000), max_timestamp=1)
    validated = validate(batch)
    header = b.RecordBatchHeader(validated.data)
    assert header.max_timestamp == validated.max_timestamp == 4000
    assert validated.offset_delta_of_max_timestamp == 2
    assert b.verify_crc(validated.data, 0, len(validated.data))


def test_attributes_that_kafka_does_not_know_go_when_it_writes_them():
    batch = three(attributes=0x80 | b.DELETE_HORIZON_BIT, max_timestamp=5)
    assert b.RecordBatchHeader(validate(batch).data).attributes == b.DELETE_HORIZON_BIT


@pytest.mark.parametrize("codec", CODECS)
def test_log_append_time(codec):
    batch = three(codec, timestamps=(5000, 4000, 6000))
    data = record_data(batch)
    validated = validate(batch, config(message_timestamp_type="LogAppendTime"))
    header = b.RecordBatchHeader(validated.data)
    assert header.is_log_append_time
    assert (header.max_timestamp, header.base_timestamp) == (NOW, 5000)
    assert record_data(validated.data) == data
    assert b.verify_crc(validated.data, 0, len(validated.data))
    assert (validated.max_timestamp, validated.offset_delta_of_max_timestamp) == (NOW, 0)
    assert validated.log_append_time_ms == NOW


def test_log_append_time_set_by_the_client():
    """Refused where the broker sets it; elsewhere cleared, with the client's time for all."""
    batch = three(attributes=b.LOG_APPEND_TIME_BIT, max_timestamp=1500)
    error = error_of(batch, config(message_timestamp_type="LogAppendTime"))
    assert isinstance(error, RecordValidationError)
    assert error.error_code is ErrorCode.INVALID_TIMESTAMP
    assert error.record_errors[1] == (
        1,
        "Invalid timestamp type in message DefaultRecord(offset=1, timestamp=1500, key=1 bytes, "
        "value=1 bytes). Producer should not set timestamp type to LogAppendTime.",
    )
    validated = validate(batch)
    header = b.RecordBatchHeader(validated.data)
    assert (header.is_log_append_time, header.max_timestamp) == (False, 1500)
    assert validated.max_timestamp == 1500
    none = three(attributes=b.LOG_APPEND_TIME_BIT, timestamps=(-1,) * 3, max_timestamp=-1)
    assert code_of(none) == "INVALID_TIMESTAMP"


@pytest.mark.parametrize("source", CODECS)
@pytest.mark.parametrize("target", ["uncompressed", "gzip", "snappy", "lz4", "zstd"])
def test_recompression(source, target):
    batch = three(
        source,
        timestamps=(3000, 1000, 2000),
        producer_id=5,
        producer_epoch=0,
        base_sequence=3,
        attributes=b.TRANSACTIONAL_BIT,
    )
    validated = validate(batch, config(compression_type=target))
    header = b.RecordBatchHeader(validated.data)
    wanted = compression.CODEC_IDS.get(target, 0)
    assert header.codec == wanted
    assert header.is_transactional
    assert b.verify_crc(validated.data, 0, len(validated.data))
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (5, 0, 3)
    assert [(r.offset, r.timestamp) for r in iter_records(validated.data)] == [
        (0, 3000),
        (1, 1000),
        (2, 2000),
    ]
    assert (validated.max_timestamp, validated.offset_delta_of_max_timestamp) == (3000, 0)
    if source == wanted:
        assert validated.data.obj is batch


def test_recompression_takes_the_first_timestamp_for_the_base():
    batch = three(base_timestamp=900, max_timestamp=1)
    data = [(r.timestamp, r.value) for r in iter_records(batch)]
    validated = validate(batch, config(compression_type="gzip"))
    header = b.RecordBatchHeader(validated.data)
    assert (header.base_timestamp, header.max_timestamp) == (900, 900)
    assert [(r.timestamp, r.value) for r in iter_records(validated.data)] == data


def test_recompression_wraps_timestamps_as_64_bit_sums():
    data = record_bytes(timestamp_delta=-(2**63)) + record_bytes(index=1)
    batch = batch_of(data, count=2, base_timestamp=2**63 - 1, max_timestamp=2**63 - 1)
    settings = config(compression_type="lz4", message_timestamp_after_max_ms=2**63 - 1)
    validated = validate(batch, settings)
    assert [r.timestamp for r in iter_records(validated.data)] == [-1, 2**63 - 1]


def test_recompression_of_odd_records_keeps_headers_and_drops_attributes():
    body = b"\x07\0\0\x02k\x02v\x02\x02h\x01"
    batch = batch_of(raw_record(body), count=1, **OLD)
    validated = validate(batch, config(compression_type="zstd"))
    (record,) = iter_records(validated.data)
    assert record.attributes == 0
    assert record.headers == [("h", None)]


def test_recompression_for_a_log_append_time_topic():
    settings = config(compression_type="gzip", message_timestamp_type="LogAppendTime")
    validated = validate(three(), settings)
    header = b.RecordBatchHeader(validated.data)
    assert (header.is_log_append_time, header.max_timestamp, header.codec) == (True, NOW, 1)
    assert validated.log_append_time_ms == NOW


def test_recompression_of_a_batch_with_the_clients_append_time():
    batch = three(attributes=b.LOG_APPEND_TIME_BIT, max_timestamp=1500)
    validated = validate(batch, config(compression_type="gzip"))
    header = b.RecordBatchHeader(validated.data)
    assert (header.is_log_append_time, header.base_timestamp, header.max_timestamp) == (
        False,
        1500,
        1500,
    )
    assert [record.timestamp for record in iter_records(validated.data)] == [1500] * 3


@pytest.mark.parametrize(
    "header",
    [
        {"timestamps": (-2, -2, -2)},
        {"attributes": b.TRANSACTIONAL_BIT},
        {"producer_id": -2},
        {"producer_id": 4, "base_sequence": 0},
    ],
)
def test_what_kafkas_builder_does_not_take(header):
    validate(three(**header))
    assert code_of(three(**header), config(compression_type="gzip")) == "UNKNOWN_SERVER_ERROR"


def test_a_batch_that_is_too_large_after_recompression():
    data = b"".join(record_bytes(bytes(1000), index=index) for index in range(20))
    batch = batch_of(data, count=20, codec=compression.GZIP)
    settings = {"compression_type": "uncompressed"}
    assert code_of(batch, config(max_message_bytes=20_000, **settings)) == "MESSAGE_TOO_LARGE"
    size = b.HEADER_SIZE + len(data)
    validated = validate(batch, config(max_message_bytes=size, **settings))
    assert len(validated.data) == size
    odd = batch_of(data, count=20, codec=compression.GZIP, base_timestamp=7, max_timestamp=7)
    assert code_of(odd, config(max_message_bytes=size - 1, **settings)) == "MESSAGE_TOO_LARGE"


@pytest.mark.parametrize("level", [1, 9])
def test_compression_levels_of_the_topic(level):
    settings = config(compression_type="gzip", compression_gzip_level=level)
    data = record_bytes(b"".join(b"%d" % (i * i) for i in range(2000)))
    validated = validate(batch_of(data, count=1), settings)
    assert record_data(validated.data) == compression.compress(compression.GZIP, data, level)
    # The same codec at another level is not written anew.
    as_sent = compression.compress(compression.GZIP, data, 5)
    kept = validate(batch_of(data, count=1, codec=1, compressed=as_sent), settings)
    assert record_data(kept.data) == as_sent


def test_header_validation_trusts_the_records():
    batch = batch_of(b"no records at all", count=3, max_timestamp=77)
    validated = validate(batch, walk=False)
    assert (validated.max_timestamp, validated.offset_delta_of_max_timestamp) == (77, 2)
    append_time = config(message_timestamp_type="LogAppendTime")
    assert validate(batch, append_time, walk=False).max_timestamp == NOW
    for settings in (config(cleanup_policy="compact"), config(compression_type="gzip")):
        assert code_of(batch_of(b"no records", count=3), settings, walk=False) == "INVALID_RECORD"


def test_coordinators_write_what_clients_must_not():
    marker = b.build_end_transaction_marker(
        commit=True, producer_id=3, producer_epoch=0, coordinator_epoch=1, timestamp=5
    )
    validated = validate(marker, origin=AppendOrigin.COORDINATOR)
    assert validated.is_control
    assert validated.is_transactional
    compressed = config(compression_type="gzip")
    assert validate(marker, compressed, origin=AppendOrigin.COORDINATOR).data.obj is marker
    empty = b.assemble_batch(b"", record_count=0, base_timestamp=-1, max_timestamp=-1)
    assert validate(empty, origin=AppendOrigin.COORDINATOR).record_count == 0
    negative = b.assemble_batch(b"", record_count=-3, base_timestamp=-1, max_timestamp=-1)
    assert code_of(negative, origin=AppendOrigin.COORDINATOR) == "INVALID_RECORD"


@pytest.mark.parametrize("codec", ["producer", "gzip"])
def test_coordinators_never_wait(codec):
    """Not even for a batch with more records than a client's is walked at a time."""
    validated = validate_records(
        memoryview(many(5000)),
        config=config(compression_type=codec, cleanup_policy="compact"),
        origin=AppendOrigin.COORDINATOR,
        now_ms=NOW,
        offload=InlineOffload(),
    )
    assert not inspect.iscoroutine(validated)
    assert (validated.record_count, validated.max_timestamp) == (5000, 1000)
    assert len(list(iter_records(validated.data))) == 5000


def test_small_work_is_inline_and_large_work_a_coroutine():
    def is_coroutine(batch, settings=None, at_once=None):
        validated = validate_records(
            memoryview(batch),
            config=settings or LogConfig(),
            origin=AppendOrigin.CLIENT,
            now_ms=NOW,
            offload=InlineOffload(),
            at_once=at_once,
        )
        if inspect.iscoroutine(validated):
            asyncio.run(validated)
            return True
        return False

    assert not is_coroutine(three())
    assert not is_coroutine(batch_of(record_bytes(bytes(500_000)), count=1))
    assert is_coroutine(many(log_validator.WALK_SLICE + 1))
    for codec in COMPRESSED:
        assert not is_coroutine(three(codec))
        assert is_coroutine(batch_of(record_bytes(bytes(100_000)), count=1, codec=codec))
    assert is_coroutine(
        batch_of(record_bytes(bytes(100_000)), count=1), config(compression_type="lz4")
    )
    for codec in AT_ONCE:
        for size in (100_000, 300_000):
            batch = batch_of(record_bytes(bytes(size)), count=1, codec=codec)
            is_large = size > log_validator.AT_ONCE_SIZE
            assert is_coroutine(batch, at_once=AtOnceInflater()) is is_large
        large = many(log_validator.WALK_SLICE + 1, codec)
        assert is_coroutine(large, at_once=AtOnceInflater())


class NoOffload(InlineOffload):
    async def run(self, work):
        raise AssertionError("no thread is needed")


@pytest.mark.parametrize("codec", sorted(AT_ONCE))
def test_what_fits_the_buffer_goes_to_no_thread_and_leaves_the_buffer(codec):
    at_once = AtOnceInflater()
    batch = many(9000, codec)
    for _ in range(2):
        validating = validate_records(
            memoryview(batch),
            config=LogConfig(),
            origin=AppendOrigin.CLIENT,
            now_ms=NOW,
            offload=NoOffload(),
            at_once=at_once,
        )
        assert asyncio.run(validating).record_count == 9000
    # Also when the walk finds fault: whoever comes next gets the same buffer.
    probe = at_once.inflate(codec, memoryview(compression.compress(codec, bytes(100))))
    buffer = probe.obj
    at_once.give_back(probe)
    short = many(9000, codec, last_offset_delta=8999 + 1)
    struct.pack_into(">i", short, b.RECORD_COUNT_POSITION, 9001)
    b.write_crc(short, 0, len(short))
    with pytest.raises(KafkaError):
        validate_once(short, None, at_once=at_once)
    assert at_once.inflate(codec, memoryview(compression.compress(codec, bytes(9)))).obj is buffer


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("target", ["producer", "uncompressed", "gzip"])
def test_large_batches_validate_like_small_ones(codec, target):
    count = 9000
    settings = config(compression_type=target)
    batch = many(count, codec, max_timestamp=3)
    expected = list(iter_records(batch))
    validated = validate(batch, settings)
    assert (validated.record_count, validated.max_timestamp) == (count, 1000)
    assert list(iter_records(validated.data)) == expected
    for wrong in (count - 1, count + 1):
        batch = many(count, codec, last_offset_delta=wrong - 1)
        struct.pack_into(">i", batch, b.RECORD_COUNT_POSITION, wrong)
        b.write_crc(batch, 0, len(batch))
        assert code_of(batch, settings) == "INVALID_RECORD"


@pytest.mark.parametrize("codec", [compression.NONE, compression.LZ4])
def test_record_errors_in_large_batches(codec, monkeypatch):
    count = 5000
    data = b"".join(
        record_bytes(b"v" * 20, key=None if index % 2 else b"k", index=index)
        for index in range(count)
    )
    compacted = config(cleanup_policy="compact")
    error = error_of(batch_of(data, count=count, codec=codec), compacted)
    assert [index for index, _ in error.record_errors] == list(range(1, count, 2))
    monkeypatch.setattr(record_errors, "MAX_RECORD_ERRORS", 10)
    error = error_of(batch_of(data, count=count, codec=codec), compacted)
    assert len(error.record_errors) == 10
    assert "2500 record errors in total" in error.message


def test_offset_deltas_of_large_compressed_batches():
    data = b"".join(record_bytes(b"v" * 20, index=0) for _ in range(5000))
    assert code_of(batch_of(data, count=5000, codec=compression.ZSTD)) == "UNKNOWN_SERVER_ERROR"


def test_the_limit_of_inflated_data(monkeypatch):
    assert inflated_limit(LogConfig()) == 128 * 1024 * 1024
    assert inflated_limit(config(max_message_bytes=100_000_000)) == 1_600_000_000
    monkeypatch.setattr(log_validator, "MIN_INFLATED_LIMIT", 200_000)
    small = config(max_message_bytes=5_000)
    for codec in COMPRESSED:
        fits = batch_of(record_bytes(bytes(190_000)), count=1, codec=codec)
        large = batch_of(record_bytes(bytes(210_000)), count=1, codec=codec)
        if codec == compression.SNAPPY:
            small = config(max_message_bytes=12_000)
        validate(fits, small)
        error = error_of(large, small)
        assert error.error_code is ErrorCode.MESSAGE_TOO_LARGE
        assert "inflate" in error.message


def test_a_bomb_is_walked_in_flat_memory():
    """50 MiB in one record, out of 51 KB: a chunk of it at a time."""
    size = 50 << 20
    record = record_bytes(bytes(size))
    compressed = gzip.compress(record, 9)
    batch = batch_of(b"", count=1, codec=compression.GZIP, compressed=compressed)
    del record
    tracemalloc.start()
    try:
        assert validate(batch).record_count == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_zeros_without_end_are_refused_at_once():
    """1 GiB of zeros are records of no length; their offsets say so early."""
    stream = compression.open_deflater(compression.ZSTD, 1)
    compressed = b"".join([stream.write(bytes(1 << 20)) for _ in range(1024)] + [stream.finish()])
    count = 2**31 - 1
    batch = batch_of(
        b"", count=count, codec=compression.ZSTD, compressed=compressed, max_timestamp=1000
    )
    assert code_of(batch) == "UNKNOWN_SERVER_ERROR"
    assert code_of(batch, config(compression_type="gzip")) == "INVALID_RECORD"


@given(st.binary(max_size=200), st.sampled_from(CODECS))
def test_any_record_data_ends_in_a_known_error_or_a_valid_batch(data, codec):
    batch = batch_of(b"", count=1, codec=codec, compressed=data)
    try:
        validated = validate(batch)
    except KafkaError as error:
        assert error.error_code in (
            ErrorCode.INVALID_RECORD,
            ErrorCode.UNKNOWN_SERVER_ERROR,
            ErrorCode.INVALID_TIMESTAMP,
        )
    else:
        assert b.verify_crc(validated.data, 0, len(validated.data))


@pytest.mark.parametrize("codec", CODECS)
def test_every_truncation_and_every_wrong_byte_of_a_batch(codec):
    batch = b.build_batch(
        [
            Record(key=b"k", value=b"value" * 5, timestamp=NOW, headers=[("h", b"1")]),
            Record(key=b"l", value=None, timestamp=NOW + 1),
        ],
        compression=codec,
    )
    known = {ErrorCode.INVALID_RECORD, ErrorCode.CORRUPT_MESSAGE, ErrorCode.UNKNOWN_SERVER_ERROR}
    for end in range(len(batch)):
        assert error_of(batch[:end]).error_code in known
    for position in range(len(batch)):
        for flip in (0x01, 0x80):
            wrong = bytearray(batch)
            wrong[position] ^= flip
            if b.LEADER_EPOCH_POSITION <= position < b.MAGIC_POSITION:
                validate(wrong)  # the broker writes that field itself
            else:
                assert error_of(wrong).error_code in known
