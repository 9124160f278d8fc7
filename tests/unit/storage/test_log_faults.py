"""Every change of the disk goes wrong once, at every place of one script.

The script appends to several segments, flushes, rolls, truncates, deletes records and segments,
closes and opens again. Whatever call fails or is the process's last one: the log opens afterwards,
holds every record that was acknowledged, in order and at its offset, and takes new ones.
"""

from collections.abc import Callable

import anyio
import pytest

from kbroker.common.files import FileSystem
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.protocol.errors import KafkaError
from kbroker.storage.log_loader import load_log
from kbroker.storage.log_retention import delete_old_segments
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.closed_files import ClosedFilesOnly
from tests.unit.storage.faulty_files import FaultyFileSystem, Killed
from tests.unit.storage.log_fixture import (
    DIRECTORY,
    append,
    append_values,
    batch,
    config,
    environment,
    new_log,
    read_all,
)

SETTINGS = config(
    segment_bytes=700, index_interval_bytes=150, retention_bytes=1500, retention_ms=-1
)


class Script:
    """The script and what it was told: acknowledged records, truncations, deletions."""

    def __init__(self, files: FileSystem) -> None:
        self.files = files
        self.acked: dict[int, bytes] = {}
        self.log_start = 0
        self.recovery_point = 0
        self.errors = 0
        self.unsure: dict[int, bytes] = {}
        self.log: UnifiedLog | None = None
        self.sequence = 0

    def run(self) -> None:
        self.log = log = new_log(environment(self.files), SETTINGS)
        self.append(log, 6)
        self.attempt(lambda: self.flush(log))
        self.append(log, 8)
        self.append_idempotent(log, 5)
        self.attempt(log.roll)
        self.attempt(lambda: self.delete_records(log, 4))
        self.append(log, 3)
        self.attempt(lambda: self.truncate(log, log.log_end_offset - 4))
        self.append(log, 8, epoch=1)
        self.attempt(lambda: self.retain(log))
        self.attempt(lambda: self.flush(log))
        self.append(log, 4, epoch=2)
        self.attempt(log.close)
        self.log = None

    def attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except (KafkaError, OSError):
            self.errors += 1

    def append(self, log: UnifiedLog, count: int, epoch: int = 0) -> None:
        for _ in range(count):
            offset = log.log_end_offset
            value = b"value %d of epoch %d" % (offset, epoch)
            self.unsure = {offset: value}
            try:
                append_values(log, value, leader_epoch=epoch)
            except KafkaError:
                self.errors += 1
            else:
                self.acked[offset] = value
            self.unsure = {}

    def append_idempotent(self, log: UnifiedLog, count: int) -> None:
        for _ in range(count):
            offset = log.log_end_offset
            value = b"idempotent %d" % self.sequence
            self.unsure = {offset: value}
            try:
                append(log, batch(value, producer_id=7, base_sequence=self.sequence))
            except KafkaError:
                self.errors += 1
            else:
                self.acked[offset] = value
                self.sequence += 1
            self.unsure = {}

    def flush(self, log: UnifiedLog) -> None:
        anyio.run(log.flush)
        self.recovery_point = log.recovery_point

    def delete_records(self, log: UnifiedLog, offset: int) -> None:
        self.log_start = max(self.log_start, offset)
        log.maybe_increment_log_start_offset(offset)

    def truncate(self, log: UnifiedLog, offset: int) -> None:
        for each in [each for each in self.acked if each >= offset]:
            del self.acked[each]
        self.recovery_point = min(self.recovery_point, offset)
        log.truncate_to(offset)
        self.recovery_point = min(self.recovery_point, log.recovery_point)

    def retain(self, log: UnifiedLog) -> None:
        delete_old_segments(log)
        self.log_start = max(self.log_start, log.log_start_offset)


def check_reopened(script: Script, files: FileSystem) -> UnifiedLog | None:
    if isinstance(files, ClosedFilesOnly):
        files.open_handles.clear()  # they died with the process
    if not files.exists(DIRECTORY):
        assert not script.acked
        return None
    log = load_log(
        environment(files),
        DIRECTORY,
        "topic",
        0,
        config=SETTINGS,
        is_clean=False,
        recovery_point=script.recovery_point,
    )
    found = dict(read_all(log))
    lost = {
        offset: value
        for offset, value in script.acked.items()
        if offset >= max(script.log_start, log.log_start_offset) and found.get(offset) != value
    }
    assert not lost, f"lost {lost}; the log is {log}"
    if log.log_start_offset > script.log_start:
        # Retention was cut short between its steps; it deletes from the front only.
        assert log.log_start_offset <= max(script.acked, default=0)
    assert list(found) == list(range(log.log_start_offset, log.log_end_offset))
    append_values(log, b"after", leader_epoch=3)
    assert read_all(log)[-1] == (log.log_end_offset - 1, b"after")
    return log


def count_calls(make: Callable[[], FileSystem]) -> int:
    files = FaultyFileSystem(make())
    script = Script(files)
    script.run()
    assert script.errors == 0
    assert len(script.acked) > 20
    check_reopened(script, files.inner)
    return files.calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "make"),
    [
        ("kill", MemoryFileSystem),
        ("kill_mid", MemoryFileSystem),
        ("kill_after", MemoryFileSystem),
        ("kill_after", ClosedFilesOnly),
    ],
)
def test_a_kill_at_every_change_loses_nothing_acknowledged(
    mode: str, make: Callable[[], FileSystem]
) -> None:
    calls = count_calls(make)
    assert calls > 100
    print(f"{mode}, {make.__name__}: {calls} changes visited")
    for fail_at in range(1, calls + 1):
        files = FaultyFileSystem(make(), fail_at=fail_at, mode=mode)
        script = Script(files)
        with pytest.raises(Killed):
            script.run()
        check_reopened(script, files.inner)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "make"),
    [("error", MemoryFileSystem), ("short", MemoryFileSystem), ("error", ClosedFilesOnly)],
)
def test_an_error_at_every_change_is_told_and_loses_nothing(
    mode: str, make: Callable[[], FileSystem]
) -> None:
    calls = count_calls(make)
    print(f"{mode}, {make.__name__}: {calls} changes visited")
    told = 0
    for fail_at in range(1, calls + 1):
        files = FaultyFileSystem(make(), fail_at=fail_at, mode=mode)
        script = Script(files)
        script.run()
        told += script.errors > 0
        check_reopened(script, files.inner)
    assert told > calls // 2
