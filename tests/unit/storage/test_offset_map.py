"""Keys and their newest offsets in bounded memory."""

import sys

import pytest

from kbroker.storage.offset_map import BYTES_PER_KEY, OffsetMap


def test_the_newest_offset_of_each_key() -> None:
    offsets = OffsetMap(10)
    assert offsets.get(b"a") == -1
    assert offsets.put(b"a", 5)
    assert offsets.put(b"", 6)
    assert offsets.put(b"a", 7)
    assert (offsets.get(b"a"), offsets.get(b""), len(offsets)) == (7, 6, 2)


def test_long_keys_are_told_apart() -> None:
    offsets = OffsetMap(1000)
    keys = [b"k" * size for size in range(10, 40)] + [
        b"k" * 100 + b"%d" % each for each in range(9)
    ]
    for offset, key in enumerate(keys):
        offsets.put(key, offset)
    assert [offsets.get(key) for key in keys] == list(range(len(keys)))


def test_a_full_map_takes_known_keys_only() -> None:
    offsets = OffsetMap(2)
    assert offsets.put(b"a", 1)
    assert offsets.put(b"b" * 50, 2)
    assert not offsets.put(b"c", 3)
    assert offsets.put(b"a", 4)
    assert (offsets.get(b"a"), offsets.get(b"c")) == (4, -1)
    with pytest.raises(ValueError, match="no progress"):
        OffsetMap(0)


def test_the_memory_of_a_key_is_what_is_said() -> None:
    offsets = OffsetMap(100_000)
    count = 60_000
    for number in range(count):
        offsets.put(b"key number %d" % number, 10**12 + number)
    held = sys.getsizeof(offsets._offsets) + sum(
        sys.getsizeof(key) + sys.getsizeof(offset) for key, offset in offsets._offsets.items()
    )
    assert held / count <= BYTES_PER_KEY
