import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record import batch as b
from kbroker.record.encoding import VarintTooLongError, wrap_int64, write_varint
from kbroker.record.record import Record, iter_records, read_record
from kbroker.record.stream_walk import StreamWalker, walk_uncompressed
from kbroker.record.walk import NO_MINIMUM, WalkResult, walk_records
from tests.unit.record.batches import batch_of, raw_record, record_bytes, record_data, records

INVALID = ErrorCode.INVALID_RECORD


def walk(data, count, base_timestamp=0):
    return walk_uncompressed(data, 0, record_count=count, base_timestamp=base_timestamp)


def error_of(data, count=1):
    with pytest.raises(KafkaError) as caught:
        walk(data, count)
    return caught.value.error_code


def stream(chunks, count, *, strict, base_timestamp=0, slice_size=1 << 30):
    walker = StreamWalker(record_count=count, base_timestamp=base_timestamp, strict=strict)
    for chunk in chunks:
        walker.begin(chunk)
        while not walker.advance(slice_size):
            pass
    return walker.finish()


RESULT = [name for name in dir(WalkResult) if not name.startswith("_")]  # compiled or not


def seen(result):
    return {name: getattr(result, name) for name in RESULT}


def pieces(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


@given(records)
def test_what_is_built_is_walked(items):
    built = b.build_batch(items)
    header = b.RecordBatchHeader(built)
    data = record_data(built)
    result = walk(data, len(items), header.base_timestamp)
    timestamps = [record.timestamp for record in iter_records(built)]
    assert result.index == len(items)
    assert result.max_timestamp == max(-1, *timestamps)
    if result.max_timestamp >= 0:
        assert result.index_of_max_timestamp == timestamps.index(result.max_timestamp)
    assert result.min_timestamp == min([t for t in timestamps if t != -1], default=NO_MINIMUM)
    assert result.first_timestamp == timestamps[0]
    assert result.has_null_key == any(item.key is None for item in items)
    assert result.contiguous
    assert result.plain


@given(records, st.integers(1, 90), st.integers(1, 4), st.booleans())
def test_chunks_do_not_matter(items, chunk_size, slice_size, strict):
    built = b.build_batch(items)
    base = b.RecordBatchHeader(built).base_timestamp
    data = record_data(built)
    whole = walk(data, len(items), base)
    chunked = stream(
        pieces(data, chunk_size),
        len(items),
        strict=strict,
        base_timestamp=base,
        slice_size=slice_size,
    )
    assert seen(chunked) == seen(whole)


@given(records, st.data())
def test_one_wrong_byte_ends_as_an_iterator_over_the_records_ends(items, data_source):
    """The walk and the decoder of whole records agree on what can be read."""
    built = b.build_batch(items)
    position = data_source.draw(st.integers(b.HEADER_SIZE, len(built) - 1))
    built[position] = data_source.draw(st.integers(0, 255))
    data = record_data(built)
    header = b.RecordBatchHeader(built)
    try:
        walk(data, len(items), header.base_timestamp)
        walked = True
    except KafkaError as error:
        assert error.error_code in (INVALID, ErrorCode.UNKNOWN_SERVER_ERROR)
        walked = False
    assert walked == decodes(built, len(data))
    for chunk_size in (3, 1000):
        try:
            stream(pieces(data, chunk_size), len(items), strict=True)
            assert walked
        except KafkaError as error:
            assert error.error_code is INVALID
            assert not walked


def decodes(built, size):
    """Whether whole records, one after the other, fill the data."""
    data = record_data(built)
    position = 0
    try:
        for _ in range(b.RecordBatchHeader(built).record_count):
            _, position = read_record(data, position)
    except (IndexError, VarintTooLongError):
        return False
    return position == size


@given(records)
def test_every_truncation_is_refused(items):
    data = record_data(b.build_batch(items))
    step = max(1, len(data) // 50)
    for end in range(0, len(data), step):
        assert error_of(data[:end], len(items)) is INVALID
        for strict in (True, False):
            with pytest.raises(KafkaError) as caught:
                stream(pieces(data[:end], 64), len(items), strict=strict)
            assert caught.value.error_code is INVALID


@given(st.binary(max_size=300), st.integers(1, 5), st.integers(1, 64))
def test_any_bytes_end_in_a_known_error_or_a_result(data, count, chunk_size):
    try:
        walk(data, count)
        strictly = True
    except KafkaError as error:
        assert error.error_code in (INVALID, ErrorCode.UNKNOWN_SERVER_ERROR)
        strictly = False
    try:
        stream(pieces(data, chunk_size), count, strict=False)
    except KafkaError as error:
        assert error.error_code is INVALID
        assert not strictly


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 1),
        (record_bytes() + b"\0", 1),  # a byte too many
        (record_bytes() * 2, 1),  # a record too many
        (record_bytes(), 2),  # a record too few
        (raw_record(b"\0\0\0\x02k\x02v\0", length=7), 1),  # shorter than its fields
        (raw_record(b"\0\0\0\x02k\x02v\0\0"), 1),  # longer than its fields
        (raw_record(b"\0\0\0\x02k\x02v\0", length=-5), 1),
        (raw_record(b"\0\0\0\x02k\x7ev\0"), 1),  # value beyond the record
        (raw_record(b"\0\0\0\x7ek\x02v\0"), 1),  # key beyond the record
        (raw_record(b"\0\0\0\x02k\x02v\x01"), 1),  # -1 headers
        (raw_record(b"\0\0\0\x02k\x02v\x04\x02h\x02x"), 1),  # one header of two
        (raw_record(b"\0\0\0\x02k\x02v\x02\x01\x02x"), 1),  # null header key
        (raw_record(b"\0\0\0\x02k\x02v\x02\x02h\x7e"), 1),  # header value beyond
        (raw_record(b"\0" + b"\x80" * 10 + b"\0\0\x02k\x02v\0"), 1),  # timestamp of 11 bytes
        (raw_record(b"\0\0" + b"\x80" * 5 + b"\0\x02k\x02v\0"), 1),  # offset of 6 bytes
        (raw_record(b"\0\0\0" + b"\x80" * 5 + b"\0\x02v\0"), 1),
        (raw_record(b"\0\0\0\x02k" + b"\x80" * 5 + b"\0v\0"), 1),
        (raw_record(b"\0\0\0\x02k\x02v" + b"\x80" * 5 + b"\0"), 1),
    ],
)
def test_lies_are_invalid_records(data, count):
    assert error_of(data, count) is INVALID


def test_a_record_length_of_six_bytes_is_kafkas_odd_case():
    data = b"\xff" * 5 + b"\0" + record_bytes()
    assert error_of(data) is ErrorCode.UNKNOWN_SERVER_ERROR
    with pytest.raises(KafkaError) as caught:
        stream([data], 1, strict=False)
    assert caught.value.error_code is INVALID


@pytest.mark.parametrize("length", [0, 3, 500, -7])
def test_lenient_walks_do_not_look_at_the_length(length):
    data = raw_record(b"\0\0\0\x02k\x02v\0", length=length)
    assert stream([data], 1, strict=False).index == 1
    assert stream(pieces(data, 1), 1, strict=False).index == 1
    with pytest.raises(KafkaError):
        stream(pieces(data, 1), 1, strict=True)


def test_negative_lengths_are_null_and_attributes_free():
    data = raw_record(b"\xff\0\0" + write_varint(-5) + write_varint(-9) + b"\x02\0" + b"\x03")
    result = walk(data, 1)
    assert result.has_null_key
    assert not result.plain


def test_offset_deltas_are_reported():
    data = record_bytes() + record_bytes(index=5)
    assert not walk(data, 2).contiguous
    assert not stream(pieces(data, 3), 2, strict=False).contiguous


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6),
)
@example(2**63 - 1, [1, 0, -1])
@example(-(2**63), [-1, 0, -(2**63)])
@example(5, [-6, 3])
def test_timestamps_wrap_as_64_bit_sums(base, deltas):
    data = b"".join(
        record_bytes(index=index, timestamp_delta=delta) for index, delta in enumerate(deltas)
    )
    timestamps = [wrap_int64(base + delta) for delta in deltas]
    for result in (
        walk(data, len(deltas), base),
        stream(pieces(data, 5), len(deltas), strict=False, base_timestamp=base),
    ):
        assert result.max_timestamp == max(-1, *timestamps)
        assert result.min_timestamp == min([t for t in timestamps if t != -1], default=NO_MINIMUM)
        assert result.first_timestamp == timestamps[0]


def test_slices_add_up():
    data = b"".join(record_bytes(index=index, timestamp_delta=-index) for index in range(100))
    result = WalkResult()
    position = 0
    for limit in range(7, 100, 31):
        position = walk_records(
            data, position, len(data), limit=limit, base_timestamp=500, result=result, strict=True
        )
        assert result.index == limit
    position = walk_records(
        data, position, len(data), limit=100, base_timestamp=500, result=result, strict=True
    )
    assert position == len(data)
    assert (result.max_timestamp, result.index_of_max_timestamp) == (500, 0)
    assert result.min_timestamp == 401


def test_an_observer_sees_every_record():
    data = (
        record_bytes(b"abc", key=None, timestamp_delta=3)
        + record_bytes(None, key=b"", index=9)
        + record_bytes(b"x", index=2, headers=[("h", None)])
    )
    for size in (1, 4, 1000):
        rows = []
        walker = StreamWalker(
            record_count=3,
            base_timestamp=10,
            strict=True,
            observer=lambda *row, seen=rows: seen.append(row),
        )
        for chunk in pieces(data, size):
            walker.begin(chunk)
            while not walker.advance(1):
                pass
        walker.finish()
        assert rows == [(0, 13, 0, -1, 3), (1, 10, 9, 0, -1), (2, 10, 2, 1, 1)]


def test_a_claimed_gigabyte_takes_no_memory():
    """A record that claims 1 GiB is skipped through chunk by chunk."""
    head = write_varint(2**30 + 20) + b"\0\0\0\x01" + write_varint(2**30)
    walker = StreamWalker(record_count=1, base_timestamp=0, strict=False)
    walker.feed(head)
    chunk = memoryview(bytes(2**20))
    for _ in range(1024):
        walker.feed(chunk)
    walker.feed(b"\0")
    assert walker.finish().index == 1


def test_records_after_the_last_one_end_a_stream_at_once():
    walker = StreamWalker(record_count=1, base_timestamp=0, strict=False)
    walker.feed(record_bytes())
    with pytest.raises(KafkaError):
        walker.feed(b"\0")


def test_the_count_of_headers_is_bounded_by_the_data():
    data = batch_of(raw_record(b"\0\0\0\x01\x01" + write_varint(2**31 - 1)), count=1)
    with pytest.raises(KafkaError):
        list(iter_records(data))
    assert error_of(record_data(data)) is INVALID


def test_record_repr_and_equality():
    record = Record(key=b"k", headers=[("h", b"1")])
    assert record == Record(key=b"k", headers=(("h", b"1"),))
    assert record != Record(key=b"k")
    assert record != "k"
    assert "b'k'" in repr(record)
