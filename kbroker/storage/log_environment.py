"""What the logs of one broker share: files, clock, the few open descriptors, hooks for later."""

import logging
from typing import TYPE_CHECKING, Protocol

from kbroker.common.clock import Clock
from kbroker.common.entropy import Entropy
from kbroker.common.faults import NO_FAULTS, Faults
from kbroker.common.files import File, FileSystem
from kbroker.common.offload import InlineOffload, Offload

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbroker.storage.local_log import LocalLog
    from kbroker.storage.unified_log import UnifiedLog

OPEN_SEGMENTS_LIMIT = 128


class OpenableSegment(Protocol):
    """A segment as ``OpenFiles`` sees it."""

    recently_used: bool

    @property
    def log_path(self) -> str:
        """The file."""
        ...

    def release_file(self) -> None:
        """Let go of the open file and of what can be read again."""
        ...


class OpenFiles:
    """Segments whose file is open, at most ``limit`` of them.

    The clock algorithm: a segment that was used since the hand last passed stays, others close.
    Use costs one attribute. A slice on its way to a socket keeps its descriptor beyond that.
    """

    def __init__(self, files: FileSystem, limit: int = OPEN_SEGMENTS_LIMIT) -> None:
        self._files = files
        self._limit = limit
        self._segments: dict[OpenableSegment, None] = {}

    def __len__(self) -> int:
        return len(self._segments)

    def open(self, segment: OpenableSegment, *, create: bool = False) -> File:
        """Open the segment's log file; may close another's."""
        while len(self._segments) >= self._limit:
            oldest = next(iter(self._segments))
            del self._segments[oldest]
            if oldest.recently_used:
                oldest.recently_used = False
                self._segments[oldest] = None
            else:
                oldest.release_file()
        file = self._files.open(segment.log_path, create=create)
        self._segments[segment] = None
        return file

    def forget(self, segment: OpenableSegment) -> None:
        """The segment let its file go by itself."""
        self._segments.pop(segment, None)

    def close_idle(self) -> None:
        """Close what was not used since the last call."""
        for segment in list(self._segments):
            if segment.recently_used:
                segment.recently_used = False
            else:
                del self._segments[segment]
                segment.release_file()


def _do_nothing(*_: object) -> None:
    return None


class LogEnvironment:
    """Handed to every log. The hooks are set by the LogManager; a log alone works without.

    ``remove_later(paths, delay_ms)``: remove these files when the delay is over. Whoever restarts
    before that finds them by their suffix.
    ``flush_later(log)``: sync the log in the background soon, for instance after a roll.
    ``on_dirty(log, flush_ms)``: the first append since the log was last synced, which is to be done
    again in so many milliseconds.
    ``on_log_start_changed(log)``: the checkpoint of log start offsets is out of date.
    ``on_storage_error(log, error, is_lasting)``: the disk failed the log.
    """

    __slots__ = (
        "clock",
        "entropy",
        "faults",
        "files",
        "flush_later",
        "log",
        "offload",
        "on_dirty",
        "on_log_start_changed",
        "on_storage_error",
        "open_files",
        "producer_id_expiration_ms",
        "remove_later",
    )

    def __init__(
        self,
        files: FileSystem,
        clock: Clock,
        entropy: Entropy,
        *,
        offload: Offload | None = None,
        faults: Faults = NO_FAULTS,
        log: logging.Logger | None = None,
        open_segments_limit: int = OPEN_SEGMENTS_LIMIT,
        producer_id_expiration_ms: int = 86_400_000,
    ) -> None:
        self.files = files
        self.clock = clock
        self.entropy = entropy
        self.offload: Offload = offload or InlineOffload()
        self.faults = faults
        self.log = log or logging.getLogger("kbroker.storage")
        self.open_files = OpenFiles(files, open_segments_limit)
        self.producer_id_expiration_ms = producer_id_expiration_ms
        self.remove_later: Callable[[list[str], int], object] = _do_nothing
        self.flush_later: Callable[[UnifiedLog], object] = _do_nothing
        self.on_dirty: Callable[[UnifiedLog, int], object] = _do_nothing
        self.on_log_start_changed: Callable[[UnifiedLog], object] = _do_nothing
        self.on_storage_error: Callable[[LocalLog, OSError, bool], object] = _do_nothing
