"""What the checkpoints of a data directory say of its logs, gathered without stopping the loop."""

from typing import TYPE_CHECKING

import anyio.lowlevel

from kbroker.common.files import FileSystem
from kbroker.storage.log_directory import LogDirectory, Offsets
from kbroker.storage.log_state import LogState, encode_log_states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kbroker.storage.unified_log import UnifiedLog

_AT_ONCE = 200
_TELLING = tuple(
    LogState._fields.index(name)
    for name in (
        "log_start_offset",
        "log_end_offset",
        "recovery_point",
        "high_watermark",
        "latest_epoch",
        "segment_count",
    )
)
Key = tuple[str, int]


class CheckpointRows:
    """Remembers the line of each log, so that one that rests costs nothing but its place."""

    def __init__(self, files: FileSystem) -> None:
        self._files = files
        self._memory_id: str | None = None
        self._rows: dict[Key, str] = {}  # of loaded logs

    def forget(self, key: Key) -> None:
        """The log is no more, or another one."""
        self._rows.pop(key, None)

    async def gather(
        self,
        directory: LogDirectory,
        logs: "Iterable[tuple[Key, UnifiedLog]]",
        is_still_there: "Callable[[Key, UnifiedLog], bool]",
        now_ms: int | None,
    ) -> dict[str, bytes]:
        """The checkpoint files of ``directory`` that changed, by name.

        ``now_ms`` is None when every log is closed for good.
        """
        points: Offsets = {}
        starts: Offsets = {}
        watermarks: Offsets = {}
        rows: dict[Key, str] = {}
        seen = []
        for number, (key, log) in enumerate(logs, 1):
            if log.has_files:
                seen.append((key, log))
                points[key] = log.recovery_point
                watermarks[key] = log.high_watermark
                if log.log_start_offset > log.first_base_offset:
                    starts[key] = log.log_start_offset
                row = self._row(key, log, now_ms)
                if row:
                    rows[key] = row
            if number % _AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        for key, log in seen:
            if not is_still_there(key, log):  # gone while this gave way
                for offsets in (points, starts, watermarks):
                    offsets.pop(key, None)
                rows.pop(key, None)
        if self._memory_id is None:
            self._memory_id = self._files.memory_id()
        states = encode_log_states(self._memory_id, rows.values())
        return directory.checkpoint_contents(points, starts, watermarks, states)

    def _row(self, key: Key, log: "UnifiedLog", now_ms: int | None) -> str:
        from kbroker.storage.dormant_log import DormantLog, state_of

        if isinstance(log, DormantLog):
            self._rows.pop(key, None)
            return log.row
        known = self._rows.pop(key, None)
        if known is not None and now_ms is not None and _is_still_true(known, log):
            self._rows[key] = known
            return known
        try:
            state = state_of(log, now_ms)
        except OSError as error:
            log.env.log.warning("%s-%d: cannot note its state: %s", *key, error)
            state = None
        if state is None:
            return ""
        row = self._rows[key] = state.row()
        return row


def _is_still_true(row: str, log: "UnifiedLog") -> bool:
    """What tells that nothing happened to the log since its line was made."""
    fields = row.split(" ")
    return [fields[place] for place in _TELLING] == [
        str(log.log_start_offset),
        str(log.log_end_offset),
        str(log.recovery_point),
        str(log.high_watermark),
        str(log.latest_epoch),
        str(len(log.segments)),
    ]
