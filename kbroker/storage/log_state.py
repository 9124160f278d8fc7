"""What is known of every log without opening it, kept in ``log-state-checkpoint``.

One line a log: its offsets, epochs and sizes as they were at a moment, and the stamps that its
directory and its active segment had then. While the stamps are still the same, nothing was
written since and the line is true, so the log need not be opened to be served from. Any
difference, whoever made it, and the line counts for nothing: the log is loaded from its files. The
file may be lost or damaged at any time; what it saves is work.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from kbroker.common.files import FileSystem

LOG_STATE_CHECKPOINT: Final = "log-state-checkpoint"
UNKNOWN: Final = -1
NEVER_MS: Final = 2**63 - 1
_VERSION: Final = "1"
_SETTLED_NS: Final = 50_000_000
"""After that long a change shows in the stamp, however coarse the file system's clock is."""


class LogState(NamedTuple):
    """A log at a moment at which nothing was under way."""

    topic: str
    partition: int
    topic_id: bytes
    log_start_offset: int
    log_end_offset: int
    recovery_point: int
    high_watermark: int
    latest_epoch: int
    earliest_epoch: int
    """-1, like ``earliest_epoch_start``, when there is none, or it was not looked at."""
    earliest_epoch_start: int
    first_base_offset: int
    active_base_offset: int
    segment_count: int
    size: int
    """Bytes of all segments."""
    oldest_size: int
    """Bytes of the first segment."""
    oldest_timestamp: int
    """Largest timestamp in the first segment; when it was written to if the records have none."""
    unsynced_bytes: int
    """At most so many at the end are not known to be on the device."""
    is_closed: bool
    """Index files and producer snapshot are complete."""
    directory_ns: int
    """When the names in the partition's directory last changed."""
    active_ns: int
    """When the active segment last changed; its size then is ``active_size``."""
    active_size: int

    def row(self) -> str:
        """The line of the checkpoint, without its end."""
        topic, partition, topic_id, *numbers = self
        return f"{topic} {partition} {topic_id.hex()} {_NUMBERS % tuple(numbers)}"

    @classmethod
    def parse(cls, row: str) -> "LogState":
        """ValueError when it is no such line."""
        topic, partition, topic_id, *numbers = row.split(" ")
        if len(numbers) != len(cls._fields) - 3:
            raise ValueError(f"{row!r} has {len(numbers) + 3} fields")
        return cls._make((topic, int(partition), bytes.fromhex(topic_id), *map(int, numbers)))


_NUMBERS: Final = " ".join(["%d"] * (len(LogState._fields) - 3))


def is_settled(modified_ns: int, now_ms: int) -> bool:
    """Whether another change, from now on, is certain to get another stamp."""
    return abs(now_ms * 1_000_000 - modified_ns) >= _SETTLED_NS


def encode_log_states(memory_id: str, rows: Iterable[str]) -> bytes:
    """The file: version, ``memory_id`` of the file system, number of lines, lines."""
    lines = list(rows)
    return "\n".join((_VERSION, memory_id, str(len(lines)), *lines, "")).encode()


def read_log_states(files: FileSystem, path: str) -> tuple[str, Mapping[str, str]]:
    """(memory id, ``topic-partition`` to line); empty when the file is missing or no good."""
    try:
        lines = files.read(path).decode().split("\n")
    except (OSError, UnicodeDecodeError):
        return "", {}
    if len(lines) < 4 or lines[0] != _VERSION or lines[2] != str(len(lines) - 4) or lines[-1]:
        return "", {}
    rows = {}
    for line in lines[3:-1]:
        topic, _, rest = line.partition(" ")
        rows[f"{topic}-{rest.partition(' ')[0]}"] = line
    return lines[1], rows
