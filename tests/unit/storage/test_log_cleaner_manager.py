"""The cleaner's settings while it runs, and the checkpoint of what it reached."""

import logging
from typing import Any

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.files import MemoryFileSystem, write_atomically
from kbroker.common.offload import InlineOffload
from kbroker.common.timer import Timer
from kbroker.storage.background_jobs import BackgroundJobs
from kbroker.storage.io_throttle import IoThrottle
from kbroker.storage.log_cleaner_manager import LogCleanerManager
from kbroker.storage.log_manager import LogManager
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.log_fixture import append, batch, config, read_all

LOG = logging.getLogger("tests.cleaner")
DEDUPE = 1 << 20


@pytest.fixture
def woken() -> list[bool]:
    return []


@pytest.fixture
def manager(woken: list[bool]) -> LogCleanerManager:
    env: Any = None
    return LogCleanerManager(
        env,
        InlineOffload(),
        LOG,
        backoff_s=15.0,
        dedupe_buffer_size=DEDUPE,
        throttle=IoThrottle(ManualClock(), Timer(ManualClock()), 0),
        logs=lambda: [],
        directory_of=lambda topic, partition: None,
        wake=lambda: woken.append(True),
    )


def test_a_changed_setting_ends_the_pause(manager: LogCleanerManager, woken: list[bool]) -> None:
    manager.set_dynamic(backoff_s=15.0, dedupe_buffer_size=DEDUPE)
    assert woken == []
    manager.set_dynamic(backoff_s=0.0, dedupe_buffer_size=DEDUPE)
    assert (manager.backoff_s, woken) == (0.001, [True])
    before = manager.make_cleaner()
    manager.set_dynamic(backoff_s=0.0, dedupe_buffer_size=DEDUPE * 2)
    assert woken == [True, True]
    assert manager.make_cleaner()._max_keys > before._max_keys


@pytest.mark.anyio
async def test_who_sleeps_can_be_woken() -> None:
    timer = Timer(ManualClock())
    jobs = BackgroundJobs(MemoryFileSystem(), timer, InlineOffload(), LOG)
    jobs.wake("nobody")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(jobs.sleep, "cleaner", 1e6)
        await anyio.wait_all_tasks_blocked()
        jobs.wake("cleaner")
    assert timer.pending == 0
    jobs.wake("cleaner")  # long awake


CHECKPOINT = "/data/cleaner-offset-checkpoint"
COMPACTED = config(segment_bytes=200, cleanup_policy=("compact",))


class World:
    """Data directories and the brokers that come and go on them."""

    def __init__(self, *paths: str) -> None:
        self.files = MemoryFileSystem()
        self.paths = paths or ("/data",)
        self.clock = ManualClock(time_ms=2_000_000)

    def start(self) -> LogManager:
        manager = LogManager(
            self.files,
            self.paths,
            COMPACTED,
            self.clock,
            Timer(self.clock),
            InlineOffload(),
            SeededEntropy(5),
            LOG,
        )
        anyio.run(manager.load)
        return manager


def filled(manager: LogManager, records: int, topic: str = "t", topic_id: int = 1) -> UnifiedLog:
    log = manager.get_or_create_log(topic, 0, bytes([topic_id] * 16), COMPACTED)
    for number in range(records):
        append(log, batch(b"%d" % number, keys=[b"k"]))
    return log


def test_what_was_reached_is_remembered_and_forgotten_with_the_topic() -> None:
    world = World()
    manager = world.start()
    filled(manager, 9)
    filled(manager, 9, "u", 2)
    assert anyio.run(manager.cleaner.clean_logs, manager.cleaner.make_cleaner()) == 2
    assert world.files.read(CHECKPOINT) == b"0\n2\nt 0 8\nu 0 8\n"
    manager.delete_log("t", 0)
    filled(manager, 20, topic_id=7)
    anyio.run(manager.cleaner.checkpoint)
    assert world.files.read(CHECKPOINT) == b"0\n1\nu 0 8\n"
    anyio.run(manager.shutdown)
    again = world.start()
    assert again.cleaner.cleaned == {("u", 0): 8}
    assert anyio.run(again.cleaner.clean_logs, again.cleaner.make_cleaner()) == 1
    assert len(read_all(filled(again, 0, topic_id=7))) < 5


def test_a_stop_does_not_leave_the_row_of_a_deleted_topic() -> None:
    world = World()
    manager = world.start()
    filled(manager, 9)
    assert anyio.run(manager.cleaner.clean_logs, manager.cleaner.make_cleaner()) == 1
    manager.delete_log("t", 0)
    filled(manager, 20, topic_id=7)
    anyio.run(manager.shutdown)
    assert world.start().cleaner.cleaned == {}


def test_rows_of_logs_that_are_elsewhere_do_not_count() -> None:
    world = World("/data", "/more")
    manager = world.start()
    filled(manager, 9)
    assert anyio.run(manager.cleaner.clean_logs, manager.cleaner.make_cleaner()) == 1
    anyio.run(manager.shutdown)
    write_atomically(world.files, "/more/cleaner-offset-checkpoint", b"0\n2\nt 0 3\ngone 0 5\n")
    again = world.start()
    assert again.cleaner.cleaned == {("t", 0): 8}
    anyio.run(again.cleaner.checkpoint)
    assert world.files.read("/more/cleaner-offset-checkpoint") == b"0\n0\n"
    assert world.files.read(CHECKPOINT) == b"0\n1\nt 0 8\n"


@pytest.mark.parametrize(("row", "log_start"), [(500, 0), (1, 4)])
def test_a_checkpoint_outside_the_log_is_corrected_even_when_nothing_is_cleaned(
    row: int, log_start: int
) -> None:
    """Or the log grows up to it one day, and what lies below would never be cleaned."""
    world = World()
    manager = world.start()
    log = filled(manager, 9)
    log.maybe_increment_log_start_offset(log_start)
    log.update_config(
        config(
            segment_bytes=200,
            cleanup_policy=("compact",),
            min_cleanable_dirty_ratio=1.0,
        )
    )
    manager.cleaner.cleaned["t", 0] = row
    anyio.run(manager.cleaner.run_once)
    assert manager.cleaner.cleaned == {("t", 0): log_start}
    assert world.files.read(CHECKPOINT) == b"0\n1\nt 0 %d\n" % log_start


def test_a_checkpoint_that_cannot_be_written_is_written_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    manager = world.start()
    filled(manager, 9)
    assert anyio.run(manager.cleaner.clean_logs, manager.cleaner.make_cleaner()) == 1
    manager.delete_log("t", 0)
    files = manager.directories.find("/data")
    whole = files.write_cleaner_offsets

    def fail(offsets: object) -> None:
        raise OSError("no")

    files.write_cleaner_offsets = fail  # type: ignore[method-assign]
    anyio.run(manager.cleaner.checkpoint)
    assert "/data: no" in caplog.text
    files.write_cleaner_offsets = whole  # type: ignore[method-assign]
    anyio.run(manager.cleaner.checkpoint)
    assert world.files.read(CHECKPOINT) == b"0\n0\n"
