"""The data directories of a broker: opened together, each failing on its own.

A directory whose disk fails takes its partitions offline, and no others (KIP-112). Nothing is read
from it or written to it again before the next start. When the last one fails the broker has to end.
"""

import errno
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from kbroker.common.entropy import Entropy
from kbroker.common.faults import Faults
from kbroker.common.files import FileSystem
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.storage.checkpoints import MetaProperties
from kbroker.storage.log_directory import DataDirectoryError, LogDirectory, UnusableDirectoryError

PASSING_ERRORS: Final = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR)
)
"""A full disk, too few descriptors: the disk is sound, and what failed works again later."""


class DataDirectories:
    """Sequence of ``LogDirectory``; the first one also holds the metadata, so it must work."""

    def __init__(
        self,
        files: FileSystem,
        paths: Sequence[str],
        entropy: Entropy,
        faults: Faults,
        log: logging.Logger,
    ) -> None:
        if not paths:
            raise ValueError("a log manager needs a data directory")
        self._entropy = entropy
        self._log = log
        self._is_open = False
        self.all = [LogDirectory(files, path, faults) for path in paths]

    @property
    def is_open(self) -> bool:
        """They are locked."""
        return self._is_open

    def __iter__(self) -> Iterator[LogDirectory]:
        return iter(self.all)

    def open(self) -> None:
        """Lock the directories and read whose they are.

        A disk that refuses is a failed directory, but for the first one. DataDirectoryError.
        """
        if self._is_open:
            return
        opened: list[LogDirectory] = []
        try:
            for directory in self.all:
                try:
                    directory.open()
                    opened.append(directory)
                except UnusableDirectoryError as error:
                    if directory is self.all[0]:
                        raise
                    self.refuse(directory, error.cause)
        except DataDirectoryError:
            for directory in opened:
                directory.release()
            raise
        self._is_open = True

    def refuse(self, directory: LogDirectory, error: OSError) -> None:
        """The disk refused to show the directory at the start. DataDirectoryError for the first."""
        if directory is self.all[0]:
            raise DataDirectoryError(f"{directory.path} cannot be read: {error}") from error
        directory.was_seen = False
        self.fail(directory, error)

    def release(self) -> None:
        """Give the locks back."""
        for directory in self.all:
            directory.release()
        self._is_open = False

    @property
    def meta_properties(self) -> MetaProperties | None:
        """What meta.properties says, of the first directory that has one."""
        return next((each.meta for each in self.all if each.meta is not None), None)

    def claim(self, cluster_id: str, node_id: int) -> None:
        """Write meta.properties where it is missing. DataDirectoryError when it is another's."""
        for directory in self.usable():
            directory.claim(cluster_id, node_id, self._entropy.uuid_bytes())

    def usable(self) -> list[LogDirectory]:
        """Those that have not failed."""
        return [each for each in self.all if each.failure is None]

    def find(self, path: str) -> LogDirectory:
        """The directory that the settings call ``path``.

        KafkaError LOG_DIR_NOT_FOUND when there is none, KAFKA_STORAGE_ERROR when it is offline.
        """
        for directory in self.all:
            if path in (directory.path, directory.absolute_path):
                if directory.failure is not None:
                    raise KafkaError(
                        ErrorCode.KAFKA_STORAGE_ERROR, f"Log directory {path} is offline"
                    )
                return directory
        raise KafkaError(ErrorCode.LOG_DIR_NOT_FOUND, f"Log dir {path} is not found in the config.")

    def choose(self, in_use: Callable[[], Iterable[LogDirectory]]) -> LogDirectory:
        """The one with the fewest partitions, as Kafka. ``in_use`` gives one for each partition.

        KafkaError KAFKA_STORAGE_ERROR when all are offline.
        """
        usable = self.usable()
        if not usable:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "every data directory is offline")
        if len(usable) == 1:
            return usable[0]
        counts = {id(each): 0 for each in usable}
        for directory in in_use():
            if id(directory) in counts:
                counts[id(directory)] += 1
        return min(usable, key=lambda each: counts[id(each)])

    def fail(self, directory: LogDirectory, error: OSError) -> bool:
        """The disk failed the directory; False when that is known."""
        if directory.failure is not None:
            return False
        directory.failure = error
        self._log.error("%s goes offline: %s", directory.path, error)
        return True
