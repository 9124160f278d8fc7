"""Load, create, delete and close: all logs of a broker, and the directories they are in."""

import os
from pathlib import Path

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.files import OsFileSystem, Stamp, write_atomically
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.common.offload import InlineOffload
from kbroker.common.timer import Timer
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.storage.log_directory import DataDirectoryError
from kbroker.storage.log_manager import LogManager
from tests.unit.storage.faulty_files import FaultyFileSystem, Killed
from tests.unit.storage.log_fixture import (
    TOPIC_ID,
    append,
    append_values,
    batch,
    config,
    read_all,
    reload,
)
from tests.unit.storage.log_manager_world import OTHER_ID, World, log_of, shut_down


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


def test_who_still_holds_a_deleted_log_cannot_write_to_its_successor() -> None:
    manager = World().loaded()
    old = log_of(manager)
    append_values(old, b"old")
    manager.delete_log("topic", 0)
    new = manager.get_or_create_log("topic", 0, OTHER_ID, LogConfig())
    append_values(new, b"new")
    for write in (lambda: append_values(old, b"late"), lambda: anyio.run(old.flush)):
        with pytest.raises(KafkaError) as caught:
            write()
        assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
    assert read_all(reload(new)) == [(0, b"new")]


def test_a_start_that_is_interrupted_leaves_no_mark_of_a_clean_stop() -> None:
    changes = 0
    for mode in ("error", "kill_after"):
        world = World()
        manager = world.loaded()
        append_values(log_of(manager), b"a", b"b")
        shut_down(manager)
        assert ".kafka_cleanshutdown" in world.names()
        files = world.files
        world.files = faulty = FaultyFileSystem(files, fail_at=changes, mode=mode)
        if changes:
            with pytest.raises(Killed):
                world.loaded()
        else:
            world.loaded()
            changes = faulty.calls  # the last of them is where the second start dies
        world.files = files
        assert ".kafka_cleanshutdown" not in world.names()
    assert changes
