import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record import batch as b
from kbroker.record.record import Record, iter_records
from tests.unit.record.batches import CODECS, batch_of, numbered, record_bytes, records


def test_the_header_lies_where_kafka_puts_it():
    built = b.build_batch(
        [Record(key=b"k", value=b"v", timestamp=5), Record(value=None, timestamp=7)],
        producer_id=9,
        producer_epoch=2,
        base_sequence=11,
        transactional=True,
        base_offset=100,
        leader_epoch=3,
    )
    assert struct.unpack_from(">qiib", built) == (100, len(built) - 12, 3, 2)
    assert struct.unpack_from(">hiqqqhii", built, 21) == (0x10, 1, 5, 7, 9, 2, 11, 2)
    assert struct.unpack_from(">I", built, 17)[0] == b.compute_crc(built, 0, len(built))
    header = b.RecordBatchHeader(built)
    assert (header.base_offset, header.last_offset, header.next_offset) == (100, 101, 102)
    assert (header.size, header.position) == (len(built), 0)
    assert (header.last_sequence, header.is_transactional, header.is_control) == (12, True, False)
    assert header.delete_horizon_ms is None
    assert "producer_id=9" in repr(header)


@pytest.mark.parametrize(
    ("sequence", "increment", "expected"),
    [(0, 5, 5), (2**31 - 1, 1, 0), (2**31 - 2, 3, 1), (2**31 - 1, 0, 2**31 - 1)],
)
def test_sequences_wrap(sequence, increment, expected):
    assert b.increment_sequence(sequence, increment) == expected


def test_patching_keeps_the_crc():
    built = b.build_batch([Record(value=b"v", timestamp=1)])
    b.patch(built, 0, 2**40, 77)
    assert b.verify_crc(built, 0, len(built))
    header = b.RecordBatchHeader(built)
    assert (header.base_offset, header.leader_epoch) == (2**40, 77)
    assert (b.base_offset(built), b.last_offset_delta(built)) == (2**40, 0)


def test_patching_timestamps_writes_the_crc():
    buffer = bytearray(b"xx") + b.build_batch([Record(value=b"v", timestamp=1)])
    size = len(buffer) - 2
    b.patch_timestamps(buffer, 2, size, attributes=8, max_timestamp=99)
    assert b.verify_crc(buffer, 2, size)
    header = b.RecordBatchHeader(buffer, 2)
    assert (header.is_log_append_time, header.max_timestamp) == (True, 99)
    assert [record.timestamp for record in iter_records(buffer, header)] == [99]


@given(records, st.sampled_from(CODECS))
def test_every_bit_under_the_crc_is_guarded(items, codec):
    built = b.build_batch(items, compression=codec)
    position = b.ATTRIBUTES_POSITION + hash(codec) % (len(built) - b.ATTRIBUTES_POSITION)
    built[position] ^= 0x10
    assert not b.verify_crc(built, 0, len(built))


def test_a_size_below_the_header_or_beyond_the_data_is_no_valid_batch():
    built = b.build_batch([Record(value=b"v")])
    assert not b.verify_crc(built, 0, 60)
    assert not b.verify_crc(built, 0, len(built) + 1)
    assert not b.verify_crc(built, 1, len(built))


@given(records, st.sampled_from(CODECS))
def test_build_and_iterate_round_trip(items, codec):
    built = b.build_batch(items, compression=codec, base_offset=40)
    decoded = list(iter_records(built))
    for record in decoded:
        record.offset -= 40
    assert decoded == numbered(items)


def test_log_append_time_overrides_every_timestamp():
    items = [Record(value=b"a", timestamp=5), Record(value=b"b", timestamp=6)]
    built = b.build_batch(items, log_append_time=1234)
    assert [record.timestamp for record in iter_records(built)] == [1234, 1234]
    assert b.RecordBatchHeader(built).base_timestamp == 5


def test_a_batch_needs_records():
    with pytest.raises(ValueError, match="at least one"):
        b.build_batch([])


def test_iter_batches_stops_at_a_cut_batch():
    one = b.build_batch([Record(value=b"a")])
    two = b.build_batch([Record(value=b"b"), Record(value=b"c")])
    both = one + two
    for end in range(len(both) + 1):
        found = [(h.position, h.size) for h in b.iter_batches(memoryview(both)[:end])]
        expected = [(0, len(one))] if end >= len(one) else []
        if end == len(both):
            expected.append((len(one), len(two)))
        assert found == expected
    assert [h.position for h in b.iter_batches(both, len(one))] == [len(one)]


@pytest.mark.parametrize("length", [-1, 0, 48, -(2**31)])
def test_iter_batches_refuses_impossible_lengths(length):
    built = b.build_batch([Record(value=b"a")])
    struct.pack_into(">i", built, b.LENGTH_POSITION, length)
    with pytest.raises(KafkaError) as caught:
        list(b.iter_batches(built))
    assert caught.value.error_code is ErrorCode.CORRUPT_MESSAGE


def test_iter_batches_refuses_other_magic():
    built = b.build_batch([Record(value=b"a")])
    built[b.MAGIC_POSITION] = 1
    with pytest.raises(KafkaError):
        list(b.iter_batches(built))


@pytest.mark.parametrize(("commit", "kind"), [(True, 1), (False, 0)])
def test_end_transaction_markers(commit, kind):
    marker = b.build_end_transaction_marker(
        commit=commit,
        producer_id=7,
        producer_epoch=1,
        coordinator_epoch=12,
        timestamp=99,
        base_offset=50,
    )
    header = b.RecordBatchHeader(marker)
    assert b.verify_crc(marker, 0, len(marker))
    assert header.is_control
    assert header.is_transactional
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 1, -1)
    (record,) = iter_records(marker)
    assert (record.offset, record.timestamp) == (50, 99)
    assert record.key == struct.pack(">hh", 0, kind)
    assert record.value == struct.pack(">hi", 0, 12)
    assert b.read_control_type(record.key) == kind


@pytest.mark.parametrize("key", [b"", b"\0\0\0", b"\xff\xff\0\0"])
def test_unreadable_control_keys(key):
    with pytest.raises(KafkaError):
        b.read_control_type(key)


def test_a_short_buffer_has_no_header():
    with pytest.raises(KafkaError) as caught:
        b.RecordBatchHeader(bytes(60))
    assert caught.value.error_code is ErrorCode.CORRUPT_MESSAGE


def test_an_empty_batch_as_the_cleaner_leaves_it():
    built = b.assemble_batch(
        b"",
        record_count=0,
        base_timestamp=-1,
        max_timestamp=9,
        last_offset_delta=4,
        base_sequence=3,
    )
    header = b.RecordBatchHeader(built)
    assert (header.record_count, header.last_offset, header.last_sequence) == (0, 4, 7)
    assert list(iter_records(built)) == []


@pytest.mark.parametrize("cut", range(1, 12))
def test_records_that_end_too_early_are_corrupt(cut):
    data = record_bytes() + record_bytes(index=1, headers=[("h", b"1")])
    with pytest.raises(KafkaError) as caught:
        list(iter_records(batch_of(data[:-cut], count=2)))
    assert caught.value.error_code is ErrorCode.CORRUPT_MESSAGE
