"""After a crash: a look at the end of a log that may change little, instead of loading it.

Ten thousand logs with a few records each are ready in a second then. What is looked at is what
recovery would look at, by the same rules; whatever is not plain (a batch that is not sound, a
transaction, a file that is not of every log) is left to recovery, which knows what to do.
"""

import os
from typing import Final

from kbroker.config.topic_config import LogConfig
from kbroker.record.batch import (
    ATTRIBUTES_POSITION,
    CONTROL_BIT,
    HEADER,
    HEADER_SIZE,
    LOG_OVERHEAD,
    MAGIC,
    TRANSACTIONAL_BIT,
)
from kbroker.record.crc import crc32c
from kbroker.storage.checkpoints import (
    LEADER_EPOCH_CHECKPOINT,
    PARTITION_METADATA,
    parse_partition_metadata,
)
from kbroker.storage.dormant_log import MAX_LATE_RECOVERY_BYTES, DormantLog
from kbroker.storage.indexes import MAX_RELATIVE_OFFSET
from kbroker.storage.log_environment import LogEnvironment
from kbroker.storage.log_state import LogState

MAX_BYTES: Final = 64 * 1024
"""Longer ends are recovered: it is the files that cost then, not the looking."""

_SMALLEST_LENGTH: Final = HEADER_SIZE - LOG_OVERHEAD
_NAME_SIZE: Final = 20


def _plain_names(base: str) -> frozenset[str]:
    """The files of a log whose only segment begins at ``base``, nothing unusual beside it."""
    own = (base + ".log", base + ".index", base + ".timeindex")
    return frozenset((*own, LEADER_EPOCH_CHECKPOINT, PARTITION_METADATA))


_FIRST_BASE: Final = "0" * _NAME_SIZE
_FIRST_NAMES: Final = _plain_names(_FIRST_BASE)


class _End:
    """What the batches of a part of a segment say."""

    __slots__ = ("latest_epoch", "max_timestamp", "next_offset")

    def __init__(self, next_offset: int, latest_epoch: int) -> None:
        self.next_offset = next_offset
        self.latest_epoch = latest_epoch
        self.max_timestamp = -1

    def follow(self, data: bytes, segment_base: int) -> bool:
        """Go over the batches, which must be whole, sound and plain to the last byte."""
        view = memoryview(data)
        position, end = 0, len(data)
        while position < end:
            if position + HEADER_SIZE > end:
                return False
            header = HEADER.unpack_from(view, position)
            base_offset, length, epoch, magic, crc, attributes, delta, _, timestamp = header[:9]
            after = position + length + LOG_OVERHEAD
            last_offset = base_offset + delta
            if (
                length < _SMALLEST_LENGTH
                or after > end
                or magic != MAGIC
                or base_offset < self.next_offset
                or delta < 0
                or last_offset - segment_base > MAX_RELATIVE_OFFSET
                or attributes & (TRANSACTIONAL_BIT | CONTROL_BIT)
                or crc32c(view[position + ATTRIBUTES_POSITION : after]) != crc
            ):
                return False
            self.latest_epoch = max(self.latest_epoch, epoch)
            self.max_timestamp = max(self.max_timestamp, timestamp)
            self.next_offset = last_offset + 1
            position = after
        return True


def find_grown(
    env: LogEnvironment, directory: str, row: str, config: LogConfig
) -> DormantLog | None:
    """The log whose only change since ``row`` is that a little was appended. OSError.

    Only while the machine has not started anew: what ``row`` tells of is not looked at again.
    """
    try:
        state = LogState.parse(row)
        if env.files.stamp(directory).modified_ns != state.directory_ns:
            return None
        path = os.path.join(directory, f"{state.active_base_offset:020d}.log")
        stamp = env.files.stamp(path)
    except (ValueError, FileNotFoundError):
        return None
    grown = stamp.size - state.active_size
    unsynced = state.unsynced_bytes + grown
    if not 0 < grown <= MAX_BYTES or unsynced > MAX_LATE_RECOVERY_BYTES:
        return None
    end = _End(state.log_end_offset, state.latest_epoch)
    if not end.follow(_read(env, path, state.active_size, grown), state.active_base_offset):
        return None
    changed = state._replace(
        log_end_offset=end.next_offset,
        latest_epoch=end.latest_epoch,
        size=state.size + grown,
        unsynced_bytes=unsynced,
        is_closed=False,
        active_ns=stamp.modified_ns,
        active_size=stamp.size,
    )
    if state.segment_count == 1:
        changed = changed._replace(
            oldest_size=stamp.size, oldest_timestamp=max(state.oldest_timestamp, end.max_timestamp)
        )
    return DormantLog.restore(env, directory, changed, changed.row(), config)


def find_small(
    env: LogEnvironment,
    directory: str,
    key: tuple[str, int],
    *,
    recovery_point: int,
    log_start_offset: int,
    high_watermark: int,
    config: LogConfig,
    topic_ids: dict[bytes, bytes],
) -> DormantLog | None:
    """The log of one short segment and nothing unusual beside it. OSError.

    ``topic_ids`` remembers what ``partition.metadata`` with such a content says: partitions of a
    topic share it.
    """
    files = env.files
    names = files.names(directory)
    base = min(names, default="")[:_NAME_SIZE]  # digits come before letters
    expected = _FIRST_NAMES if base == _FIRST_BASE else _plain_names(base)
    if not names <= expected or f"{base}.log" not in names or PARTITION_METADATA not in names:
        return None
    if not (base.isdecimal() and base.isascii() and len(base) == _NAME_SIZE):
        return None
    prefix = os.path.join(directory, "")
    directory_ns = files.stamp(directory).modified_ns
    stamp, data = files.read_stamped(f"{prefix}{base}.log", MAX_BYTES)
    if not 0 < stamp.size <= MAX_BYTES or len(data) != stamp.size:
        return None
    metadata_stamp, metadata = files.read_stamped(prefix + PARTITION_METADATA, MAX_BYTES)
    if len(metadata) != metadata_stamp.size:
        return None
    topic_id = topic_ids.get(metadata)
    if topic_id is None:
        topic_id = parse_partition_metadata(metadata)
        if topic_id is None:
            return None
        topic_ids[metadata] = topic_id
    base_offset = int(base)
    end = _End(base_offset, -1)
    if not end.follow(data, base_offset):
        return None
    start = max(log_start_offset, base_offset)
    if end.next_offset < start or end.max_timestamp < 0:
        return None
    state = LogState(
        topic=key[0],
        partition=key[1],
        topic_id=topic_id,
        log_start_offset=start,
        log_end_offset=end.next_offset,
        recovery_point=min(recovery_point, end.next_offset),
        high_watermark=max(start, min(high_watermark, end.next_offset)),
        latest_epoch=end.latest_epoch,
        earliest_epoch=-1,
        earliest_epoch_start=-1,
        first_base_offset=base_offset,
        active_base_offset=base_offset,
        segment_count=1,
        size=stamp.size,
        oldest_size=stamp.size,
        oldest_timestamp=end.max_timestamp,
        unsynced_bytes=stamp.size,
        is_closed=False,
        directory_ns=directory_ns,
        active_ns=stamp.modified_ns,
        active_size=stamp.size,
    )
    return DormantLog.restore(env, directory, state, state.row(), config)


def _read(env: LogEnvironment, path: str, position: int, size: int) -> bytes:
    file = env.files.open(path)
    try:
        return file.read_at(size, position)
    finally:
        file.close()
