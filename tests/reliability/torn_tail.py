"""Damage as a power cut leaves it: the file has grown, but the last batch's bytes are not there."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Record batch v2: base offset, length, leader epoch, magic, CRC, attributes, last offset delta.
HEADER = struct.Struct(">qiibIhi")
LENGTH_PREFIX = 12


def append_torn_batch(data_dir: Path, topic: str) -> Path | None:
    """Puts a batch of zeros under a valid header behind the last whole batch of one partition.

    Takes the first partition that holds a whole batch; returns its file, None when there is none.
    Nothing acknowledged is touched, so a broker that checks CRCs is not allowed to notice.
    """
    for segment in sorted(data_dir.glob(f"**/{topic}-*/*.log"), reverse=True):
        content = segment.read_bytes()
        found = last_whole_batch(content)
        if found is None:
            continue
        position, size, next_offset = found
        header = bytearray(content[position : position + size])
        struct.pack_into(">q", header, 0, next_offset)
        body_start = LENGTH_PREFIX + 4 + 1 + 4  # all behind the CRC is lost
        torn = bytes(header[:body_start]) + bytes(size - body_start)
        with segment.open("r+b") as file:
            file.seek(position + size)
            file.truncate()
            file.write(torn)
        return segment
    return None


def last_whole_batch(content: bytes) -> tuple[int, int, int] | None:
    """(position, size, offset after its last record) of the last batch that is there in full."""
    position = 0
    last = None
    while position + HEADER.size <= len(content):
        fields = HEADER.unpack_from(content, position)
        base_offset, length, _, magic, _, _, last_offset_delta = fields
        size = LENGTH_PREFIX + length
        if magic != 2 or length < HEADER.size - LENGTH_PREFIX or position + size > len(content):
            break
        last = (position, size, base_offset + last_offset_delta + 1)
        position += size
    return last
