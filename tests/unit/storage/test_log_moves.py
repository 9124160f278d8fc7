"""Logs that move to another data directory: the copy, the swap, and whatever comes between."""

import logging

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.files import FileSystem
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.common.offload import InlineOffload
from kbroker.common.timer import Timer
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.storage.log_cleaner import LogCleaner
from kbroker.storage.log_directory import DataDirectoryError
from kbroker.storage.log_manager import LogManager
from kbroker.storage.log_moves import NO_LIMIT
from kbroker.storage.unified_log import UnifiedLog
from tests.sizes import size
from tests.unit.storage.faulty_files import FaultyFileSystem, Killed
from tests.unit.storage.log_fixture import (
    TOPIC_ID,
    append,
    append_values,
    batch,
    config,
    marker,
    read_all,
)

SETTINGS = config(segment_bytes=400, index_interval_bytes=150, file_delete_delay_ms=0)
KEY = ("topic", 0)


class World:
    def __init__(self, files: FileSystem | None = None) -> None:
        self.files = files if files is not None else MemoryFileSystem()
        self.clock = ManualClock(time_ms=2_000_000)
        self.timer = Timer(self.clock)
        self.replaced: list[UnifiedLog] = []

    def manager(self) -> LogManager:
        manager = LogManager(
            self.files,
            ["/one", "/two"],
            SETTINGS,
            self.clock,
            self.timer,
            InlineOffload(),
            SeededEntropy(5),
            logging.getLogger("test"),
        )
        manager.on_log_replaced = self.replaced.append
        return manager

    def start(self) -> LogManager:
        manager = self.manager()
        anyio.run(manager.load)
        return manager

    def settle(self, manager: LogManager) -> None:
        """Removals that are due are done."""
        self.clock.advance(1)
        self.timer.run_due()
        anyio.run(manager.run_pending_jobs)

    def names(self, path: str) -> list[str]:
        return sorted(entry.name for entry in self.files.list(path) if entry.is_directory)


def log_of(manager: LogManager) -> UnifiedLog:
    return manager.get_or_create_log(*KEY, TOPIC_ID, SETTINGS)


def filled(manager: LogManager) -> UnifiedLog:
    log = log_of(manager)
    for number in range(12):
        append_values(log, b"value %d" % number, leader_epoch=number // 5)
    append(log, batch(b"i", producer_id=3, base_sequence=0), leader_epoch=2)
    return log


def begin(manager: LogManager, path: str = "/two") -> None:
    manager.moves.begin(log_of(manager), manager.directories.find(path))


def test_a_log_moves_with_all_it_knows() -> None:
    world = World()
    manager = world.start()
    before = filled(manager)
    before.maybe_increment_log_start_offset(3)
    before.maybe_assign_epoch_start_offset(7, before.log_end_offset)
    expected = read_all(before)
    begin(manager)
    move = manager.moves.get(*KEY)
    assert move is not None and move.future.size == 0
    anyio.run(manager.movers.run_pending)
    log = log_of(manager)
    assert log is not before and world.replaced == [log]
    assert manager.moves.get(*KEY) is None
    assert log.directory == "/two/topic-0"
    assert (log.log_start_offset, log.high_watermark, log.log_end_offset) == (3, 13, 13)
    assert read_all(log) == expected
    assert log.latest_epoch == 7
    assert log.epochs.end_offset_for(1, 13) == before.epochs.end_offset_for(1, 13)
    assert append(log, batch(b"i", producer_id=3, base_sequence=0), leader_epoch=7).duplicate
    append_values(log, b"on", leader_epoch=7)
    world.settle(manager)
    assert (world.names("/one"), world.names("/two")) == ([], ["topic-0"])
    anyio.run(manager.shutdown)
    again = world.start()
    assert read_all(log_of(again))[-1] == (13, b"on")
    assert again.directory_of(*KEY) is again.directories.find("/two")


def test_appends_go_on_while_a_log_is_copied() -> None:
    world = World()
    manager = world.start()
    filled(manager)
    begin(manager)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(manager.movers.run_pending)
            for number in range(10):
                append_values(log_of(manager), b"late %d" % number, leader_epoch=2)
                await anyio.lowlevel.checkpoint()

    anyio.run(main)
    log = log_of(manager)
    assert log.directory == "/two/topic-0"
    assert [value for _, value in read_all(log)][-10:] == [b"late %d" % n for n in range(10)]


def test_an_open_transaction_moves_too() -> None:
    world = World()
    manager = world.start()
    log = filled(manager)
    append(log, batch(b"t", producer_id=8, transactional=True), leader_epoch=2)
    append(log, batch(b"a", producer_id=9, transactional=True), leader_epoch=2)
    append(log, marker(commit=False, producer_id=9), leader_epoch=2)
    begin(manager)
    anyio.run(manager.movers.run_pending)
    moved = log_of(manager)
    assert moved is not log
    assert moved.last_stable_offset == 13
    append(moved, marker(commit=True, producer_id=8), leader_epoch=2)
    assert moved.last_stable_offset == moved.log_end_offset == 17
    found = [entry.producer_id for each in moved.segments for entry in each.transaction_index]
    assert found == [9]


@pytest.mark.parametrize("emptied", [False, True])
def test_an_empty_log_moves(emptied: bool) -> None:
    world = World()
    manager = world.start()
    log = log_of(manager)
    if emptied:
        append_values(log, b"a", b"b")
        log.truncate_fully_and_start_at(2)
    else:
        log.maybe_assign_epoch_start_offset(4, 0)
    begin(manager)
    anyio.run(manager.movers.run_pending)
    moved = log_of(manager)
    assert manager.directory_of(*KEY) is manager.directories.find("/two")
    assert moved.log_end_offset == (2 if emptied else 0)
    assert moved.latest_epoch == (-1 if emptied else 4)
    append_values(moved, b"c", leader_epoch=4)
    anyio.run(lambda: manager.shutdown(clean=False))
    again = log_of(world.start())
    assert again.directory == "/two/topic-0"
    assert read_all(again) == [(2 if emptied else 0, b"c")]


def test_a_log_on_its_way_is_not_compacted() -> None:
    """Else a tombstone could go between the copy of the value that it deletes and its own."""
    world = World()
    manager = world.start()
    compacted = config(segment_bytes=200, cleanup_policy=("compact",), file_delete_delay_ms=0)
    log = manager.get_or_create_log(*KEY, TOPIC_ID, compacted)
    for number in range(12):
        append(log, batch(b"%d" % number, keys=[b"k"]))
    cleaner = manager.cleaner.make_cleaner()
    found = cleaner.choose([log], lambda _: None)
    assert found is not None
    manager.moves.begin(log, manager.directories.find("/two"))
    assert cleaner.choose([log], lambda _: None) is None
    assert anyio.run(cleaner.clean, found) is None
    assert len(read_all(log)) == 12
    manager.moves.cancel(KEY)
    assert anyio.run(manager.cleaner.clean_logs, cleaner) == 1
    reached = manager.cleaner.cleaned[KEY]
    left = read_all(log)
    manager.moves.begin(log, manager.directories.find("/two"))
    anyio.run(manager.movers.run_pending)
    log = manager.get_or_create_log(*KEY, TOPIC_ID, compacted)
    assert log.directory == "/two/topic-0" and read_all(log) == left
    for number in range(6):
        append(log, batch(b"%d" % number, keys=[b"k"]))
    assert anyio.run(manager.cleaner.clean_logs, manager.cleaner.make_cleaner()) == 1
    assert len(read_all(log)) < len(left) + 6
    assert world.files.read("/one/cleaner-offset-checkpoint") == b"0\n0\n"
    anyio.run(manager.shutdown)
    assert world.start().cleaner.cleaned[KEY] > reached


def test_a_round_over_a_log_that_has_moved_meanwhile_ends() -> None:
    world = World()
    manager = world.start()
    compacted = config(segment_bytes=200, cleanup_policy=("compact",), file_delete_delay_ms=0)
    log = manager.get_or_create_log(*KEY, TOPIC_ID, compacted)
    for number in range(12):
        append(log, batch(b"%d" % number, keys=[b"k"]))

    class Moving(LogCleaner):
        async def _give_way(self, moved: int) -> None:
            if manager.get_log(*KEY) is log:
                manager.moves.begin(log, manager.directories.find("/two"))
                await manager.movers.run_pending()

    cleaner = Moving(log.env)
    found = cleaner.choose([log], lambda _: None)
    assert found is not None
    assert anyio.run(cleaner.clean, found) is None
    now = manager.get_log(*KEY)
    assert now is not None and now is not log and not now.is_moving
    assert now.directory == "/two/topic-0" and len(read_all(now)) == 12
    assert log.failure is None
    assert anyio.run(manager.cleaner.clean_logs, manager.cleaner.make_cleaner()) == 1


def test_another_destination_and_a_way_back() -> None:
    world = World()
    manager = world.start()
    filled(manager)
    begin(manager)
    first = manager.moves.get(*KEY)
    begin(manager)
    assert manager.moves.get(*KEY) is first
    begin(manager, "/one")  # where it is: the move is off
    assert manager.moves.get(*KEY) is None
    anyio.run(manager.movers.run_pending)
    world.settle(manager)
    assert (world.names("/one"), world.names("/two")) == (["topic-0"], [])


def test_a_deleted_topic_takes_its_copy_along() -> None:
    world = World()
    manager = world.start()
    filled(manager)
    begin(manager)
    manager.delete_log(*KEY)
    anyio.run(manager.movers.run_pending)
    world.settle(manager)
    assert (world.names("/one"), world.names("/two")) == ([], [])


def test_a_directory_that_fails_ends_the_move() -> None:
    world = World()
    manager = world.start()
    filled(manager)
    begin(manager)
    manager._fail_directory(manager.directories.find("/two"), OSError(5, "bad"))
    world.timer.run_due()
    assert manager.moves.get(*KEY) is None
    anyio.run(manager.movers.run_pending)
    assert log_of(manager).directory == "/one/topic-0"
    with pytest.raises(KafkaError) as caught:
        begin(manager)
    assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
    with pytest.raises(KafkaError) as caught:
        begin(manager, "/three")
    assert caught.value.error_code is ErrorCode.LOG_DIR_NOT_FOUND


def test_retention_may_overtake_the_copy() -> None:
    world = World()
    manager = world.start()
    log = filled(manager)
    begin(manager)
    move = manager.moves.get(*KEY)
    assert move is not None
    anyio.run(manager.moves._step, log, move)
    for number in range(20):
        append_values(log, b"more %d" % number, leader_epoch=2)
    log.maybe_increment_log_start_offset(30)
    expected = read_all(log)
    anyio.run(manager.movers.run_pending)
    moved = log_of(manager)
    assert moved.directory == "/two/topic-0"
    assert read_all(moved) == expected
    assert moved.log_start_offset == 30


def run_script(files: FileSystem, acked: dict[int, bytes]) -> None:
    """Fill, move, write on; what was acknowledged is in ``acked``."""
    world = World(files)
    manager = world.manager()

    async def main() -> None:
        await manager.load()
        log = log_of(manager)
        for number in range(8):
            append_values(log, b"value %d" % number)
            acked[number] = b"value %d" % number
        begin(manager)
        await manager.movers.run_pending()
        for number in range(8, 11):
            append_values(log_of(manager), b"value %d" % number)
            acked[number] = b"value %d" % number
        world.clock.advance(1)
        world.timer.run_due()
        await manager.run_pending_jobs()
        await manager.shutdown(clean=False)

    anyio.run(main)


def is_death(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(is_death(each) for each in error.exceptions)
    return isinstance(error, Killed)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["kill", "kill_mid", "kill_after", "full", "error"])
def test_a_fault_at_every_change_of_a_move_loses_nothing(mode: str) -> None:
    counting = FaultyFileSystem(MemoryFileSystem())
    run_script(counting, {})
    visited = range(1, counting.calls + 1, size(ci=2, full=1))
    for fail_at in visited:
        inner = MemoryFileSystem()
        acked: dict[int, bytes] = {}
        try:
            run_script(FaultyFileSystem(inner, fail_at=fail_at, mode=mode), acked)
        except (KafkaError, DataDirectoryError):
            pass  # a client, or whoever started it, was told
        except BaseException as error:
            if not is_death(error):
                raise
        inner._locked.clear()
        world = World(inner)
        again = world.start()
        anyio.run(again.movers.run_pending)  # one that was under way begins anew
        found = again.get_log(*KEY)
        assert found is not None or not acked, f"{mode} at change {fail_at}: the log is gone"
        if found is not None:
            lost = {at: acked[at] for at in acked if dict(read_all(found)).get(at) != acked[at]}
            assert not lost, f"{mode} at change {fail_at}"
        world.settle(again)
        left = [name for path in ("/one", "/two") for name in world.names(path)]
        assert left in ([], ["topic-0"]), f"{mode} at change {fail_at}: {left}"
    print(f"{mode}: {len(visited)} of {counting.calls} changes visited")


@pytest.mark.anyio
async def test_a_move_keeps_to_the_rate_that_is_set() -> None:
    world = World()
    manager = world.manager()
    await manager.load()
    filled(manager)
    total = log_of(manager).size
    manager.moves.set_rate(100)
    begin(manager)
    copied: list[int] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(manager.movers.run_pending)
        for _ in range(4):
            await _pass(world, 1)
            move = manager.moves.get(*KEY)
            assert move is not None, "it would take longer than that"
            copied.append(move.future.size)
        assert copied == sorted(copied) and 0 < copied[-1] <= 5 * 100 < total
        manager.moves.set_rate(NO_LIMIT)
        await _pass(world, 1.5)
    assert manager.moves.get(*KEY) is None
    assert (log_of(manager).directory, log_of(manager).size) == ("/two/topic-0", total)


async def _pass(world: World, seconds: float) -> None:
    await anyio.wait_all_tasks_blocked()
    for _ in range(round(seconds * 20)):
        world.clock.advance(0.05)
        world.timer.run_due()
        await anyio.wait_all_tasks_blocked()


@pytest.mark.anyio
async def test_a_slow_move_ends_soon_when_it_is_called_off() -> None:
    """Also while the rate lets nothing through: the next move waits for the end of this one."""
    world = World()
    manager = world.manager()
    await manager.load()
    log = filled(manager)
    manager.moves.set_rate(0)
    begin(manager)
    is_over = anyio.Event()

    async def move() -> None:
        await manager.movers.run_pending()
        is_over.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(move)
        await _pass(world, 1)
        assert not is_over.is_set()
        manager.moves.cancel(KEY)
        await _pass(world, 1.5)
        assert is_over.is_set()
        tasks.cancel_scope.cancel()
    assert log_of(manager) is log
    world.clock.advance(1)
    world.timer.run_due()
    await manager.run_pending_jobs()
    assert world.names("/two") == []
