"""Logs that are not open: what they answer, what wakes them, and when they are not trusted."""

import logging
from collections.abc import Callable

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.common.offload import InlineOffload
from kbroker.common.timer import Timer
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.storage import dormant_log, log_shutdown
from kbroker.storage.dormant_log import DormantLog
from kbroker.storage.fetch_info import FetchIsolation
from kbroker.storage.log_manager import LogManager
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.log_fixture import TOPIC_ID, append, append_values, batch, config, read_all

SETTINGS = {"segment_bytes": 400, "retention_ms": -1}


class CountingFileSystem(MemoryFileSystem):
    """Knows which partitions' directories were looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.refuses = ""
        self.boots = 1

    def _look(self, path: str) -> None:
        if "/topic-" in path:
            self.opened.append(path)
            if self.refuses and path.startswith(self.refuses):
                raise OSError(5, "bad sector", path)

    def open(self, path: str, *, create: bool = False):  # type: ignore[no-untyped-def]
        self._look(path)
        return super().open(path, create=create)

    def list(self, path: str):  # type: ignore[no-untyped-def]
        self._look(path)
        return super().list(path)

    def read(self, path: str) -> bytes:
        self._look(path)
        return super().read(path)

    def memory_id(self) -> str:
        return f"boot {self.boots}"


class World:
    def __init__(self) -> None:
        self.files = CountingFileSystem()
        self.clock = ManualClock(time_ms=2_000_000)
        self.timer = Timer(self.clock)

    def start(self) -> LogManager:
        manager = LogManager(
            self.files,
            ["/data"],
            config(**SETTINGS),
            self.clock,
            self.timer,
            InlineOffload(),
            SeededEntropy(5),
            logging.getLogger("test"),
        )
        anyio.run(manager.load)
        return manager

    def restart(self, manager: LogManager, *, clean: bool = True) -> LogManager:
        if not clean:
            anyio.run(manager.checkpoint)
        anyio.run(lambda: manager.shutdown(clean=clean))
        self.files.opened.clear()
        return self.start()


def log_of(manager: LogManager, partition: int = 0, **settings: object) -> UnifiedLog:
    log_config = config(**{**SETTINGS, **settings})
    return manager.get_or_create_log("topic", partition, TOPIC_ID, log_config)


def filled(world: World) -> LogManager:
    manager = world.start()
    append_values(log_of(manager), *(b"value %d" % number for number in range(12)))
    append(log_of(manager, 1), batch(b"x", producer_id=4, base_sequence=0))
    return manager


def is_asleep(manager: LogManager, partition: int = 0) -> bool:
    return type(manager.get_log("topic", partition)) is DormantLog


@pytest.mark.parametrize("clean", [True, False])
def test_a_start_opens_nothing_that_did_not_change(clean: bool) -> None:
    world = World()
    manager = world.restart(filled(world), clean=clean)
    assert world.files.opened == []
    assert is_asleep(manager) and is_asleep(manager, 1)
    log = log_of(manager)
    assert (log.log_start_offset, log.high_watermark, log.log_end_offset) == (0, 12, 12)
    assert log.last_stable_offset == 12
    assert log.has_files
    assert log.size > 12 * 60
    log.maybe_assign_epoch_start_offset(log.latest_epoch, log.log_end_offset)
    log.update_high_watermark(12)
    assert (
        len(
            log.read(
                12, max_bytes=1, isolation=FetchIsolation.LOG_END, min_one_message=True
            ).records
        )
        == 0
    )
    assert world.files.opened == []
    again = world.restart(manager, clean=clean)
    assert world.files.opened == []
    assert len(read_all(log_of(again))) == 12


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(
    "touch",
    [
        lambda log: append_values(log, b"more"),
        read_all,
        lambda log: log.epochs,
        lambda log: log.producer_state,
        lambda log: log.end_offset_for_epoch(0),
        lambda log: log.maybe_increment_log_start_offset(2),
        lambda log: log.truncate_to(5),
        lambda log: log.offset_for_timestamp(0),
        lambda log: list(log.read_batches(0)),
        lambda log: log.roll(),
    ],
)
def test_any_touch_of_the_files_wakes_the_log(
    touch: Callable[[UnifiedLog], object], clean: bool
) -> None:
    world = World()
    first = filled(world)
    expected = World()
    twin = log_of(filled(expected))
    touch(twin)
    manager = world.restart(first, clean=clean)
    log = log_of(manager)
    touch(log)
    assert type(log) is UnifiedLog
    assert (log.log_start_offset, log.log_end_offset) == (
        twin.log_start_offset,
        twin.log_end_offset,
    )
    assert read_all(log) == read_all(twin)
    assert log.epochs.entries() == twin.epochs.entries()
    assert is_asleep(manager, 1)


def test_producers_are_known_after_waking() -> None:
    world = World()
    manager = filled(world)
    for clean in (True, False, True):
        manager = world.restart(manager, clean=clean)
        log = log_of(manager, 1)
        assert append(log, batch(b"x", producer_id=4, base_sequence=0)).duplicate
        assert log.log_end_offset == 1


def test_what_was_written_after_the_checkpoint_is_recovered() -> None:
    world = World()
    manager = filled(world)
    anyio.run(manager.checkpoint)
    append_values(log_of(manager), b"late")
    anyio.run(lambda: manager.shutdown(clean=False))
    for _ in range(2):
        again = world.start()
        assert log_of(again).log_end_offset == 13
        assert is_asleep(again) and is_asleep(again, 1)
        assert read_all(log_of(again))[-1] == (12, b"late")
        again = world.restart(again, clean=False)
        anyio.run(lambda manager=again: manager.shutdown(clean=False))


@pytest.mark.parametrize("name", ["00000000000000000099.log", "00000000000000000099.swap"])
def test_a_directory_with_a_new_name_in_it_is_loaded(name: str) -> None:
    world = World()
    manager = filled(world)
    anyio.run(manager.shutdown)
    MemoryFileSystem.open(world.files, f"/data/topic-1/{name}", create=True)
    again = world.start()
    assert is_asleep(again)
    assert not is_asleep(again, 1)


def test_a_segment_of_another_size_is_loaded_even_after_a_clean_stop() -> None:
    world = World()
    manager = filled(world)
    anyio.run(manager.shutdown)
    path = "/data/topic-1/00000000000000000000.log"
    file = MemoryFileSystem.open(world.files, path)
    file.write_at(file.read_at(file.size(), 0), 0)  # the same bytes, by somebody else
    assert not is_asleep(world.start(), 1)


def test_unsynced_data_is_looked_at_when_the_machine_went_down() -> None:
    world = World()
    manager = filled(world)
    anyio.run(log_of(manager, 1).flush)
    anyio.run(manager.checkpoint)
    anyio.run(lambda: manager.shutdown(clean=False))
    world.files.boots += 1
    again = world.start()
    assert not is_asleep(again)
    assert is_asleep(again, 1)  # was synced
    assert len(read_all(log_of(again))) == 12


def test_a_long_recovery_is_not_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dormant_log, "MAX_LATE_RECOVERY_BYTES", 100)
    world = World()
    manager = world.restart(filled(world), clean=False)
    assert not is_asleep(manager)
    assert is_asleep(manager, 1)


def test_an_open_transaction_keeps_a_log_awake() -> None:
    world = World()
    manager = filled(world)
    append(
        log_of(manager, 1),
        batch(b"t", producer_id=9, base_sequence=0, transactional=True),
    )
    for clean in (True, False):
        manager = world.restart(manager, clean=clean)
        assert not is_asleep(manager, 1)
        assert log_of(manager, 1).last_stable_offset == 1


def test_a_disk_that_refuses_leaves_the_log_asleep() -> None:
    world = World()
    manager = world.restart(filled(world))
    world.files.refuses = "/data/topic-0/"
    log = log_of(manager)
    for _ in range(2):
        with pytest.raises(KafkaError) as caught:
            read_all(log)
        assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
        assert type(log) is DormantLog
        assert log.log_end_offset == 12
    world.files.refuses = ""
    assert len(read_all(log)) == 12


def test_a_new_epoch_is_noted_without_waking_and_kept_with_the_next_record() -> None:
    world = World()
    manager = world.restart(filled(world))
    log = log_of(manager)
    log.maybe_assign_epoch_start_offset(6, 12)
    assert log.latest_epoch == 6
    earliest = log.earliest_epoch
    assert earliest is not None and earliest.start_offset == 0
    assert type(log) is DormantLog
    append_values(log, b"more", leader_epoch=6)
    assert [tuple(entry) for entry in log.epochs.entries()] == [(0, 0), (6, 12)]
    again = world.restart(manager)
    assert log_of(again).latest_epoch == 6


def test_retention_wakes_only_what_it_deletes_from() -> None:
    world = World()
    manager = world.restart(filled(world))
    assert manager.delete_old_segments() == 0
    assert is_asleep(manager) and is_asleep(manager, 1)
    log_of(manager, 0, retention_ms=1000)
    log_of(manager, 1, retention_bytes=10_000)
    world.clock.advance(5)
    assert manager.delete_old_segments() > 1
    assert not is_asleep(manager)
    assert is_asleep(manager, 1)


def test_a_dormant_log_is_deleted_and_flushed_like_any_other() -> None:
    world = World()
    manager = world.restart(filled(world), clean=False)
    log = log_of(manager)
    anyio.run(log.flush)
    assert log.recovery_point == 12
    manager.delete_log("topic", 1)
    assert "topic-1" not in {entry.name for entry in world.files.list("/data")}
    assert manager.get_log("topic", 1) is None


def test_a_topic_id_that_was_assigned_late_is_in_the_line() -> None:
    world = World()
    manager = world.restart(filled(world))
    log = log_of(manager)
    assert isinstance(log, DormantLog)
    log.assign_topic_id(bytes(16 * [9]))
    assert log.state.topic_id == bytes(16 * [9])


def test_other_attributes_are_missing_as_ever() -> None:
    world = World()
    log = log_of(world.restart(filled(world)))
    with pytest.raises(AttributeError):
        log.nonsense  # type: ignore[attr-defined]  # noqa: B018
    assert isinstance(log, DormantLog)


def test_a_file_system_without_a_memory_id_trusts_only_what_is_synced() -> None:
    class Forgetful(CountingFileSystem):
        def memory_id(self) -> str:
            return ""

    world = World()
    world.files = Forgetful()
    manager = filled(world)
    anyio.run(log_of(manager, 1).flush)
    again = world.restart(manager, clean=False)
    assert not is_asleep(again)
    assert is_asleep(again, 1)
    files = world.files
    assert files.exists("/data/log-state-checkpoint")


def idle(manager: LogManager, times: int) -> None:
    for _ in range(times):
        manager.env.open_files.close_idle()
        anyio.run(manager.rest_idle_logs)


def test_a_log_that_is_not_used_comes_to_rest_and_wakes_with_its_producers() -> None:
    world = World()
    manager = filled(world)
    idle(manager, 2)
    assert not is_asleep(manager, 1)
    idle(manager, 2)
    assert is_asleep(manager) and is_asleep(manager, 1)
    log = log_of(manager, 1)
    assert log.recovery_point == 0  # it was not synced, and resting does not make it so
    assert append(log, batch(b"x", producer_id=4, base_sequence=0)).duplicate
    append(log, batch(b"y", producer_id=4, base_sequence=1))
    assert (log.log_end_offset, log.recovery_point) == (2, 0)
    assert len(manager.env.open_files) == 1
    again = world.restart(manager, clean=False)
    assert len(read_all(log_of(again))) == 12
    assert append(log_of(again, 1), batch(b"y", producer_id=4, base_sequence=1)).duplicate


def test_a_resting_log_that_was_not_synced_is_synced_by_a_clean_stop() -> None:
    world = World()
    manager = filled(world)
    idle(manager, 4)
    assert is_asleep(manager)
    anyio.run(manager.shutdown)
    world.files.boots += 1
    again = world.start()
    assert is_asleep(again)
    assert log_of(again).recovery_point == 12


def test_a_log_in_use_does_not_rest() -> None:
    world = World()
    manager = filled(world)
    for number in range(6):
        append_values(log_of(manager), b"%d" % number)
        idle(manager, 1)
    assert not is_asleep(manager)
    assert is_asleep(manager, 1)


def test_what_must_stay_awake_does() -> None:
    world = World()
    manager = filled(world)
    log_of(manager, 0, cleanup_policy="compact")
    append(log_of(manager, 1), batch(b"t", producer_id=9, transactional=True))
    idle(manager, 5)
    assert not is_asleep(manager) and not is_asleep(manager, 1)


@pytest.mark.parametrize("refuses", [False, True])
def test_many_logs_are_synced_with_their_volume(
    refuses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_shutdown, "_MOST_SYNCED_ONE_BY_ONE", 3)
    world = World()
    manager = filled(world)
    for partition in range(2, 8):
        append_values(log_of(manager, partition), b"v")
    idle(manager, 4)
    append_values(log_of(manager, 7), b"v")
    assert is_asleep(manager, 2) and not is_asleep(manager, 7)
    synced: list[str] = []

    def sync_volume(path: str) -> bool:
        if refuses:
            raise OSError(5, "bad")
        synced.append(path)
        return True

    monkeypatch.setattr(world.files, "sync_volume", sync_volume)
    anyio.run(manager.shutdown)
    assert synced == ([] if refuses else ["/data"])
    assert world.files.exists("/data/.kafka_cleanshutdown") is not refuses
    world.files.boots += 1
    again = world.start()
    assert len(read_all(log_of(again, 7))) == 2
    for partition in range(2, 7):
        assert is_asleep(again, partition) is not refuses
        assert log_of(again, partition).log_end_offset == 1
