"""One committed offset as the coordinator keeps it.

A broker may keep millions of them, nearly all without metadata: those are held packed, as bytes,
which are a third of the size of the object and nothing to the garbage collector. A packed offset:
record offset (8 bytes), committed offset (8), leader epoch (4), commit time in ms (8), topic id
(16), all big-endian.
"""

from struct import Struct

from kbroker.protocol.internal_records.offset_commit_value import OffsetCommitValue


class OffsetAndMetadata:
    """A committed offset. Times in milliseconds; -1 stands for none."""

    __slots__ = (
        "commit_timestamp_ms",
        "committed_offset",
        "expire_timestamp_ms",
        "leader_epoch",
        "metadata",
        "record_offset",
        "topic_id",
    )

    def __init__(
        self,
        *,
        record_offset: int,
        committed_offset: int,
        leader_epoch: int,
        metadata: str,
        commit_timestamp_ms: int,
        expire_timestamp_ms: int,
        topic_id: bytes,
    ) -> None:
        self.record_offset = record_offset
        """Where its record is in the log: of two, the later one counts."""
        self.committed_offset = committed_offset
        self.leader_epoch = leader_epoch
        self.metadata = metadata
        self.commit_timestamp_ms = commit_timestamp_ms
        self.expire_timestamp_ms = expire_timestamp_ms
        self.topic_id = topic_id
        """The topic's id when it was committed, zero when it is not known."""

    @classmethod
    def from_record(cls, record_offset: int, value: OffsetCommitValue) -> "OffsetAndMetadata":
        """What a record says."""
        return cls(
            record_offset=record_offset,
            committed_offset=value.offset,
            leader_epoch=value.leader_epoch if value.leader_epoch >= 0 else -1,
            metadata=value.metadata,
            commit_timestamp_ms=value.commit_timestamp,
            expire_timestamp_ms=value.expire_timestamp if value.expire_timestamp >= 0 else -1,
            topic_id=value.topic_id,
        )

    def __repr__(self) -> str:
        return (
            f"OffsetAndMetadata({self.committed_offset}, epoch {self.leader_epoch}, "
            f"{self.metadata!r}, at {self.record_offset})"
        )


StoredOffset = OffsetAndMetadata | bytes
"""As it is held; ``unpacked`` makes one that can be read."""

_PACKED = Struct(">qqiq16s")
_INT64 = Struct(">q")


def stored_offset(record_offset: int, value: OffsetCommitValue) -> StoredOffset:
    """What a record says, packed where it can be."""
    if value.metadata or value.expire_timestamp >= 0:
        return OffsetAndMetadata.from_record(record_offset, value)
    return packed_offset(
        record_offset, value.offset, value.leader_epoch, value.commit_timestamp, value.topic_id
    )


def packed_offset(
    record_offset: int,
    committed_offset: int,
    leader_epoch: int,
    commit_timestamp_ms: int,
    topic_id: bytes,
) -> bytes:
    """An offset without metadata and without a time of its own to expire."""
    epoch = leader_epoch if leader_epoch >= 0 else -1
    return _PACKED.pack(record_offset, committed_offset, epoch, commit_timestamp_ms, topic_id)


def unpacked(offset: StoredOffset) -> OffsetAndMetadata:
    """The offset to be read."""
    if isinstance(offset, OffsetAndMetadata):
        return offset
    record_offset, committed_offset, leader_epoch, commit_timestamp_ms, topic_id = _PACKED.unpack(
        offset
    )
    return OffsetAndMetadata(
        record_offset=record_offset,
        committed_offset=committed_offset,
        leader_epoch=leader_epoch if leader_epoch >= 0 else -1,
        metadata="",
        commit_timestamp_ms=commit_timestamp_ms,
        expire_timestamp_ms=-1,
        topic_id=topic_id,
    )


def record_offset_of(offset: StoredOffset) -> int:
    """Where its record is in the log."""
    if isinstance(offset, OffsetAndMetadata):
        return offset.record_offset
    found: int = _INT64.unpack_from(offset)[0]
    return found
