"""The small text files of a data directory and of a partition directory, in Kafka's formats.

A file that is missing, cut short or from a newer version is no reason not to start: the readers
return None and the log rebuilds what it can from its segments.
"""

import binascii
import itertools
import os
from collections.abc import Iterable, Mapping

from kbroker.common.files import FileSystem, write_atomically
from kbroker.common.named_tuple import NamedTuple

RECOVERY_POINT_CHECKPOINT = "recovery-point-offset-checkpoint"
LOG_START_OFFSET_CHECKPOINT = "log-start-offset-checkpoint"
CLEANER_OFFSET_CHECKPOINT = "cleaner-offset-checkpoint"
REPLICATION_OFFSET_CHECKPOINT = "replication-offset-checkpoint"
LEADER_EPOCH_CHECKPOINT = "leader-epoch-checkpoint"
PARTITION_METADATA = "partition.metadata"
META_PROPERTIES = "meta.properties"
CLEAN_SHUTDOWN = ".kafka_cleanshutdown"
_VERSION = 0


class EpochEntry(NamedTuple):
    """A leader epoch and the offset of its first record."""

    epoch: int
    start_offset: int


class MetaProperties(NamedTuple):
    """Whose data a directory holds; ``version`` is 1 since KRaft. Absent fields are None."""

    cluster_id: str | None
    node_id: int | None
    directory_id: str | None


def _read_text(files: FileSystem, path: str) -> str | None:
    try:
        return files.read(path).decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _encode_rows(rows: Iterable[str]) -> bytes:
    lines = list(rows)
    return "".join(f"{line}\n" for line in (str(_VERSION), str(len(lines)), *lines)).encode()


def _decode_rows(text: str | None, fields: int) -> list[list[str]] | None:
    """Rows of version 0: a version, a count, that many lines of space-separated fields."""
    if text is None:
        return None
    lines = text.split("\n")
    if len(lines) < 3 or lines[0] != str(_VERSION) or not lines[1].isdigit() or lines[-1]:
        return None
    rows = [line.split(" ") for line in lines[2:-1]]
    if len(rows) != int(lines[1]) or any(len(row) != fields for row in rows):
        return None
    return rows


def read_offset_checkpoint(files: FileSystem, path: str) -> dict[tuple[str, int], int] | None:
    """(topic, partition) to offset; None when the file is missing or unreadable."""
    rows = _decode_rows(_read_text(files, path), 3)
    if rows is None:
        return None
    try:
        return {(topic, int(partition)): int(offset) for topic, partition, offset in rows}
    except ValueError:
        return None


def encode_offset_checkpoint(offsets: Mapping[tuple[str, int], int]) -> bytes:
    """The file's content."""
    return _encode_rows(
        f"{topic} {partition} {offset}" for (topic, partition), offset in offsets.items()
    )


def read_leader_epoch_checkpoint(files: FileSystem, path: str) -> list[EpochEntry] | None:
    """Epochs in ascending order; None when the file is missing or unreadable."""
    rows = _decode_rows(_read_text(files, path), 2)
    if rows is None:
        return None
    try:
        entries = [EpochEntry(int(epoch), int(offset)) for epoch, offset in rows]
    except ValueError:
        return None
    for former, entry in itertools.pairwise(entries):
        if entry.epoch <= former.epoch or entry.start_offset < former.start_offset:
            return None
    return entries


def encode_leader_epoch_checkpoint(entries: Iterable[EpochEntry]) -> bytes:
    """The file's content."""
    return _encode_rows(f"{entry.epoch} {entry.start_offset}" for entry in entries)


def encode_uuid(uuid: bytes) -> str:
    """Kafka's text of a uuid: base64url without padding, 22 characters."""
    text = binascii.b2a_base64(uuid, newline=False).decode().rstrip("=")
    return text.replace("+", "-").replace("/", "_")


def decode_uuid(text: str) -> bytes:
    """16 bytes. ValueError for anything else."""
    uuid = binascii.a2b_base64(text.replace("-", "+").replace("_", "/") + "==")
    if len(uuid) != 16:
        raise ValueError(f"{text!r} is not the text of a uuid")
    return uuid


def read_partition_metadata(files: FileSystem, directory: str) -> bytes | None:
    """The topic id in partition.metadata; None when the file is missing or unreadable."""
    try:
        return parse_partition_metadata(files.read(os.path.join(directory, PARTITION_METADATA)))
    except FileNotFoundError:
        return None


def parse_partition_metadata(data: bytes) -> bytes | None:
    """The topic id in the content of partition.metadata; None when it cannot be understood."""
    values = _properties(data.decode(errors="replace"), separator=":")
    if values.get("version") != str(_VERSION):
        return None
    try:
        return decode_uuid(values["topic_id"])
    except (KeyError, ValueError):
        return None


def write_partition_metadata(files: FileSystem, directory: str, topic_id: bytes) -> None:
    """Not synced: the cluster's metadata knows the id too."""
    text = f"version: {_VERSION}\ntopic_id: {encode_uuid(topic_id)}"
    write_atomically(files, os.path.join(directory, PARTITION_METADATA), text.encode(), sync=False)


def read_meta_properties(files: FileSystem, directory: str) -> MetaProperties | None:
    """None when there is no meta.properties; ValueError when it cannot be understood.

    Unlike the checkpoints this file is not guessed around: it says whose data this is.
    """
    path = os.path.join(directory, META_PROPERTIES)
    if not files.exists(path):
        return None
    values = _properties(files.read(path).decode(errors="replace"), separator="=")
    version = values.get("version", "0")
    if version not in ("0", "1"):
        raise ValueError(f"{path}: version {version} is unknown")
    node_id = values.get("node.id", values.get("broker.id"))
    if node_id is not None and not node_id.lstrip("-").isdigit():
        raise ValueError(f"{path}: node.id {node_id!r} is not a number")
    return MetaProperties(
        values.get("cluster.id"),
        None if node_id is None else int(node_id),
        values.get("directory.id"),
    )


def write_meta_properties(files: FileSystem, directory: str, properties: MetaProperties) -> None:
    """Synced: without it the directory's owner is unknown."""
    rows = {
        "cluster.id": properties.cluster_id,
        "directory.id": properties.directory_id,
        "node.id": properties.node_id,
        "version": 1,
    }
    text = "#\n" + "".join(f"{key}={value}\n" for key, value in rows.items() if value is not None)
    write_atomically(files, os.path.join(directory, META_PROPERTIES), text.encode())


def _properties(text: str, *, separator: str) -> dict[str, str]:
    values = {}
    for line in text.splitlines():
        name, found, value = line.partition(separator)
        if found and not name.startswith(("#", "!")):
            values[name.strip()] = value.strip()
    return values


def encode_clean_shutdown(broker_epoch: int) -> bytes:
    """The content of .kafka_cleanshutdown."""
    return b'{"version":0,"brokerEpoch":%d}' % broker_epoch
