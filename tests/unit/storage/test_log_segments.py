"""Segments by offset; restates LogSegmentsTest."""

import pytest

from kbroker.storage.log_segment import LogSegment
from kbroker.storage.log_segments import LogSegments
from tests.unit.storage.log_fixture import environment


def make(*base_offsets: int) -> tuple[LogSegments, dict[int, LogSegment]]:
    env = environment()
    segments = LogSegments()
    by_offset = {}
    for base_offset in base_offsets:
        by_offset[base_offset] = segment = LogSegment(env, "/d", base_offset, size=base_offset)
        segments.add(segment)
    return segments, by_offset


def test_empty() -> None:
    segments, _ = make()
    assert segments.active is segments.first is segments.floor(5) is segments.higher(5) is None
    assert segments.starting_from(0) == segments.above(0) == []
    assert (segments.size, len(segments), list(segments)) == (0, 0, [])


def test_lookups() -> None:
    segments, by_offset = make(40, 0, 20)
    assert segments.base_offsets == [0, 20, 40]
    assert segments.first is by_offset[0]
    assert segments.active is by_offset[40]
    assert segments.size == 60
    assert segments.floor(-1) is None
    assert [segments.floor(each) for each in (0, 19, 20, 99)] == [
        by_offset[each] for each in (0, 0, 20, 40)
    ]
    assert segments.higher(0) is by_offset[20]
    assert segments.higher(19) is by_offset[20]
    assert segments.higher(40) is None
    assert segments.starting_from(25) == [by_offset[20], by_offset[40]]
    assert segments.starting_from(-5) == list(segments)
    assert segments.above(20) == [by_offset[40]]
    assert segments.above(19) == [by_offset[20], by_offset[40]]


def test_removal_and_double_adding() -> None:
    segments, by_offset = make(0, 20, 40)
    segments.remove(by_offset[20])
    assert list(segments) == [by_offset[0], by_offset[40]]
    with pytest.raises(AssertionError, match="is there"):
        segments.add(LogSegment(environment(), "/d", 40, size=0))
    with pytest.raises((AssertionError, IndexError)):
        segments.remove(by_offset[20])
