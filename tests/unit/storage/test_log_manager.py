"""Load, create, delete, flush, checkpoint and close: all logs of a broker."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.faults import Faults
from kbroker.common.files import (
    FileSystem,
    MemoryFileSystem,
    OsFileSystem,
    Stamp,
    write_atomically,
)
from kbroker.common.offload import InlineOffload
from kbroker.common.timer import Timer
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.storage.log_directory import DataDirectoryError
from kbroker.storage.log_manager import LogManager
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.faulty_files import FaultyFileSystem
from tests.unit.storage.log_fixture import (
    TOPIC_ID,
    append,
    append_values,
    batch,
    config,
    read_all,
)

OTHER_ID = bytes(16 * [7])


class World:
    """A file system and the brokers that come and go on it."""

    def __init__(self, files: FileSystem | None = None, *paths: str) -> None:
        self.files = files if files is not None else MemoryFileSystem()
        self.paths = paths or ("/data",)
        self.clock = ManualClock(time_ms=2_000_000)
        self.timer = Timer(self.clock)
        self.producer_expiry_interval_s = 600.0

    def manager(
        self, log_config: LogConfig | None = None, faults: Faults | None = None
    ) -> LogManager:
        return LogManager(
            self.files,
            self.paths,
            log_config or LogConfig(),
            self.clock,
            self.timer,
            InlineOffload(),
            SeededEntropy(5),
            logging.getLogger("test"),
            faults=faults or Faults(),
            producer_expiry_interval_s=self.producer_expiry_interval_s,
        )

    def loaded(self, log_config: LogConfig | None = None) -> LogManager:
        manager = self.manager(log_config)
        anyio.run(manager.load)
        return manager

    def names(self, path: str = "/data") -> list[str]:
        return sorted(entry.name for entry in self.files.list(path))


def log_of(manager: LogManager, partition: int = 0, **settings: object) -> UnifiedLog:
    return manager.get_or_create_log("topic", partition, TOPIC_ID, config(**settings))


def shut_down(manager: LogManager, *, clean: bool = True) -> None:
    anyio.run(lambda: manager.shutdown(clean=clean))


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_clean_stop_and_start(on_disk: bool, tmp_path: Path) -> None:
    root = str(tmp_path / "deep" / "data") if on_disk else "/data"
    world = World(OsFileSystem() if on_disk else MemoryFileSystem(), root)
    manager = world.loaded()
    for partition in range(3):
        append_values(log_of(manager, partition), b"a", b"b")
    append(log_of(manager, 1), batch(b"c", producer_id=1, base_sequence=0))
    shut_down(manager)
    assert world.names(root) == [
        ".kafka_cleanshutdown",
        ".lock",
        "log-start-offset-checkpoint",
        "log-state-checkpoint",
        "recovery-point-offset-checkpoint",
        "replication-offset-checkpoint",
        "topic-0",
        "topic-1",
        "topic-2",
    ]
    read = world.files.read
    assert (
        read(os.path.join(root, "recovery-point-offset-checkpoint"))
        == b"0\n3\ntopic 0 2\ntopic 1 3\ntopic 2 2\n"
    )
    again = world.loaded()
    assert ".kafka_cleanshutdown" not in world.names(root)
    assert again.directories.all[0].was_clean
    log = again.get_log("topic", 1)
    assert log is not None
    assert (log.topic_id, log.high_watermark, log.recovery_point) == (TOPIC_ID, 3, 3)
    assert read_all(log) == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert append(log, batch(b"c", producer_id=1, base_sequence=0)).duplicate
    assert again.get_log("topic", 7) is None
    assert sorted(each.partition for each in again.logs) == [0, 1, 2]
    shut_down(again)


def test_a_start_after_a_kill_recovers() -> None:
    world = World()
    manager = world.loaded()
    append_values(log_of(manager), b"a", b"b")
    file = world.files.open("/data/topic-0/00000000000000000000.log")
    file.write_at(b"torn", file.size())
    shut_down(manager, clean=False)
    again = world.loaded()
    assert not again.directories.all[0].was_clean
    log = again.get_log("topic", 0)
    assert log is not None
    assert read_all(log) == [(0, b"a"), (1, b"b")]
    assert (log.high_watermark, log.recovery_point) == (0, 0)
    # What was looked through is flushed in the background, so that the next kill costs less.
    anyio.run(again.run_pending_jobs)
    anyio.run(again.checkpoint)
    assert log.recovery_point == 2
    assert world.files.read("/data/recovery-point-offset-checkpoint") == b"0\n1\ntopic 0 2\n"
    shut_down(again)


@pytest.mark.parametrize(
    "name",
    [
        "recovery-point-offset-checkpoint",
        "log-start-offset-checkpoint",
        "replication-offset-checkpoint",
    ],
)
@pytest.mark.parametrize("clean", [True, False])
def test_a_damaged_checkpoint_does_not_stop_the_start(name: str, clean: bool) -> None:
    world = World()
    manager = world.loaded()
    append_values(log_of(manager), b"a", b"b")
    anyio.run(manager.checkpoint)
    shut_down(manager, clean=clean)
    write_atomically(world.files, f"/data/{name}", b"\x00\xffgarbage")
    log = world.loaded().get_log("topic", 0)
    assert log is not None
    assert read_all(log) == [(0, b"a"), (1, b"b")]


def test_nothing_comes_into_being_before_the_first_append() -> None:
    world = World()
    manager = world.loaded()
    log = log_of(manager)
    assert log_of(manager) is log
    assert world.names() == [".lock"]
    append_values(log, b"a")
    assert world.names() == [".lock", "topic-0"]


def test_a_directory_is_used_by_one_broker() -> None:
    world = World()
    manager = world.loaded()
    with pytest.raises(DataDirectoryError, match="/data is in use by another broker"):
        world.loaded()
    shut_down(manager)
    shut_down(world.loaded())


def test_all_directories_are_let_go_when_one_cannot_be_used() -> None:
    world = World(None, "/one", "/two")
    world.files.make_directory("/two")
    lock = world.files.lock("/two/.lock")
    with pytest.raises(DataDirectoryError):
        world.loaded()
    lock.release()
    shut_down(world.loaded())


def test_a_directory_of_an_apache_kafka_is_not_touched() -> None:
    world = World()
    world.files.make_directory("/data/__cluster_metadata-0")
    with pytest.raises(
        DataDirectoryError, match="of an Apache Kafka: use another one; `kbroker log import"
    ):
        world.loaded()
    world.files.remove_tree("/data/__cluster_metadata-0")
    shut_down(world.loaded())


def test_meta_properties_name_the_owner() -> None:
    world = World(None, "/one", "/two")
    manager = world.manager()
    manager.open_directories()
    assert manager.meta_properties is None
    manager.claim_directories("cluster-1", 3)
    meta = manager.meta_properties
    assert meta is not None and (meta.cluster_id, meta.node_id) == ("cluster-1", 3)
    shut_down(manager)
    again = world.manager()
    again.open_directories()
    assert again.meta_properties == meta
    again.claim_directories("cluster-1", 3)
    with pytest.raises(DataDirectoryError, match="belongs to node 3 of cluster cluster-1"):
        again.claim_directories("cluster-2", 3)
    with pytest.raises(DataDirectoryError):
        again.claim_directories("cluster-1", 4)
    shut_down(again)
    write_atomically(world.files, "/two/meta.properties", b"version=5\n")
    with pytest.raises(DataDirectoryError, match="version 5"):
        world.manager().open_directories()


def test_an_unusable_path_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    world = World(OsFileSystem(), str(tmp_path / "file" / "data"))
    with pytest.raises(DataDirectoryError, match="cannot be used") as caught:
        world.loaded()
    assert "\n" not in str(caught.value)


def test_new_partitions_go_where_there_are_fewest() -> None:
    world = World(None, "/one", "/two")
    manager = world.loaded()
    for partition in range(4):
        append_values(log_of(manager, partition), b"v")
    assert [name for name in world.names("/one") if name.startswith("topic")] == [
        "topic-0",
        "topic-2",
    ]
    directory = manager.directory_of("topic", 3)
    assert directory is not None and directory.path == "/two"
    shut_down(manager)
    again = world.loaded()
    assert len(list(again.logs)) == 4
    shut_down(again)
    world.files.rename("/one/topic-0", "/two/topic-0")
    world.files.make_directory("/one/topic-0")
    with pytest.raises(DataDirectoryError, match="topic-0 is in /one and in /two"):
        world.loaded()


def test_a_failing_directory_takes_only_its_partitions_offline() -> None:
    class OneBadDisk(FaultyFileSystem):
        def list(self, path: str):  # type: ignore[no-untyped-def]
            if path == "/one/topic-0":
                raise OSError(5, "bad sector")
            return super().list(path)

        def stamp(self, path: str) -> Stamp:
            if path == "/one/topic-0":
                raise OSError(5, "bad sector")
            return super().stamp(path)

    world = World(None, "/one", "/two")
    manager = world.loaded()
    for partition in range(2):
        append_values(log_of(manager, partition), b"v")
    shut_down(manager)
    world.files = OneBadDisk(world.files)
    again = world.loaded()
    assert again.get_log("topic", 0) is None
    assert again.get_log("topic", 1) is not None
    assert [each.failure is None for each in again.directories] == [False, True]
    with pytest.raises(KafkaError) as caught:
        log_of(again, 0)  # it must not begin anew on the disk that works
    assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
    append_values(log_of(again, 5), b"v")
    assert "topic-5" in world.names("/two")
    again.directories.all[1].failure = OSError(5, "this one too")
    with pytest.raises(KafkaError) as caught:
        log_of(again, 6)
    assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR


def test_directories_that_are_no_partitions_are_left_alone() -> None:
    world = World()
    for name in ("lost+found", "no-number-x", "..-0", "bad name-0", "topic-0.abc-stray"):
        world.files.make_directory(f"/data/{name}")
    manager = world.loaded()
    assert list(manager.logs) == []
    assert len(world.names()) == 6


def test_topic_names_never_become_paths() -> None:
    manager = World().loaded()
    for name in ("../x", "a/b", "", "..", "a b", "x" * 250):
        with pytest.raises(ValueError, match="cannot name a directory"):
            manager.get_or_create_log(name, 0, TOPIC_ID, LogConfig())
    with pytest.raises(ValueError, match="cannot name a directory"):
        manager.get_or_create_log("topic", -1, TOPIC_ID, LogConfig())


def test_a_deleted_log_is_renamed_now_and_removed_later() -> None:
    world = World()
    manager = world.loaded()
    log = log_of(manager, file_delete_delay_ms=5000)
    append_values(log, b"a")
    slice_of_it = log.read(0, max_bytes=1000, isolation=_end(), min_one_message=True).records
    manager.delete_log("topic", 0)
    manager.delete_log("topic", 0)
    assert manager.get_log("topic", 0) is None
    (name,) = [name for name in world.names() if name.startswith("topic")]
    assert name.startswith("topic-0.") and name.endswith("-delete")
    assert len(b"".join(slice_of_it.parts())) == len(slice_of_it)
    fresh = manager.get_or_create_log("topic", 0, OTHER_ID, LogConfig())
    append_values(fresh, b"other")
    assert read_all(fresh) == [(0, b"other")]
    world.clock.advance(5.1)
    world.timer.run_due()
    anyio.run(manager.run_pending_jobs)
    assert [each for each in world.names() if each.startswith("topic")] == ["topic-0"]


def _end():  # type: ignore[no-untyped-def]
    from kbroker.storage.fetch_info import FetchIsolation

    return FetchIsolation.LOG_END


def test_what_a_kill_left_to_remove_is_removed_at_the_next_start() -> None:
    world = World()
    manager = world.loaded()
    append_values(log_of(manager), b"a")
    manager.delete_log("topic", 0)
    shut_down(manager)
    again = world.loaded()
    world.timer.run_due()
    anyio.run(again.run_pending_jobs)
    assert not [name for name in world.names() if name.startswith("topic")]


def test_a_log_without_files_is_deleted_too() -> None:
    world = World()
    manager = world.loaded()
    log_of(manager)
    manager.delete_log("topic", 0)
    assert manager.get_log("topic", 0) is None


def test_the_log_of_a_deleted_topic_is_not_taken_for_the_new_one() -> None:
    manager = World().loaded()
    append_values(log_of(manager), b"a")
    with pytest.raises(KafkaError) as caught:
        manager.get_or_create_log("topic", 0, OTHER_ID, LogConfig())
    assert caught.value.error_code is ErrorCode.INCONSISTENT_TOPIC_ID
    assert manager.get_or_create_log("topic", 0, bytes(16), LogConfig()).topic_id == TOPIC_ID


def test_strays_are_kept_under_another_name() -> None:
    world = World()
    manager = world.loaded()
    for partition in range(2):
        append_values(log_of(manager, partition), b"a")
    manager.set_aside_strays(lambda log: log.partition == 1)
    assert manager.get_log("topic", 0) is None
    assert manager.get_log("topic", 1) is not None
    (name,) = [name for name in world.names() if name.startswith("topic-0")]
    assert name.endswith("-stray")
    shut_down(manager)
    again = world.loaded()
    assert [log.partition for log in again.logs] == [1]
    assert name in world.names()


def test_settings_are_changed_for_all_partitions_of_a_topic() -> None:
    manager = World().loaded()
    logs = [log_of(manager, partition) for partition in range(2)]
    manager.update_config("topic", config(segment_bytes=123))
    manager.update_config("other", config(segment_bytes=456))
    assert [log.config.segment_bytes for log in logs] == [123, 123]


def test_settings_are_known_while_loading() -> None:
    world = World()
    manager = world.loaded()
    append_values(log_of(manager), b"a")
    shut_down(manager)
    again = world.manager()
    anyio.run(lambda: again.load(lambda topic: config(segment_bytes=321)))
    log = again.get_log("topic", 0)
    assert log is not None and log.config.segment_bytes == 321


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


def test_a_directory_that_was_not_closed_well_gets_no_marker() -> None:
    files = FaultyFileSystem(MemoryFileSystem())
    world = World(files)
    manager = world.loaded()
    append_values(log_of(manager), b"a")
    files.fail_at = files.calls + 1
    shut_down(manager)
    assert ".kafka_cleanshutdown" not in world.names()
    log = world.loaded().get_log("topic", 0)
    assert log is not None and read_all(log) == [(0, b"a")]


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


def test_a_disk_that_fails_is_named_in_one_line() -> None:
    files = FaultyFileSystem(MemoryFileSystem())
    world = World(files)
    manager = world.manager()
    manager.open_directories()
    manager.open_directories()
    files.fail_at = files.calls + 1
    with pytest.raises(DataDirectoryError, match="/data cannot be written: "):
        manager.claim_directories("cluster", 1)
    append_values(log_of(manager), b"a")
    files.fail_at = files.calls + 1
    with pytest.raises(KafkaError) as caught:
        manager.delete_log("topic", 0)
    assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
    assert manager.get_log("topic", 0) is None
    shut_down(manager)


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


def test_a_manager_needs_a_directory() -> None:
    with pytest.raises(ValueError, match="data directory"):
        LogManager(
            MemoryFileSystem(),
            [],
            LogConfig(),
            ManualClock(),
            Timer(ManualClock()),
            InlineOffload(),
            SeededEntropy(1),
        )
