"""A partition's directory on disk, written by the storage engine, for tools to look at."""

import os
import struct
import zlib
from pathlib import Path

from kbroker.common.files import OsFileSystem
from kbroker.log_tools.dump import dump_file
from kbroker.log_tools.dump_output import DumpOutput
from kbroker.log_tools.record_decoders import Decoder
from kbroker.record.batch import build_batch
from kbroker.record.compression import compress
from kbroker.record.record import Record
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.log_fixture import (
    append,
    batch,
    config,
    environment,
    marker,
)

TOPIC_ID = bytes(range(16))


def write_partition(
    data_dir: Path, topic: str = "orders", partition: int = 0, *, topic_id: bytes = TOPIC_ID
) -> Path:
    """Three segments of a closed log: idempotent batches, a committed and an aborted one."""
    path = data_dir / f"{topic}-{partition}"
    path.parent.mkdir(exist_ok=True)
    log = UnifiedLog(
        environment(OsFileSystem()),
        str(path),
        topic,
        partition,
        topic_id=topic_id,
        config=config(segment_bytes=2000, index_interval_bytes=200),
    )
    for number in range(30):
        keys = [b"k%d" % number] * 3
        data = batch(
            *(b"v%d" % number * 20,) * 3,
            keys=keys,
            timestamps=[1000 + number] * 3,
            producer_id=7,
            base_sequence=3 * number,
            compression=number % 3,
        )
        append(log, data, leader_epoch=number // 20)
    for producer_id, commit in ((8, True), (9, False)):
        append(log, batch(b"t", producer_id=producer_id, transactional=True), leader_epoch=2)
        end = marker(commit=commit, producer_id=producer_id)
        append(log, end, leader_epoch=2, origin=AppendOrigin.COORDINATOR)
    log.take_producer_snapshot()
    log.close()
    return path


def active_segment(directory: Path, suffix: str = ".log") -> Path:
    """The last segment's file."""
    return max(directory.glob(f"*{suffix}"))


def legacy_message(
    magic: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    *,
    codec: int = 0,
    time: int = 5,
) -> bytes:
    """A message of format 0 or 1."""
    body = struct.pack(">bb", magic, codec) + (struct.pack(">q", time) if magic else b"")
    for field in (key, value):
        body += struct.pack(">i", -1) if field is None else struct.pack(">i", len(field)) + field
    body = struct.pack(">I", zlib.crc32(body)) + body
    return struct.pack(">qi", offset, len(body)) + body


def legacy_wrapper(magic: int, last_offset: int, values: list[bytes], *, codec: int = 1) -> bytes:
    """A compressed message that holds one for each value."""
    first = 0 if magic else last_offset - len(values) + 1
    inner = b"".join(
        legacy_message(magic, first + number, None, value, time=10 + number)
        for number, value in enumerate(values)
    )
    packed = compress(codec, inner)
    return legacy_message(magic, last_offset, None, packed, codec=codec, time=10 + len(values) - 1)


class Dumped:
    """What ``dump_file`` made of a file: lines and complaints."""

    def __init__(
        self, path: Path, *, deep: bool = False, decoder: Decoder = Decoder.AUTO, json: bool = False
    ) -> None:
        self.lines: list[str] = []
        self.complaints: list[str] = []
        output = DumpOutput(self.lines.append, self.complaints.append, as_json=json)
        dump_file(os.fspath(path), output, is_deep=deep, decoder=decoder)
        self.problems = output.problems


def one_batch(path: Path, *records: Record, **settings: object) -> Path:
    """A log file with one batch of these records."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(build_batch(records, **settings))  # type: ignore[arg-type]
    return path
