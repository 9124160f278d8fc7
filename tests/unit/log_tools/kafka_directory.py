"""Log directories as an Apache Kafka leaves them: partitions, and the cluster's metadata."""

import struct
from pathlib import Path
from typing import Any

from kbroker.protocol.internal_records.config_record import ConfigRecord
from kbroker.protocol.internal_records.partition_record import PartitionRecord
from kbroker.protocol.internal_records.producer_ids_record import ProducerIdsRecord
from kbroker.protocol.internal_records.registry import METADATA_RECORDS
from kbroker.protocol.internal_records.topic_record import TopicRecord
from kbroker.protocol.wire import uvarint
from kbroker.record.batch import build_batch
from kbroker.record.record import Record
from kbroker.storage.checkpoints import encode_clean_shutdown, encode_offset_checkpoint
from tests.unit.log_tools.partition_files import TOPIC_ID, write_partition

CLUSTER_ID = "kkkkkkkkkkkkkkkkkkkkkA"
METADATA = "__cluster_metadata-0"
END = 94
"""Of the log that ``write_partition`` writes."""


def encode_metadata(record: Any) -> bytes:
    """The value of a record of the metadata log, in the newest version."""
    (kind,) = [
        number for number, info in METADATA_RECORDS.items() if info.message_class() is type(record)
    ]
    version = METADATA_RECORDS[kind].max_version
    parts: list[Any] = [uvarint(1), uvarint(kind), uvarint(version)]
    METADATA_RECORDS[kind].writer()(parts, record, version)
    return b"".join(parts)


def metadata_batch(*records: Any, base_offset: int, epoch: int = 1) -> bytearray:
    return build_batch(
        [Record(value=encode_metadata(record), timestamp=1) for record in records],
        base_offset=base_offset,
        leader_epoch=epoch,
    )


def control_batch(control_type: int, base_offset: int) -> bytearray:
    key = struct.pack(">hh", 0, control_type)
    return build_batch(
        [Record(key=key, value=b"\0\0\0", timestamp=1)], control=True, base_offset=base_offset
    )


def topic_records(
    name: str = "orders", topic_id: bytes = TOPIC_ID, partitions: int = 2, *, epoch: int = 5
) -> list[Any]:
    partition_records = [
        PartitionRecord(index, topic_id, [1, 2, 3], [1], leader=1, leader_epoch=epoch)
        for index in range(partitions)
    ]
    return [TopicRecord(name, topic_id), *partition_records]


def write_metadata_log(data_dir: Path, *records: Any, base_offset: int = 0) -> Path:
    """``__cluster_metadata-0`` with a log and no snapshot."""
    directory = data_dir / METADATA
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{base_offset:020d}.log"
    path.write_bytes(metadata_batch(*records, base_offset=base_offset))
    return path


def write_snapshot(data_dir: Path, end_offset: int, *records: Any) -> Path:
    """A snapshot with header and footer."""
    directory = data_dir / METADATA
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{end_offset:020d}-{1:010d}.checkpoint"
    path.write_bytes(
        control_batch(3, 0)
        + metadata_batch(*records, base_offset=1)
        + control_batch(4, 1 + len(records))
    )
    return path


def close_directory(data_dir: Path, *, node_id: int = 1, topics: tuple[str, ...] = ("orders",)):
    """What a clean stop leaves."""
    data_dir.mkdir(exist_ok=True)
    (data_dir / "meta.properties").write_text(
        f"version=1\ncluster.id={CLUSTER_ID}\nnode.id={node_id}\n"
    )
    (data_dir / ".kafka_cleanshutdown").write_bytes(encode_clean_shutdown(3))
    (data_dir / ".lock").touch()
    offsets = {(topic, partition): END for topic in topics for partition in (0, 1)}
    for name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
        (data_dir / name).write_bytes(encode_offset_checkpoint(offsets))


def write_kafka_directory(data_dir: Path) -> Path:
    """A topic of two partitions with a setting, closed in order, with its metadata."""
    for partition in (0, 1):
        write_partition(data_dir, partition=partition)
    write_metadata_log(
        data_dir,
        *topic_records(),
        ConfigRecord(2, "orders", "retention.ms", "-1"),
        ConfigRecord(4, "", "min.insync.replicas", "1"),
        ConfigRecord(32, "g", "consumer.session.timeout.ms", "50000"),
        ProducerIdsRecord(1, 1, 4000),
    )
    close_directory(data_dir)
    return data_dir
