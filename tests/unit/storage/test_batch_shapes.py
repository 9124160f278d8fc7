"""What is found at a look is what the walk finds, byte by byte."""

import random

import pytest

from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import HEADER, HEADER_SIZE, build_batch
from kbroker.record.record import Record
from kbroker.record.walk import WalkResult, check_end, walk_records
from kbroker.storage import batch_shapes
from kbroker.storage.batch_shapes import MOST_RECORDS, BatchShapes, SeenRecords
from tests.sizes import size

BASE = 1_700_000_000_000
COUNTS = (2, 15, 63, 64, 65, 150)


def batch_of(
    count: int,
    *,
    value_size: int | None = 100,
    key_size: int | None = None,
    spread_ms: int = 0,
    seed: int = 1,
) -> memoryview:
    """Records of one size, their timestamps up to ``spread_ms`` later than the first one's."""
    draw = random.Random(seed)
    records = [
        Record(
            key=None if key_size is None else draw.randbytes(key_size),
            value=None if value_size is None else draw.randbytes(value_size),
            timestamp=BASE + (draw.randint(0, spread_ms) if index else 0),
        )
        for index in range(count)
    ]
    return memoryview(bytearray(build_batch(records)))


def walked(batch: memoryview, count: int) -> SeenRecords | None:
    """What the walk says of the same batch, None when it refuses it."""
    result = WalkResult()
    base = HEADER.unpack_from(batch)[7]
    data = bytes(batch)
    try:
        end = walk_records(
            data, HEADER_SIZE, len(data), limit=count, base_timestamp=base, result=result,
            strict=True,
        )  # fmt: skip
        check_end(result, end, len(data), count)
    except KafkaError:
        return None
    assert result.contiguous and result.plain, "not for a look"
    return (
        result.min_timestamp - base,
        result.max_timestamp - base,
        result.index_of_max_timestamp,
        result.has_null_key,
    )


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("key_size", [None, 0, 1, 8, 70])
@pytest.mark.parametrize("value_size", [None, 0, 1, 57, 58, 100, 1024, 8187])
def test_sees_what_the_walk_sees(count: int, key_size: int | None, value_size: int | None) -> None:
    for spread_ms in (0, 63):
        batch = batch_of(count, value_size=value_size, key_size=key_size, spread_ms=spread_ms)
        seen = BatchShapes().look(batch, count)
        assert seen is not None
        assert seen == walked(batch, count)


@pytest.mark.parametrize("spread_ms", [0, 63])
def test_sees_as_many_records_as_it_is_asked_about(spread_ms: int) -> None:
    batch = batch_of(MOST_RECORDS, key_size=4, spread_ms=spread_ms)
    assert BatchShapes().look(batch, MOST_RECORDS) == walked(batch, MOST_RECORDS) is not None


def test_another_batch_of_the_shape_is_seen_with_its_own_timestamps() -> None:
    shapes = BatchShapes()
    for seed in range(8):
        batch = batch_of(15, spread_ms=40, seed=seed)
        assert shapes.look(batch, 15) == walked(batch, 15)
    assert len(shapes._shapes) == 1


@pytest.mark.parametrize("count", [2, 15, 70])
@pytest.mark.parametrize("key_size", [None, 3])
def test_no_changed_byte_is_seen_otherwise_than_by_the_walk(
    count: int, key_size: int | None
) -> None:
    sound = batch_of(count, value_size=20, key_size=key_size, spread_ms=5)
    shapes = BatchShapes()
    assert shapes.look(sound, count) is not None
    places = range(HEADER_SIZE, len(sound))
    draw = random.Random(count)
    for place in places if len(sound) < 1000 else draw.sample(places, size(ci=300, full=1500)):
        for changed in {0, 1, 0x7F, 0x80, 0xFF, sound[place] ^ 2, draw.randrange(256)}:
            batch = memoryview(bytearray(sound))
            batch[place] = changed
            for known in (shapes, BatchShapes()):
                seen = known.look(batch, count)
                assert seen is None or seen == walked(batch, count), (place, changed)
        assert shapes.look(sound, count) is not None, "learned anew at the latest now"


@pytest.mark.parametrize("delta_ms", [-1, 64, 100_000])
def test_timestamps_that_take_another_look_are_left_to_the_walk(delta_ms: int) -> None:
    records = [Record(value=bytes(9), timestamp=BASE + delta_ms * (i == 3)) for i in range(9)]
    batch = memoryview(bytearray(build_batch(records)))
    assert BatchShapes().look(batch, 9) is None


def test_records_with_headers_or_of_several_sizes_are_left_to_the_walk() -> None:
    unlike = [Record(value=bytes(10 + i % 3), timestamp=BASE) for i in range(9)]
    with_headers = [Record(value=bytes(9), headers=[("a", b"1")], timestamp=BASE)] * 9
    for records in (unlike, with_headers):
        shapes = BatchShapes()
        assert shapes.look(memoryview(bytearray(build_batch(records))), 9) is None
        assert not shapes._shapes


def test_a_count_that_the_batch_does_not_hold_is_left_to_the_walk() -> None:
    batch = batch_of(15)
    for count in (2, 14, 16, 30, MOST_RECORDS):
        assert BatchShapes().look(batch, count) is None


@pytest.mark.parametrize("kept", range(0, 120, 7))
def test_a_cut_batch_is_left_to_the_walk(kept: int) -> None:
    assert BatchShapes().look(batch_of(2)[: HEADER_SIZE + kept], 2) is None


def test_a_shape_that_does_not_come_back_makes_room() -> None:
    shapes = BatchShapes()
    first, second = batch_of(4, key_size=3, value_size=30), batch_of(4, key_size=5, value_size=28)
    assert len(first) == len(second)
    assert shapes.look(first, 4) is not None
    looks = [shapes.look(second, 4) is not None for _ in range(20)]
    assert looks == [False] * 16 + [True] * 4


def test_shapes_are_bounded_and_the_oldest_makes_room() -> None:
    shapes = BatchShapes()
    first = batch_of(3, value_size=0)
    for value_size in range(64):
        assert shapes.look(batch_of(3, value_size=value_size), 3) is not None
    for _ in range(20):
        assert shapes.look(first, 3) is not None, "what is found again pays for others"
    assert shapes.look(batch_of(3, value_size=64), 3) is not None
    assert len(shapes._shapes) == 64
    assert (len(first), 3) not in shapes._shapes


def test_sizes_that_never_come_again_are_seldom_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = []
    real = batch_shapes._shape_of

    def counting(batch: memoryview, record_count: int) -> object:
        learned.append(record_count)
        return real(batch, record_count)

    monkeypatch.setattr(batch_shapes, "_shape_of", counting)
    shapes = BatchShapes()
    for value_size in range(400):
        shapes.look(batch_of(3, value_size=value_size), 3)
    assert 64 <= len(learned) <= 64 + 400 // 64 + 1
    looks = [shapes.look(batch_of(5), 5) is not None for _ in range(130)]
    assert looks[-1], "one that comes again is learned after all"
