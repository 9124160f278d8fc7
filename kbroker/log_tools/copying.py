"""Copies of log files: shared blocks where the file system can, else a copy inside the kernel."""

import errno
import os
from collections.abc import Callable, Iterator
from typing import Final

from kbroker.common.files import File, OsFile
from kbroker.log_tools.legacy_records import iter_legacy_records
from kbroker.log_tools.log_scan import Batch, Damage, LegacyMessage, scan_log
from kbroker.log_tools.read_only import CHUNK_SIZE, opened
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import LOG_APPEND_TIME_BIT, assemble_batch
from kbroker.record.compression import compress
from kbroker.record.encoding import encode_record
from kbroker.record.record import Record

_FICLONE: Final = 0x40049409  # Linux: share all blocks of another file (ioctl_ficlone(2))
_NOT_TO_BE_CLONED: Final = (
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
)
_CREATE_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
_REWRITTEN_BATCH_BYTES: Final = 512 * 1024
_CODEC_MASK: Final = 0x07

Progress = Callable[[int], None]
"""Takes the bytes that were written since the last call."""


def copy_file(source: str, target: str, progress: Progress) -> bool:
    """Make ``target`` as ``source`` is, synced, with its time of change; whether blocks are shared.

    OSError.
    """
    with opened(source) as file:
        descriptor = os.open(target, _CREATE_FLAGS, 0o644)
        copy = OsFile(target, descriptor)
        try:
            source_descriptor = file.fileno()
            assert source_descriptor is not None, "a file of the disk has one"
            is_shared = _clone(source_descriptor, descriptor)
            if is_shared:
                progress(file.size())
            else:
                _copy_bytes(file, source_descriptor, copy, descriptor, progress)
            copy.sync()
        finally:
            copy.close()
        changed = os.stat(source)
    os.utime(target, ns=(changed.st_atime_ns, changed.st_mtime_ns))
    return is_shared


def _clone(source: int, target: int) -> bool:
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NOT_TO_BE_CLONED:
            return False
        raise
    return True


def _copy_bytes(file: File, source: int, copy: OsFile, target: int, progress: Progress) -> None:
    size = file.size()
    position = 0
    in_kernel = getattr(os, "copy_file_range", None)
    while position < size:
        count = min(CHUNK_SIZE, size - position)
        if in_kernel is not None:
            try:
                done = in_kernel(source, target, count, position, position)
            except OSError as error:
                if error.errno not in _NOT_TO_BE_CLONED:
                    raise
                in_kernel = None
                continue
        else:
            data = file.read_at(count, position)
            copy.write_at(data, position)
            done = len(data)
        if not done:
            raise OSError(errno.EIO, "the file became shorter while it was copied", copy.path)
        position += done
        progress(done)


def rewrite_segment(source: str, target: str, progress: Progress) -> None:
    """The segment with its messages of format 0 and 1 as batches: offsets and times stay.

    Batches that are in it already stay as they are; so does what is behind damage, which is left
    out. OSError, ``KafkaError`` for compressed messages that cannot be unpacked.
    """
    with opened(source) as file:
        descriptor = os.open(target, _CREATE_FLAGS, 0o644)
        copy = OsFile(target, descriptor)
        position = 0
        try:
            for data in _rewritten(file, progress):
                copy.write_at(data, position)
                position += len(data)
            copy.sync()
        finally:
            copy.close()
        changed = os.stat(source)
    os.utime(target, ns=(changed.st_atime_ns, changed.st_mtime_ns))


def _rewritten(file: File, progress: Progress) -> Iterator[bytes | bytearray | memoryview]:
    group = _Group()
    for found in scan_log(file, 0, file.size()):
        if isinstance(found, Damage) or not found.is_valid:
            break
        if isinstance(found, Batch):
            if found.data is None:
                raise OSError(errno.EFBIG, f"a batch of {found.size} bytes", file.path)
            yield from group.take()
            yield found.data
        else:
            try:
                for record, _, _ in iter_legacy_records(found):
                    if not group.accepts(found, record):
                        yield from group.take()
                    group.add(found, record)
            except KafkaError as error:
                raise OSError(
                    errno.EIO, f"unreadable message at byte {found.position}: {error}", file.path
                ) from error
        progress(found.size)
    yield from group.take()


class _Group:
    """Records that will make one batch."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._attributes = 0
        self._bytes = 0

    def accepts(self, message: LegacyMessage, record: Record) -> bool:
        """Whether the record fits to those that are here."""
        if not self._records:
            return True
        return (
            _attributes(message) == self._attributes
            and self._bytes < _REWRITTEN_BATCH_BYTES
            and (not self._attributes & LOG_APPEND_TIME_BIT or self._is_of_time(record))
        )

    def _is_of_time(self, record: Record) -> bool:
        """Under LogAppendTime all records of a batch have one time."""
        return record.timestamp == self._records[-1].timestamp

    def add(self, message: LegacyMessage, record: Record) -> None:
        """The next record."""
        self._attributes = _attributes(message)
        self._records.append(record)
        self._bytes += len(record.key or b"") + len(record.value or b"") + 16

    def take(self) -> Iterator[bytearray]:
        """The batch, unless it would be empty."""
        records, self._records = self._records, []
        self._bytes = 0
        if not records:
            return
        base_offset, base_timestamp = records[0].offset, records[0].timestamp
        body = b"".join(
            encode_record(
                timestamp_delta=record.timestamp - base_timestamp,
                offset_delta=record.offset - base_offset,
                key=record.key,
                value=record.value,
            )
            for record in records
        )
        codec = self._attributes & _CODEC_MASK
        yield assemble_batch(
            compress(codec, body) if codec else body,
            record_count=len(records),
            base_timestamp=base_timestamp,
            max_timestamp=max(record.timestamp for record in records),
            attributes=self._attributes,
            last_offset_delta=records[-1].offset - base_offset,
            base_offset=base_offset,
            leader_epoch=0,
        )


def _attributes(message: LegacyMessage) -> int:
    """Codec and timestamp type are the same bits in all formats."""
    return message.attributes & (_CODEC_MASK | LOG_APPEND_TIME_BIT)
