"""Commits on their short way from the log into the store, while a partition is loaded.

A broker that starts reads every commit that compaction has left. Of a million of them nearly all
are laid out alike: this puts those into the store without making messages of them, remembering
where the offsets of a group's topic are. Everything else is left to the general way.
"""

from collections.abc import Callable, Iterator
from struct import Struct
from struct import error as StructError
from typing import Final

from kbroker.coordinator.group.offset_and_metadata import StoredOffset, stored_offset
from kbroker.coordinator.group.offset_commit_reader import (
    read_offset_commit_key_fast,
    read_offset_commit_value_fast,
)
from kbroker.coordinator.group.offset_store import Offsets, TopicOffsets
from kbroker.coordinator.shard import EncodedRecord

_REMEMBERED: Final = 10_000
"""Topics of groups whose place is remembered."""
_KEY_START: Final = b"\x00\x01"
_INT32 = Struct(">i").unpack_from
_INT64 = Struct(">q").pack

# A value of version 4 with a topic id and without metadata: version, offset and leader epoch,
# length of the metadata + 1, time, one tagged field (tag 0, 16 bytes), topic id.
_USUAL = Struct(">h12sB8s3s16s").unpack
_SIZE: Final = 42
_VERSION: Final = 4
_TAG: Final = b"\x01\x00\x10"


class OffsetLoading:
    """Puts encoded commits into ``offsets``; ``on_group`` is told of every group that has some."""

    __slots__ = ("_known", "_offsets", "_on_group")

    def __init__(self, offsets: Offsets, on_group: Callable[[str], None]) -> None:
        self._offsets = offsets
        self._on_group = on_group
        self._known: dict[bytes, TopicOffsets] = {}

    def replay(self, records: Iterator[EncodedRecord]) -> EncodedRecord | None:
        """EncodedReplay: stops at what is no commit, or an unusual one."""
        known = self._known
        record: EncodedRecord | None = None
        try:
            for record in records:
                key, (record_offset, value) = record
                stored = None if value is None else _stored(record_offset, key, value)
                if stored is None:
                    break
                partitions = known.get(key[:-4])
                if partitions is None:
                    partitions = self._find(key)
                    if partitions is None:
                        break
                (partition,) = _INT32(key, len(key) - 4)
                if partition not in partitions:
                    self._offsets.count += 1
                partitions[partition] = stored
            else:
                return None
        except (StructError, IndexError, ValueError):
            pass  # damaged: the general way says so
        known.clear()  # the record may take groups or offsets away: nothing holds any more
        return record

    def forget(self) -> None:
        """EncodedReplay."""
        self._known.clear()

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


def _stored(record_offset: int, key: bytes, value: bytes) -> StoredOffset | None:
    """A commit as it is held; None when the key is of another record or the value unusual."""
    if len(value) == _SIZE:
        version, offset_and_epoch, metadata_size, time, tag, topic_id = _USUAL(value)
        if version == _VERSION and metadata_size == 1 and tag == _TAG:
            # The packed form holds the same bytes.
            return b"".join((_INT64(record_offset), offset_and_epoch, time, topic_id))
    message = read_offset_commit_value_fast(value) if key[:2] == _KEY_START else None
    return None if message is None else stored_offset(record_offset, message)
