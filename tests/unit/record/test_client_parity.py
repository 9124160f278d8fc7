"""Batches of kafka-python are read here, ours are read by kafka-python, in every codec."""

import inspect
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.common.offload import InlineOffload
from kbroker.config.topic_config import LogConfig
from kbroker.record import compression
from kbroker.record.batch import build_batch, iter_batches, verify_crc
from kbroker.record.record import Record, iter_records
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.log_validator import validate_records
from tests.unit.record.batches import CODECS, numbered, records

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it reads its schemas the old way
    from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
    from kafka.record.memory_records import MemoryRecords


def built_by_kafka_python(items, codec, **producer):
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=False,
        producer_id=producer.get("producer_id", -1),
        producer_epoch=producer.get("producer_epoch", -1),
        base_sequence=producer.get("base_sequence", -1),
        batch_size=1 << 20,
    )
    for offset, item in enumerate(items):
        builder.append(offset, max(item.timestamp, 0), item.key, item.value, list(item.headers))
    return bytearray(builder.build())


@given(records, st.sampled_from(CODECS))
def test_theirs_decode_here(items, codec):
    batch = built_by_kafka_python(items, codec)
    (header,) = iter_batches(batch)
    assert header.size == len(batch)
    assert verify_crc(batch, 0, len(batch))
    for item in items:
        item.timestamp = max(item.timestamp, 0)
    assert list(iter_records(batch)) == numbered(items)


@given(records, st.sampled_from(CODECS))
def test_ours_decode_there(items, codec):
    batch = build_batch(items, compression=codec, producer_id=5, producer_epoch=1, base_sequence=9)
    theirs = DefaultRecordBatch(bytes(batch))
    assert theirs.validate_crc()
    assert (theirs.producer_id, theirs.producer_epoch, theirs.base_sequence) == (5, 1, 9)
    decoded = list(theirs)
    assert [record.offset for record in decoded] == list(range(len(items)))
    for record, item in zip(decoded, items, strict=True):
        assert (record.timestamp, record.key, record.value) == (
            item.timestamp,
            item.key,
            item.value,
        )
        assert list(record.headers) == list(item.headers)


@pytest.mark.parametrize("codec", CODECS)
def test_theirs_are_valid_as_they_came(codec):
    items = [Record(key=b"k", value=b"v" * 100, timestamp=1000 + i) for i in range(50)]
    batch = built_by_kafka_python(items, codec, producer_id=7, producer_epoch=0, base_sequence=0)
    before = bytes(batch)
    validated = validate_records(
        memoryview(batch),
        config=LogConfig(),
        origin=AppendOrigin.CLIENT,
        now_ms=5000,
        offload=InlineOffload(),
    )
    assert not inspect.iscoroutine(validated)
    assert bytes(validated.data) == before
    assert (validated.record_count, validated.max_timestamp) == (50, 1049)
    assert validated.offset_delta_of_max_timestamp == 49
    assert (validated.producer_id, validated.producer_epoch, validated.base_sequence) == (7, 0, 0)


@pytest.mark.parametrize("codec", CODECS)
def test_recompressed_batches_decode_there(codec):
    items = [Record(key=b"k", value=b"v" * 100, timestamp=1000 + i) for i in range(50)]
    config = LogConfig.from_properties(
        {"compression.type": compression.CODEC_NAMES[codec] if codec else "uncompressed"},
        LogConfig(),
    )
    for source in CODECS:
        batch = build_batch(items, compression=source)
        validated = validate_records(
            memoryview(batch),
            config=config,
            origin=AppendOrigin.CLIENT,
            now_ms=5000,
            offload=InlineOffload(),
        )
        (theirs,) = iter_all(bytes(validated.data))
        assert theirs.compression_type == codec
        assert [record.timestamp for record in theirs] == [item.timestamp for item in items]


def iter_all(data):
    stored = MemoryRecords(data)
    while stored.has_next():
        yield stored.next_batch()
