import random

import pytest

from kbroker.record.equal_batch import pass_equal_batch
from kbroker.record.stream_walk import StreamWalker
from kbroker.record.walk import WalkResult, walk_records
from tests.sizes import size
from tests.unit.record.batches import raw_record, record_bytes
from tests.unit.record.test_equal_records import BASE, assert_same, equal_records, seen

VALUE_SIZES = (0, 1, 20, 47, 48, 49, 50, 55, 63, 64, 300, 2000, 9000)


def passed(data, count, *, buffer=None, base=BASE):
    """Position and result of the columns, after a look at what a walk says of as many records."""
    result = WalkResult()
    taken = data if buffer is None else buffer
    end = pass_equal_batch(taken, 0, len(data), count=count, base_timestamp=base, result=result)
    expected = WalkResult()
    walked = walk_records(
        bytes(data),
        0,
        len(data),
        limit=result.index,
        base_timestamp=base,
        result=expected,
        strict=True,
    )
    assert (end, seen(result)) == (walked, seen(expected))
    return end, result


@pytest.mark.parametrize("value_size", VALUE_SIZES)
@pytest.mark.parametrize(
    "key", [None, b"", b"k" * 63, b"k" * 64], ids=["null", "empty", "63", "64"]
)
@pytest.mark.parametrize("count", [8, 63, 64, 65, 300])
def test_a_batch_of_one_shape_is_passed_at_once(value_size, key, count):
    data = equal_records(count, value=bytes(value_size), key=key, deltas=lambda n: n // 30)
    buffer = bytearray(data) + b"\0" * 5000  # what was there before
    for columns in (data, bytearray(data), memoryview(data), buffer):
        end, result = passed(data, count, buffer=columns)
        # Where the length comes to take a byte more, or takes three, the rest is left.
        first = equal_records(1, value=bytes(value_size), key=key)
        last = equal_records(1, value=bytes(value_size), key=key, first=count - 1)
        if len(last) - len(first) == (count > 64) and len(first) < 8192:
            assert (end, result.index) == (len(data), count)
        elif len(first) < 8192:
            assert result.index == 64
        else:
            assert not result.index
    assert_same(data, count=count)


@pytest.mark.parametrize("count", [8191, 8192, 8193, 8300, 16_384])
def test_offsets_of_three_bytes_are_passed(count):
    data = equal_records(count, value=b"v" * 7)
    assert passed(data, count)[0] == len(data)


def test_more_records_than_its_tables_have_are_left_to_others():
    data = equal_records(16_385, value=b"")
    assert passed(data, 16_385)[0] == 0
    assert_same(data, count=16_385)


@pytest.mark.parametrize(
    ("deltas", "whole"),
    [
        (lambda n: n, True),
        (lambda n: n // 3, True),
        (lambda n: 60 + n // 100 * 40, True),
        (lambda n: min(n * 40, 8191), True),
        (lambda n: (n * 37) % 64, True),
        (lambda n: 8191 * (n >= 100), True),
        (lambda n: 64, False),  # not the shape that is looked for
        (lambda n: 64 - n % 2, False),
        (lambda n: 8192 * (n > 100), False),
        (lambda n: -(n > 100), False),
        (lambda n: 70 * (n == 100), False),
    ],
)
@pytest.mark.parametrize("base", [BASE, 0, 2**63 - 100, 2**63 - 8192])
def test_timestamp_deltas_are_passed_where_the_last_ones_are_longer(deltas, whole, base):
    data = equal_records(200, deltas=deltas)
    end, result = passed(data, 200, base=base)
    if whole and base + max(map(deltas, range(200))) < 2**63:
        assert (end, result.index) == (len(data), 200)
    else:
        assert result.index < 200
    assert_same(data, count=200, base=base)


def test_negative_base_timestamps_are_left_to_others():
    assert passed(equal_records(100), 100, base=-1)[0] == 0


def test_whether_there_is_a_null_key_is_seen():
    assert passed(equal_records(100), 100)[1].has_null_key
    assert not passed(equal_records(100, key=b""), 100)[1].has_null_key


def test_a_size_that_does_not_fit_the_first_record_costs_one_look():
    data = equal_records(100)
    for other in (data[:-1], data + record_bytes(bytes(99), index=100)):
        assert passed(other, 100)[0] == 0
    assert passed(data, 101)[0] == 0
    assert passed(b"", 100)[0] == 0


@pytest.mark.parametrize("count", [19, 20, 21])
def test_what_stands_behind_the_data_is_no_record(count):
    """A record is cut short, and what the buffer held before completes it."""
    data = equal_records(20)
    for cut in range(1, 60):
        position, result = passed(data[:-cut], count, buffer=bytearray(data))
        assert position <= len(data) - cut
        assert result.index < 20


@pytest.mark.parametrize(
    "first",
    [
        record_bytes(headers=[("h", b"v")]),
        raw_record(b"\x01\0\0\x01\x01\0"),  # attributes
        raw_record(b"\0\0\x02\x01\x01\0"),  # offset delta 1
        raw_record(b"\0\0\0\x80\x80\x00\x01\0"),  # a key length of three bytes
        b"\x8c\x80\x00\0\0\0\x01\x01\0",  # a length of three bytes
        b"\x0b\0\0\0\x01\x01\0",  # a negative length
        b"\x0e\0\0\0\x01\x01\0",  # a length that is too large
    ],
)
def test_a_first_record_of_another_kind_is_no_shape(first):
    data = first + equal_records(40, value=None, first=1)
    result = WalkResult()
    assert not pass_equal_batch(data, 0, len(data), count=41, base_timestamp=BASE, result=result)
    assert seen(result) == seen(WalkResult())


def test_lengths_that_are_longer_than_they_need_be_are_passed():
    """Varints may have bytes that say nothing: in every record the same, so that sizes fit."""
    data = b"".join(
        b"\x90\x00" + bytes((0, 0, 2 * index)) + b"\x81\x00" + b"\x81\x00" + b"\0"
        for index in range(40)
    )
    assert passed(data, 40)[0] == len(data)


@pytest.mark.parametrize("later", [0, 40, 100])
def test_every_wrong_byte_of_a_batch_is_noticed(later):
    good = equal_records(
        130, value=bytes(45), key=b"k", deltas=lambda index: index // 40 + later * (index > 90)
    )
    source = random.Random(later)
    for _ in range(size(ci=500, full=50_000)):
        data = bytearray(good)
        for _ in range(source.choice((1, 1, 2))):
            data[source.randrange(len(data))] = source.choice(
                (0, 1, 2, 0x7F, 0x80, source.randrange(256))
            )
        for strict in (True, False):
            assert_same(memoryview(data), count=130, strict=strict)


def test_slices_of_a_walk_are_one_where_all_records_have_one_shape():
    data = equal_records(3000)
    walker = StreamWalker(record_count=3000, base_timestamp=BASE, strict=True)
    walker.begin(data)
    assert walker.advance(100)
    assert walker.finish().index == 3000


def test_slices_go_on_where_the_shape_ends():
    """Wrong in the middle of the last run: what came before it is passed, more than was asked."""
    data = bytearray(equal_records(3000, key=b"k"))
    offset_at = data.rindex(b"k", 0, -1) - 2
    data[offset_at] ^= 2
    walker = StreamWalker(record_count=3000, base_timestamp=BASE, strict=False)
    walker.begin(memoryview(data))
    steps = 1
    while not walker.advance(10):
        steps += 1
    assert steps > 1
    assert not walker.finish().contiguous
