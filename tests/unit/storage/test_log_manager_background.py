"""What a log manager does by itself: flush, checkpoint, retain, compact, expire, let files go."""

from collections.abc import Callable

import anyio
import pytest

from kbroker.common.entropy import SeededEntropy
from kbroker.common.faults import Faults
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.common.offload import InlineOffload
from kbroker.config.topic_config import LogConfig
from kbroker.storage.log_manager import LogManager
from tests.unit.storage.faulty_files import FaultyFileSystem
from tests.unit.storage.log_fixture import (
    append,
    append_values,
    batch,
    read_all,
)
from tests.unit.storage.log_manager_world import World, log_of, shut_down


def in_background(world: World, *works: Callable[[LogManager], None]) -> LogManager:
    """Do each of ``works`` with the background tasks running, and what it led to."""
    manager = world.manager()

    async def main() -> None:
        await manager.load()
        async with anyio.create_task_group() as tasks:
            manager.start_background(tasks)
            await anyio.lowlevel.checkpoint()
            for work in works:
                work(manager)
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    anyio.run(main)
    return manager


def test_a_roll_is_synced_in_the_background() -> None:
    def work(manager: LogManager) -> None:
        append_values(log_of(manager, segment_bytes=300), *[b"v"] * 10)

    manager = in_background(World(), work)
    assert log_of(manager).recovery_point == 10


def test_flush_ms_syncs_by_itself() -> None:
    world = World()

    def work(manager: LogManager) -> None:
        append_values(log_of(manager, flush_ms=200), b"v")
        assert log_of(manager, flush_ms=200).recovery_point == 0
        world.clock.advance(0.3)
        world.timer.run_due()

    manager = in_background(world, work)
    assert log_of(manager).recovery_point == 1


def test_checkpoints_are_written_when_something_changed() -> None:
    world = World()

    def work(manager: LogManager) -> None:
        append_values(log_of(manager), b"v", b"w")
        world.clock.advance(61)
        world.timer.run_due()

    in_background(world, work)
    assert world.files.read("/data/replication-offset-checkpoint") == b"0\n1\ntopic 0 2\n"
    assert world.files.read("/data/recovery-point-offset-checkpoint") == b"0\n1\ntopic 0 0\n"


def test_deleted_records_stay_deleted_after_a_kill() -> None:
    world = World()

    def work(manager: LogManager) -> None:
        append_values(log_of(manager), b"a", b"b", b"c")
        log_of(manager).maybe_increment_log_start_offset(2)
        log_of(manager).maybe_increment_log_start_offset(2)
        world.clock.advance(1.1)
        world.timer.run_due()

    shut_down(in_background(world, work), clean=False)
    log = world.loaded().get_log("topic", 0)
    assert log is not None
    assert read_all(log) == [(2, b"c")]


def test_retention_runs_by_itself_and_files_go_later() -> None:
    world = World()
    settings = {"segment_bytes": 300, "retention_bytes": 300, "retention_ms": -1}

    def work(manager: LogManager) -> None:
        append_values(log_of(manager, **settings), *[b"v"] * 20)
        assert log_of(manager, **settings).log_start_offset == 0
        world.clock.advance(31)
        world.timer.run_due()

    def wait(manager: LogManager) -> None:
        assert log_of(manager, **settings).log_start_offset > 0
        assert [name for name in world.names("/data/topic-0") if name.endswith(".deleted")]
        world.clock.advance(61)
        world.timer.run_due()

    in_background(world, work, wait)
    assert not [name for name in world.names("/data/topic-0") if name.endswith(".deleted")]


def test_compacted_topics_are_compacted_by_themselves() -> None:
    world = World()
    settings = {"segment_bytes": 400, "cleanup_policy": ("compact",)}

    def work(manager: LogManager) -> None:
        log = log_of(manager, **settings)
        for number in range(30):
            append(log, batch(b"%d" % number, keys=[b"key"]))
        world.clock.advance(16)
        world.timer.run_due()

    manager = in_background(world, work)
    log = log_of(manager, **settings)
    active = log.segments.active
    assert active is not None
    assert len(read_all(log)) == 30 - active.base_offset + 1
    assert (
        world.files.read("/data/cleaner-offset-checkpoint")
        == b"0\n1\ntopic 0 %d\n" % active.base_offset
    )
    shut_down(manager)
    again = world.loaded()
    assert again.cleaner.cleaned == {("topic", 0): active.base_offset}
    again.delete_log("topic", 0)
    assert again.cleaner.cleaned == {}


def test_a_failed_compaction_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    files = FaultyFileSystem(MemoryFileSystem())
    world = World(files)
    manager = world.loaded()
    log = log_of(manager, segment_bytes=400, cleanup_policy=("compact",))
    for number in range(30):
        append(log, batch(b"%d" % number, keys=[b"key"]))
    cleaner = manager.cleaner.make_cleaner()
    files.fail_at = files.calls + 1
    files.mode = "full"
    assert anyio.run(manager.cleaner.clean_logs, cleaner) == 0
    assert "topic-0: error while compacting" in caplog.text
    assert len(read_all(log)) == 30
    assert anyio.run(manager.cleaner.clean_logs, cleaner) == 1
    assert anyio.run(manager.cleaner.clean_logs, cleaner) == 0


@pytest.mark.parametrize("interval_s", [5.0, 20.0])
def test_producers_are_looked_through_at_an_interval(interval_s: float) -> None:
    """producer.id.expiration.check.interval.ms; whose transaction was refused is forgotten too."""
    world = World()
    world.producer_expiry_interval_s = interval_s

    def work(manager: LogManager) -> None:
        manager.env.producer_id_expiration_ms = 1000
        state = log_of(manager).producer_state
        state.start_verification(1, 0, 0, begins_at_zero=False)
        world.clock.advance(10)
        world.timer.run_due()
        assert state.may_expire() is (interval_s > 10)

    in_background(world, work)


def test_idle_producers_are_forgotten() -> None:
    world = World()

    def work(manager: LogManager) -> None:
        append(log_of(manager), batch(b"v", producer_id=1, base_sequence=0))
        append(
            log_of(manager),
            batch(b"v", producer_id=2, base_sequence=0, timestamps=[2_000_000 + 86_400_000]),
        )
        world.clock.advance(86_400)
        world.timer.run_due()

    manager = in_background(world, work)
    assert list(log_of(manager).producer_state.producers) == [2]


def test_failed_background_work_is_logged_and_the_rest_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = FaultyFileSystem(MemoryFileSystem())
    world = World(files)

    def work(manager: LogManager) -> None:
        append_values(log_of(manager), b"a")
        log_of(manager).maybe_increment_log_start_offset(1)
        manager.delete_log("topic", 0)
        append_values(log_of(manager, 1), b"a")
        files.fail_at = files.calls + 1
        world.clock.advance(2)
        world.timer.run_due()

    in_background(world, work)
    assert "background work on the logs failed" in caplog.text


def test_a_kill_in_the_middle_of_a_checkpoint_leaves_the_old_one() -> None:
    class Died(Exception):
        pass

    class Recorder(Faults):
        def die(self) -> None:
            raise Died

    world = World()
    manager = world.manager(faults=Recorder(failpoint="checkpoint.mid_write", passes=5))
    anyio.run(manager.load)
    append_values(log_of(manager), b"a")
    anyio.run(manager.checkpoint)
    before = world.files.read("/data/recovery-point-offset-checkpoint")
    anyio.run(log_of(manager).flush)
    with pytest.raises(Died):
        anyio.run(manager.checkpoint)
    assert world.files.read("/data/recovery-point-offset-checkpoint") == before
    shut_down(manager, clean=False)
    assert len(list(world.loaded().logs)) == 1


def test_few_files_are_open_however_many_partitions_there_are() -> None:
    world = World()
    manager = LogManager(
        world.files,
        world.paths,
        LogConfig(),
        world.clock,
        world.timer,
        InlineOffload(),
        SeededEntropy(5),
        open_segments_limit=10,
    )
    anyio.run(manager.load)
    for _ in range(2):
        for partition in range(30):
            append_values(log_of(manager, partition), b"v")
    assert len(manager.env.open_files) <= 10
    for partition in range(30):
        assert len(read_all(log_of(manager, partition))) == 2


def test_what_cannot_be_removed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    files = FaultyFileSystem(MemoryFileSystem())
    world = World(files)
    manager = world.loaded()
    append_values(log_of(manager, file_delete_delay_ms=0), b"a")
    manager.delete_log("topic", 0)
    world.timer.run_due()
    files.fail_at = files.calls + 1
    anyio.run(manager.run_pending_jobs)
    assert "cannot remove /data/topic-0." in caplog.text


def test_a_log_whose_retention_fails_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = FaultyFileSystem(MemoryFileSystem())
    world = World(files)
    manager = world.loaded()
    settings = {"segment_bytes": 300, "retention_bytes": 300, "retention_ms": -1}
    for partition in range(2):
        append_values(log_of(manager, partition, **settings), *[b"v"] * 10)
    files.fail_at = files.calls + 1
    assert manager.delete_old_segments() > 0
    assert "topic-0: retention failed" in caplog.text
