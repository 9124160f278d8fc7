import random

import pytest

from kbroker.protocol.errors import KafkaError
from kbroker.record.encoding import write_varint
from kbroker.record.equal_records import LEAST_RUN, pass_equal_records
from kbroker.record.stream_walk import WALK_IS_COMPILED, walk_on
from kbroker.record.walk import WalkResult, walk_records
from tests.sizes import size
from tests.unit.record.batches import raw_record, record_bytes

BASE = 1_700_000_000_000
RESULT = [name for name in dir(WalkResult) if not name.startswith("_")]
VALUE_SIZES = (0, 1, 50, 63, 64, 300, 9000)


def seen(result):
    return {name: getattr(result, name) for name in RESULT}


def at(index):
    """A result of which ``index`` records are there already, all at the base."""
    result = WalkResult()
    result.index = index
    if index:
        result.first_timestamp = result.max_timestamp = result.min_timestamp = BASE
    return result


def equal_records(count, *, value=bytes(20), key=None, first=0, deltas=lambda index: 0):
    return b"".join(
        record_bytes(value, key=key, index=index, timestamp_delta=deltas(index))
        for index in range(first, first + count)
    )


def outcome(walk, data, *, count, base=BASE, strict=True, first=0):
    """What a walk ends in: the error, or the position and what it has seen."""
    result = at(first)
    try:
        position = walk(
            data,
            0,
            len(data),
            limit=first + count,
            base_timestamp=base,
            result=result,
            strict=strict,
        )
    except KafkaError as error:
        return error.error_code, str(error)
    return position, seen(result)


def assert_same(data, **how):
    if WALK_IS_COMPILED:
        data = bytes(data)  # all that it takes then, and all that the validator hands it
    expected = outcome(walk_records, data, **how)
    assert outcome(walk_on, data, **how) == expected
    return expected


@pytest.mark.parametrize("value_size", VALUE_SIZES)
@pytest.mark.parametrize("key", [None, b"", b"k" * 70], ids=["null", "empty", "long"])
@pytest.mark.parametrize("first", [0, 50, 64, 8180, 8192, 16_370, (1 << 20) - 20])
def test_a_run_is_passed_as_a_walk_would_pass_it(value_size, key, first):
    data = equal_records(40, value=bytes(value_size), key=key, first=first, deltas=lambda n: n // 3)
    for buffer in (data, memoryview(bytearray(data))):
        result = at(first)
        position = 0
        for _ in range(6):
            position = pass_equal_records(
                buffer, position, len(data), limit=first + 40, base_timestamp=BASE, result=result
            )
        passed = result.index - first
        assert passed >= 40 - 2 * LEAST_RUN or first > 1 << 19
        expected = at(first)
        end = walk_records(
            data,
            0,
            len(data),
            limit=result.index,
            base_timestamp=BASE,
            result=expected,
            strict=True,
        )
        assert (position, seen(result)) == (end, seen(expected))
    assert_same(data, count=40, first=first)


@pytest.mark.parametrize(
    "deltas",
    [
        lambda index: 0,
        lambda index: 5000,
        lambda index: index,
        lambda index: 64 + index,
        lambda index: (index * 37) % 8000,
        lambda index: 100_000_000 - index,
        lambda index: 1 << 40,
        lambda index: -1,
        lambda index: -index,
        lambda index: 3 - index % 7,
        lambda index: index // 20,
        lambda index: 63 - index // 20,
        lambda index: (index * 37) % 64,
        lambda index: min(index, 60) if index != 150 else 62,
    ],
)
@pytest.mark.parametrize("base", [BASE, 0, -1, -5000, 2**63 - 4500])
def test_timestamps_are_seen_as_a_walk_sees_them(deltas, base):
    assert_same(equal_records(200, deltas=deltas), count=200, base=base)


def test_a_run_ends_where_the_data_or_the_count_does():
    data = equal_records(60)
    whole = len(data) // 60
    for cut in (1, whole - 1, whole, 5 * whole + 3):
        assert_same(data[:-cut], count=60)
        assert_same(data[:-cut], count=60, strict=False)
    assert assert_same(data, count=33)[0] == 33 * whole


@pytest.mark.parametrize("later", [0, 70, 20_000, 3_000_000])
def test_every_wrong_byte_of_a_run_is_noticed(later):
    """Any byte outside key and value, wrong in one record of many, and what a walk says to it."""
    good = equal_records(150, value=bytes(5), key=b"k", deltas=lambda index: later + index % 9)
    source = random.Random(later)
    for _ in range(size(ci=500, full=50_000)):
        data = bytearray(good)
        data[source.randrange(len(data))] = source.choice(
            (0, 1, 2, 0x7F, 0x80, source.randrange(256))
        )
        for strict in (True, False):
            assert_same(memoryview(data), count=150, strict=strict)


def test_runs_of_any_shape_and_what_lies_between_them():
    source = random.Random(2)
    for _ in range(size(ci=150, full=5000)):
        data, index = b"", 0
        for _ in range(source.randrange(1, 5)):
            count = source.choice((1, 7, 30, 200))
            key = source.choice((None, b"", b"key"))
            value = source.choice((None, *map(bytes, VALUE_SIZES[:-1])))
            start, spread = source.choice((0, 60, 9000)), source.choice((1, 10, 8000))
            deltas = [start + source.randrange(spread) for _ in range(index + count)]
            data += equal_records(
                count, value=value, key=key, first=index, deltas=deltas.__getitem__
            )
            index += count
            if source.random() < 0.5:
                data += source.choice(
                    (
                        record_bytes(index=index, headers=[("h", b"v")]),
                        record_bytes(index=index + 1),
                        raw_record(b"\x01\0" + write_varint(index) + b"\x01\x01\0"),
                    )
                )
                index += 1
        for strict in (True, False):
            assert_same(memoryview(bytearray(data)), count=index, strict=strict)


def test_random_sizes_are_left_to_the_walk():
    source = random.Random(3)
    values = [bytes(source.randrange(100)) for _ in range(500)]
    data = b"".join(record_bytes(value, index=index) for index, value in enumerate(values))
    assert assert_same(data, count=500)[0] == len(data)
