"""``kbroker log verify``: data directories looked at, not touched."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from kbroker.common.files import OsFileSystem
from kbroker.log_tools.findings import Finding, Findings
from kbroker.log_tools.import_plan import STAGING_DIRECTORY
from kbroker.log_tools.known_topics import UnreadableMetadataError, read_known_topics
from kbroker.log_tools.partition_listing import PartitionListing
from kbroker.log_tools.read_only import held_for_reading
from kbroker.log_tools.verify_partition import PartitionCheck, PartitionContext
from kbroker.metadata.sqlite_store import METADATA_FILE
from kbroker.storage.checkpoints import (
    CLEAN_SHUTDOWN,
    CLEANER_OFFSET_CHECKPOINT,
    LOG_START_OFFSET_CHECKPOINT,
    META_PROPERTIES,
    RECOVERY_POINT_CHECKPOINT,
    REPLICATION_OFFSET_CHECKPOINT,
    MetaProperties,
    encode_uuid,
    read_meta_properties,
    read_offset_checkpoint,
)
from kbroker.storage.log_directory import (
    DELETE_DIRECTORY_SUFFIX,
    LOCK_FILE,
    STRAY_DIRECTORY_SUFFIX,
    Offsets,
    parse_partition_directory_name,
)
from kbroker.storage.log_state import LOG_STATE_CHECKPOINT

_CHECKPOINTS = (
    RECOVERY_POINT_CHECKPOINT,
    LOG_START_OFFSET_CHECKPOINT,
    REPLICATION_OFFSET_CHECKPOINT,
    CLEANER_OFFSET_CHECKPOINT,
)
_KNOWN_FILES = frozenset(
    {*_CHECKPOINTS, LOG_STATE_CHECKPOINT, META_PROPERTIES, CLEAN_SHUTDOWN, LOCK_FILE}
    | {METADATA_FILE, f"{METADATA_FILE}-wal", f"{METADATA_FILE}-shm", "bootstrap.checkpoint"}
)
_KAFKA_FUTURE_SUFFIX = "-future"

Progress = Callable[[int, int], None]
"""Takes the bytes looked at and the bytes there are."""


class DirectoriesCheck:
    """``run`` once, then read ``findings`` and the counts."""

    def __init__(
        self, directories: Sequence[str], progress: Progress = lambda done, total: None
    ) -> None:
        """``directories`` are those of one broker."""
        self._directories = directories
        self._progress = progress
        self.findings = Findings()
        self.partitions = 0
        self.segments = 0
        self.batches = 0
        self.bytes = 0
        self._bytes_done = 0
        self._found_in: dict[tuple[str, int], str] = {}
        self._topic_ids: dict[str, tuple[bytes, str]] = {}
        self._owners: list[tuple[str, MetaProperties]] = []

    def run(self) -> None:
        """AlreadyLockedError when a broker uses one of them, OSError when one cannot be read."""
        with ExitStack() as stack:
            for directory in self._directories:
                stack.enter_context(held_for_reading(directory))
            partitions = [
                (directory, name)
                for directory in self._directories
                for name in self._list(directory)
            ]
            for directory, name in partitions:
                self.bytes += PartitionListing(os.path.join(directory, name)).log_bytes
            for directory in self._directories:
                self._check_directory(
                    directory, [name for each, name in partitions if each == directory]
                )
            for directory in self._directories:
                self._check_metadata(directory)

    def report(self) -> dict[str, Any]:
        """For ``--json``."""
        findings = self.findings
        return {
            "directories": list(self._directories),
            "partitions": self.partitions,
            "segments": self.segments,
            "batches": self.batches,
            "bytes": self.bytes,
            "errors": [_finding_json(each) for each in findings.errors],
            "error_count": findings.error_count,
            "notes": [_finding_json(each) for each in findings.notes],
        }

    def _list(self, directory: str) -> list[str]:
        """Names of the partitions; everything else becomes a note."""
        names = []
        for entry in sorted(OsFileSystem().list(directory)):
            path = os.path.join(directory, entry.name)
            if not entry.is_directory:
                if entry.name not in _KNOWN_FILES:
                    self.findings.note(path, "is no file of a data directory")
            elif entry.name.endswith(DELETE_DIRECTORY_SUFFIX):
                self.findings.note(path, "belongs to a deleted topic; the next start removes it")
            elif entry.name.endswith(STRAY_DIRECTORY_SUFFIX):
                self.findings.note(path, "was set aside: no topic is known that it belongs to")
            elif entry.name.endswith(_KAFKA_FUTURE_SUFFIX):
                self.findings.note(path, "is a replica on its way to this directory")
            elif entry.name == STAGING_DIRECTORY:
                self.findings.note(path, "an import was not finished: the same command goes on")
            elif parse_partition_directory_name(entry.name) is None:
                self.findings.note(path, "is no partition")
            else:
                names.append(entry.name)
        return names

    def _check_directory(self, directory: str, names: list[str]) -> None:
        self._check_owner(directory, has_partitions=bool(names))
        was_closed = os.path.exists(os.path.join(directory, CLEAN_SHUTDOWN))
        if names and not was_closed:
            self.findings.note(
                directory, "was not closed: the next start recovers it from the recovery points on"
            )
        checkpoints = [self._read_checkpoint(directory, name) for name in _CHECKPOINTS]
        points, starts, watermarks, _ = checkpoints
        for name in names:
            key = parse_partition_directory_name(name)
            assert key is not None, "only those are listed"
            context = PartitionContext(
                was_closed, points.get(key), starts.get(key), watermarks.get(key)
            )
            self._check_partition(directory, name, key, context)
        present = {parse_partition_directory_name(name) for name in names}
        for name, offsets in zip(_CHECKPOINTS, checkpoints, strict=True):
            for topic, partition in sorted(set(offsets) - present):
                self.findings.note(
                    os.path.join(directory, name),
                    f"names {topic}-{partition}, which has no directory",
                )

    def _check_metadata(self, directory: str) -> None:
        """Partitions and ids against the topics that the metadata knows, if it is here."""
        path = os.path.join(directory, METADATA_FILE)
        try:
            topics = read_known_topics(directory)
        except UnreadableMetadataError as error:
            self.findings.error(path, str(error).replace(f"{path}: ", ""))
            return
        if topics is None:
            return
        for (name, partition), place in sorted(self._found_in.items()):
            topic = topics.get(name)
            if topic is None or partition >= len(topic.partitions):
                self.findings.error(
                    os.path.join(place, f"{name}-{partition}"),
                    f"{path} knows no such partition: the next start sets it aside",
                )
        for name, (topic_id, found_at) in self._topic_ids.items():
            topic = topics.get(name)
            if topic is not None and topic.topic_id != topic_id:
                self.findings.error(
                    found_at,
                    f"has topic id {encode_uuid(topic_id)}; {path} says "
                    f"{encode_uuid(topic.topic_id)}: the next start sets it aside",
                )

    def _check_owner(self, directory: str, *, has_partitions: bool) -> None:
        path = os.path.join(directory, META_PROPERTIES)
        try:
            meta = read_meta_properties(OsFileSystem(), directory)
        except ValueError as error:
            self.findings.error(path, str(error).removeprefix(f"{path}: "))
            return
        if meta is None:
            if has_partitions:
                self.findings.error(path, "is missing: it is not known whose data this is")
            return
        for other_directory, other in self._owners:
            if (meta.cluster_id, meta.node_id) != (other.cluster_id, other.node_id):
                self.findings.error(
                    path,
                    f"node {meta.node_id} of cluster {meta.cluster_id}; {other_directory} belongs "
                    f"to node {other.node_id} of cluster {other.cluster_id}",
                )
            elif meta.directory_id is not None and meta.directory_id == other.directory_id:
                self.findings.error(path, f"has the directory id of {other_directory}")
        self._owners.append((directory, meta))

    def _read_checkpoint(self, directory: str, name: str) -> Offsets:
        path = os.path.join(directory, name)
        offsets = read_offset_checkpoint(OsFileSystem(), path)
        if offsets is None and os.path.exists(path):
            self.findings.error(path, "is no checkpoint of version 0, or is cut short")
        return offsets or {}

    def _check_partition(
        self, directory: str, name: str, key: tuple[str, int], context: PartitionContext
    ) -> None:
        path = os.path.join(directory, name)
        if key in self._found_in:
            self.findings.error(path, f"is in {self._found_in[key]} as well")
        self._found_in[key] = directory
        check = PartitionCheck(path, context, self.findings, self._on_progress)
        check.run()
        self.partitions += 1
        self.segments += check.segments
        self.batches += check.batches
        if check.topic_id is None:
            return
        topic_id, first = self._topic_ids.setdefault(key[0], (check.topic_id, path))
        if topic_id != check.topic_id:
            self.findings.error(
                path,
                f"has topic id {encode_uuid(check.topic_id)}; {first} has {encode_uuid(topic_id)}",
            )

    def _on_progress(self, size: int) -> None:
        self._bytes_done += size
        self._progress(self._bytes_done, self.bytes)


def _finding_json(finding: Finding) -> dict[str, Any]:
    where = {} if finding.position is None else {"position": finding.position}
    return {"path": finding.path, **where, "text": finding.text}
