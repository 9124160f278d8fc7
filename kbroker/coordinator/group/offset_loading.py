"""Commits on their short way from the log into the store, while a partition is loaded.

A broker that starts reads every commit that compaction has left. Of a million of them nearly all
are laid out alike: this puts those into the store without making messages of them, remembering
where the offsets of a group's topic are. Everything else is left to the general way.
"""

from collections.abc import Callable
from struct import Struct
from struct import error as StructError
from typing import Final

from kbroker.coordinator.group.offset_and_metadata import StoredOffset, stored_offset
from kbroker.coordinator.group.offset_commit_reader import (
    read_offset_commit_key_fast,
    read_offset_commit_value_fast,
)
from kbroker.coordinator.group.offset_store import Offsets, TopicOffsets

_REMEMBERED: Final = 10_000
"""Topics of groups whose place is remembered."""
_KEY_START: Final = b"\x00\x01"
_INT32 = Struct(">i").unpack_from
_INT64 = Struct(">q").pack

# A value of version 4 with a topic id and without metadata: version, offset, leader epoch, length
# of the metadata + 1, time, one tagged field (tag 0, 16 bytes), topic id.
_SIZE: Final = 42
_START: Final = b"\x00\x04"
_TAG: Final = b"\x01\x00\x10"


class OffsetLoading:
    """Puts encoded commits into ``offsets``; ``on_group`` is told of every group that has some."""

    __slots__ = ("_known", "_offsets", "_on_group")

    def __init__(self, offsets: Offsets, on_group: Callable[[str], None]) -> None:
        self._offsets = offsets
        self._on_group = on_group
        self._known: dict[bytes, TopicOffsets] = {}

    def replay(self, record_offset: int, key: bytes, value: bytes | None) -> bool:
        """EncodedReplay: False for what is no commit, or an unusual one."""
        if value is None:
            return self._leave()
        try:
            return self._put(record_offset, key, value) or self._leave()
        except (StructError, IndexError, ValueError):
            return self._leave()  # damaged: the general way says so

    def _put(self, record_offset: int, key: bytes, value: bytes) -> bool:
        stored: StoredOffset
        if (
            len(value) == _SIZE
            and value[14] == 1
            and value.startswith(_START)
            and value[23:26] == _TAG
        ):
            # The packed form: offset and leader epoch, time, topic id are as in the record.
            stored = b"".join((_INT64(record_offset), value[2:14], value[15:23], value[26:]))
        else:
            message = read_offset_commit_value_fast(value) if key[:2] == _KEY_START else None
            if message is None:
                return False
            stored = stored_offset(record_offset, message)
        partitions = self._known.get(key[:-4])
        if partitions is None:
            partitions = self._find(key)
            if partitions is None:
                return False
        partition = _INT32(key, len(key) - 4)[0]
        if partition not in partitions:
            self._offsets.count += 1
        partitions[partition] = stored
        return True

    def forget(self) -> None:
        """EncodedReplay."""
        self._known.clear()

    def _leave(self) -> bool:
        """The record may take groups or offsets away: what is remembered may not hold then."""
        self._known.clear()
        return False

    def _find(self, key: bytes) -> TopicOffsets | None:
        """The place of the offsets; None when it is no key of a commit."""
        message = read_offset_commit_key_fast(key) if key[:2] == _KEY_START else None
        if message is None:
            return None
        self._on_group(message.group)
        partitions = self._offsets.of_topic(message.group, message.topic)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[key[:-4]] = partitions
        return partitions
