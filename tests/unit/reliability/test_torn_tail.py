"""The damage done to a log's tail, on files made by hand."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tests.reliability.torn_tail import HEADER, append_torn_batch, last_whole_batch

if TYPE_CHECKING:
    from pathlib import Path


def _batch(base_offset: int, records: int, *, body: bytes = b"payload " * 10) -> bytes:
    """The fields of a v2 batch header that matter here, and some bytes behind them."""
    behind_length = struct.pack(">ibIhi", 0, 2, 0xDEADBEEF, 0, records - 1) + body
    return struct.pack(">qi", base_offset, len(behind_length)) + behind_length


def test_the_last_whole_batch_is_found_in_front_of_half_a_batch() -> None:
    first, second, third = _batch(0, 3), _batch(3, 2), _batch(5, 1)

    assert last_whole_batch(b"") is None
    assert last_whole_batch(first[:-1]) is None
    assert last_whole_batch(first + second) == (len(first), len(second), 5)
    assert last_whole_batch(first + second + third[:-1]) == (len(first), len(second), 5)
    assert last_whole_batch(first + second + bytes(100)) == (len(first), len(second), 5)


def test_a_batch_of_zeros_is_put_behind_the_last_whole_one(tmp_path: Path) -> None:
    folder = tmp_path / "topic-0"
    folder.mkdir()
    segment = folder / "00000000000000000000.log"
    whole = _batch(0, 3) + _batch(3, 2)
    segment.write_bytes(whole + _batch(5, 1)[:20])

    assert append_torn_batch(tmp_path, "topic") == segment

    content = segment.read_bytes()
    assert content.startswith(whole)
    torn = content[len(whole) :]
    assert len(torn) == len(_batch(3, 2))
    assert HEADER.unpack_from(torn)[:5] == (5, len(torn) - 12, 0, 2, 0xDEADBEEF)
    assert not any(torn[21:])


def test_a_topic_without_data_is_left_alone(tmp_path: Path) -> None:
    assert append_torn_batch(tmp_path, "topic") is None
