"""The cleaner's settings while it runs, and the checkpoint of what it reached."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.files import write_atomically
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.common.offload import InlineOffload
from kbroker.common.timer import Timer
from kbroker.storage.background_jobs import BackgroundJobs
from kbroker.storage.io_throttle import IoThrottle
from kbroker.storage.log_cleaner import LogCleaner
from kbroker.storage.log_cleaner_manager import LogCleanerManager
from kbroker.storage.log_manager import LogManager
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.log_fixture import append, batch, config, read_all

LOG = logging.getLogger("tests.cleaner")
DEDUPE = 1 << 20
T = TypeVar("T")


class Jobs(BackgroundJobs):
    """Notes who was woken."""

    def __init__(self) -> None:
        timer = Timer(ManualClock())
        super().__init__(MemoryFileSystem(), timer, InlineOffload(), LOG)
        self.woken: list[str] = []

    def wake(self, name: str) -> None:
        self.woken.append(name)
        super().wake(name)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def manager(jobs: Jobs) -> LogCleanerManager:
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
        jobs=jobs,
    )


@pytest.mark.anyio
async def test_a_changed_setting_ends_the_pause(manager: LogCleanerManager, jobs: Jobs) -> None:
    name = "log cleaner 0"
    async with anyio.create_task_group() as tasks:
        manager.start(tasks)
        await anyio.wait_all_tasks_blocked()
        manager.set_dynamic(backoff_s=15.0, dedupe_buffer_size=DEDUPE)
        assert jobs.woken == []
        manager.set_dynamic(backoff_s=0.0, dedupe_buffer_size=DEDUPE)
        assert (manager.backoff_s, jobs.woken) == (0.001, [name])
        before = manager.make_cleaner()
        manager.set_dynamic(backoff_s=0.0, dedupe_buffer_size=DEDUPE * 2)
        assert jobs.woken == [name, name]
        assert manager.make_cleaner()._max_keys > before._max_keys
        tasks.cancel_scope.cancel()


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

    def make(self) -> LogManager:
        return LogManager(
            self.files,
            self.paths,
            COMPACTED,
            self.clock,
            Timer(self.clock),
            InlineOffload(),
            SeededEntropy(5),
            LOG,
        )

    def start(self) -> LogManager:
        manager = self.make()
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


RATE = 1000


class Cleaning:
    """Six dirty logs, and cleaners that a throttle makes slow enough to be looked at."""

    def __init__(self, manager: LogManager) -> None:
        self.manager = manager
        self.cleaner = manager.cleaner
        self.topics = [f"t{number}" for number in range(6)]
        self.most_at_once = 0
        self.shares: list[int] = []

    def set_threads(self, threads: int) -> None:
        self.cleaner.set_dynamic(
            backoff_s=1, dedupe_buffer_size=DEDUPE, io_max_bytes_per_s=RATE, threads=threads
        )

    async def pass_time(self, world: World, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            world.clock.advance(0.1)
            self.manager._timer.run_due()
            await anyio.wait_all_tasks_blocked()
            self.most_at_once = max(self.most_at_once, len(self.cleaner._in_progress))

    def cleaned(self) -> int:
        return len(self.cleaner.cleaned)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])  # where waiting for tasks costs nothing
async def test_cleaners_share_the_logs_the_buffer_and_the_rate() -> None:
    world = World()
    manager = world.make()
    await manager.load()
    cleaning = Cleaning(manager)
    for number, topic in enumerate(cleaning.topics):
        filled(manager, 9, topic, number + 1)
    whole = manager.cleaner.make_cleaner()._max_keys
    async with anyio.create_task_group() as tasks:
        cleaning.set_threads(3)
        assert manager.cleaner.make_cleaner()._max_keys * 3 == pytest.approx(whole / 128, abs=3)
        manager.cleaner.start(tasks)
        await cleaning.pass_time(world, 1.5)
        assert cleaning.most_at_once == 3
        cleaning.set_threads(1)
        busy = len(manager.cleaner._in_progress)
        assert busy == 3, "what was begun is finished"
        while busy > 1:
            await cleaning.pass_time(world, 0.1)
            busy = len(manager.cleaner._in_progress)
        cleaning.most_at_once = 0
        await cleaning.pass_time(world, 1)
        assert cleaning.most_at_once <= 1
        cleaning.set_threads(2)
        for _ in range(60):
            await cleaning.pass_time(world, 1)
            if cleaning.cleaned() == len(cleaning.topics):
                break
        tasks.cancel_scope.cancel()
    rows = world.files.read(CHECKPOINT).decode().splitlines()[2:]
    assert sorted(rows) == [f"{topic} 0 8" for topic in cleaning.topics]
    for number, topic in enumerate(cleaning.topics):
        assert len(read_all(filled(manager, 0, topic, number + 1))) <= 2


@pytest.mark.anyio
async def test_checkpoints_at_the_same_time_are_written_one_after_the_other() -> None:
    world = World()
    manager = world.make()
    await manager.load()
    filled(manager, 9)
    filled(manager, 9, "u", 2)
    directory = manager.directory_of("t", 0)
    assert directory is not None
    cleaner = manager.cleaner
    slow = SlowOffload()
    cleaner._offload = slow
    async with anyio.create_task_group() as tasks:
        cleaner.cleaned["t", 0] = 3
        tasks.start_soon(cleaner._checkpoint, directory)
        await anyio.wait_all_tasks_blocked()
        cleaner.cleaned["u", 0] = 4
        tasks.start_soon(cleaner._checkpoint, directory)
        await anyio.wait_all_tasks_blocked()
        assert slow.running == 1
        slow.go_on.set()
    assert slow.most == 1
    assert world.files.read(CHECKPOINT) == b"0\n2\nt 0 3\nu 0 4\n"


class SlowOffload(InlineOffload):
    """Work that waits until it may go on."""

    def __init__(self) -> None:
        self.go_on = anyio.Event()
        self.running = self.most = 0

    async def run(self, work: Callable[[], T]) -> T:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.go_on.wait()
        self.running -= 1
        return work()


@pytest.mark.parametrize("after", [1, 12])
def test_a_topic_may_be_deleted_while_it_is_cleaned(
    after: int, caplog: pytest.LogCaptureFixture
) -> None:
    """While keys are noted, and while segments are written: nobody is told of an error."""
    world = World()
    manager = world.start()
    log = filled(manager, 9)

    class Deleting(LogCleaner):
        given_way = 0

        async def _give_way(self, moved: int) -> None:
            self.given_way += 1
            if self.given_way == after:
                manager.delete_log("t", 0)

    assert anyio.run(manager.cleaner.clean_logs, Deleting(log.env)) == 0
    assert manager.cleaner.cleaned == {}
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert manager.directories.find("/data").failure is None


def test_an_error_that_nobody_expected_leaves_only_its_log_uncleaned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    manager = world.start()
    log = filled(manager, 20)
    filled(manager, 9, "u", 2)

    class Broken(LogCleaner):
        async def _give_way(self, moved: int) -> None:
            raise ZeroDivisionError

    broken = Broken(log.env, uncleanable=manager.cleaner._uncleanable)
    assert anyio.run(manager.cleaner.clean_logs, broken) == 0
    assert [each.exc_info is not None for each in caplog.records] == [True]
    assert anyio.run(manager.cleaner.clean_logs, manager.cleaner.make_cleaner()) == 1
    assert len(manager.cleaner.cleaned) == 1
