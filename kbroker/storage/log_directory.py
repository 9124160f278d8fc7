"""One data directory: its lock, whose it is, its checkpoints and the clean shutdown marker."""

import os
from collections.abc import Mapping

from kbroker.common.faults import NO_FAULTS, Faults
from kbroker.common.files import (
    AlreadyLockedError,
    FileLock,
    FileSystem,
    remove_if_exists,
    write_atomically,
)
from kbroker.storage.checkpoints import (
    CLEAN_SHUTDOWN,
    CLEANER_OFFSET_CHECKPOINT,
    LOG_START_OFFSET_CHECKPOINT,
    RECOVERY_POINT_CHECKPOINT,
    REPLICATION_OFFSET_CHECKPOINT,
    MetaProperties,
    encode_clean_shutdown,
    encode_offset_checkpoint,
    encode_uuid,
    read_meta_properties,
    read_offset_checkpoint,
    write_meta_properties,
)
from kbroker.storage.log_state import LOG_STATE_CHECKPOINT, read_log_states

LOCK_FILE = ".lock"
KRAFT_METADATA_DIRECTORY = "__cluster_metadata-0"
DELETE_DIRECTORY_SUFFIX = "-delete"
STRAY_DIRECTORY_SUFFIX = "-stray"
FUTURE_DIRECTORY_SUFFIX = "-future"
_LEGAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_LONGEST_TOPIC = 249
_LONGEST_NUMBER = 10
_LONGEST_NAME = 255

Offsets = dict[tuple[str, int], int]


class DataDirectoryError(Exception):
    """A data directory that cannot be used; the text is for the operator, one line."""


class UnusableDirectoryError(DataDirectoryError):
    """The disk refused it; ``cause`` says how."""

    def __init__(self, text: str, cause: OSError) -> None:
        super().__init__(text)
        self.cause = cause


def partition_directory_name(topic: str, partition: int) -> str:
    """``topic-partition``. ValueError for a topic name that must not become a path."""
    if not _is_legal_topic(topic) or partition < 0:
        raise ValueError(f"{topic!r} partition {partition} cannot name a directory")
    return f"{topic}-{partition}"


def parse_partition_directory_name(name: str) -> tuple[str, int] | None:
    """(topic, partition), None when the name is of something else."""
    topic, _, number = name.rpartition("-")
    is_number = number.isdecimal() and number.isascii() and len(number) <= _LONGEST_NUMBER
    return (topic, int(number)) if is_number and _is_legal_topic(topic) else None


def _is_legal_topic(name: str) -> bool:
    is_name = 0 < len(name) <= _LONGEST_TOPIC and name not in (".", "..")
    return is_name and _LEGAL.issuperset(name)


def parse_future_directory_name(name: str) -> tuple[str, int] | None:
    """(topic, partition) of a log that was on its way here, None when the name is of another."""
    if not name.endswith(FUTURE_DIRECTORY_SUFFIX):
        return None
    partition, _, unique = name.removesuffix(FUTURE_DIRECTORY_SUFFIX).rpartition(".")
    return parse_partition_directory_name(partition) if unique else None


def deleted_directory_name(topic: str, partition: int, unique: str) -> str:
    """The name under which a deleted partition waits; as Kafka's, cut to what a name may be."""
    return set_aside_directory_name(topic, partition, unique, DELETE_DIRECTORY_SUFFIX)


def set_aside_directory_name(topic: str, partition: int, unique: str, suffix: str) -> str:
    """``topic-partition.unique-suffix``, the topic cut to what a name may be."""
    suffix = f"-{partition}.{unique}{suffix}"
    return topic[: _LONGEST_NAME - len(suffix)] + suffix


class LogDirectory:
    """A data directory in use. ``failure`` is set once the disk failed it."""

    def __init__(self, files: FileSystem, path: str, faults: Faults = NO_FAULTS) -> None:
        self.path = path
        self.absolute_path = os.path.abspath(path)
        self.meta: MetaProperties | None = None
        self.failure: OSError | None = None
        self.was_clean = False
        self.was_seen = True
        """False when what is in it could not be read at the start."""
        self._files = files
        self._faults = faults
        self._lock: FileLock | None = None
        self._written: dict[str, int] = {}  # hash of what the file holds

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def open(self) -> None:
        """Make the directory if need be, lock it, read whose it is. DataDirectoryError."""
        try:
            self._files.make_directory(self.path)
            self._lock = self._files.lock(self._file(LOCK_FILE))
            if self._files.exists(self._file(KRAFT_METADATA_DIRECTORY)):
                raise DataDirectoryError(
                    f"{self.path} is the log directory of an Apache Kafka: use another one; "
                    f"`kbroker log import {self.path} --data-dir DIR` makes topics of it there"
                )
            self.meta = read_meta_properties(self._files, self.path)
        except AlreadyLockedError:
            raise DataDirectoryError(f"{self.path} is in use by another broker") from None
        except OSError as error:
            self.release()
            raise UnusableDirectoryError(f"{self.path} cannot be used: {error}", error) from error
        except ValueError as error:
            self.release()
            raise DataDirectoryError(f"{self.path} cannot be used: {error}") from error
        except DataDirectoryError:
            self.release()
            raise

    def claim(self, cluster_id: str, node_id: int, directory_id: bytes) -> None:
        """Write meta.properties where it is missing. DataDirectoryError when it is another's."""
        meta = self.meta or MetaProperties(None, None, None)
        if meta.cluster_id not in (None, cluster_id) or meta.node_id not in (None, node_id):
            raise DataDirectoryError(
                f"{self.path} belongs to node {meta.node_id} of cluster {meta.cluster_id}, "
                f"not to node {node_id} of cluster {cluster_id}"
            )
        claimed = MetaProperties(
            cluster_id, node_id, meta.directory_id or encode_uuid(directory_id)
        )
        if claimed != self.meta:
            try:
                write_meta_properties(self._files, self.path, claimed)
            except OSError as error:
                raise DataDirectoryError(f"{self.path} cannot be written: {error}") from error
            self.meta = claimed

    def take_clean_shutdown_marker(self) -> bool:
        """Whether all logs were closed; the marker is gone then, so a crash from now on shows."""
        path = self._file(CLEAN_SHUTDOWN)
        self.was_clean = self._files.exists(path)
        if self.was_clean:
            remove_if_exists(self._files, path)
        return self.was_clean

    def write_clean_shutdown_marker(self, broker_epoch: int = -1) -> None:
        """After everything else is written and synced."""
        write_atomically(
            self._files, self._file(CLEAN_SHUTDOWN), encode_clean_shutdown(broker_epoch)
        )

    def read_checkpoints(self) -> tuple[Offsets, Offsets, Offsets]:
        """(recovery points, log start offsets, high watermarks); empty where a file is no good.

        Without a recovery point a log is looked through from its start, which is always right.
        """
        points, starts, watermarks = (
            read_offset_checkpoint(self._files, self._file(name)) or {}
            for name in (
                RECOVERY_POINT_CHECKPOINT,
                LOG_START_OFFSET_CHECKPOINT,
                REPLICATION_OFFSET_CHECKPOINT,
            )
        )
        return points, starts, watermarks

    def read_cleaner_offsets(self) -> Offsets:
        """How far each compacted log is clean; empty where the file is no good."""
        return read_offset_checkpoint(self._files, self._file(CLEANER_OFFSET_CHECKPOINT)) or {}

    def write_cleaner_offsets(self, offsets: Offsets) -> None:
        """For a worker thread. OSError."""
        self.write_checkpoints({CLEANER_OFFSET_CHECKPOINT: encode_offset_checkpoint(offsets)})

    def read_log_states(self) -> tuple[str, Mapping[str, str]]:
        """(memory id, directory name to line) of the checkpoint of all logs."""
        return read_log_states(self._files, self._file(LOG_STATE_CHECKPOINT))

    def checkpoint_contents(
        self,
        recovery_points: Offsets,
        log_starts: Offsets,
        high_watermarks: Offsets,
        log_states: bytes,
    ) -> dict[str, bytes]:
        """The files that differ from what was last written, name to content."""
        contents = {
            RECOVERY_POINT_CHECKPOINT: encode_offset_checkpoint(recovery_points),
            LOG_START_OFFSET_CHECKPOINT: encode_offset_checkpoint(log_starts),
            REPLICATION_OFFSET_CHECKPOINT: encode_offset_checkpoint(high_watermarks),
            LOG_STATE_CHECKPOINT: log_states,
        }
        return {
            name: data for name, data in contents.items() if self._written.get(name) != hash(data)
        }

    def write_checkpoints(self, contents: dict[str, bytes]) -> None:
        """Write these files, synced. For a worker thread. OSError."""
        for name, data in contents.items():
            path = self._file(name)
            if self._faults.is_due("checkpoint.mid_write"):
                file = self._files.open(path + ".tmp", create=True)
                file.write_at(data[: len(data) // 2], 0)
                self._faults.die()
            write_atomically(self._files, path, data)
            self._written[name] = hash(data)

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
