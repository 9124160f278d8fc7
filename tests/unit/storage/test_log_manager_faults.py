"""Every change of the disk goes wrong once, from the first start to a clean stop and beyond.

One script over a whole data directory: claim it, append to several segments of two partitions,
flush, checkpoint, roll, delete records, delete a topic, stop cleanly, start again, append. However
it ends, the next start opens the directory and finds every acknowledged record.
"""

import logging
from collections.abc import Callable

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.files import FileSystem
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.common.offload import InlineOffload
from kbroker.common.timer import Timer
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.storage.log_directory import DataDirectoryError
from kbroker.storage.log_manager import LogManager
from tests.sizes import size
from tests.unit.storage.closed_files import ClosedFilesOnly
from tests.unit.storage.faulty_files import FaultyFileSystem, Killed
from tests.unit.storage.log_fixture import append, append_values, batch, config, read_all

SETTINGS = config(
    segment_bytes=500, index_interval_bytes=150, retention_ms=-1, file_delete_delay_ms=0
)
STRIDE = size(ci=2, full=1)


class Broker:
    """What a broker does with its logs, and what it told its clients."""

    def __init__(self, files: FileSystem) -> None:
        self.files = files
        self.clock = ManualClock(time_ms=2_000_000)
        self.acked: dict[tuple[str, int], dict[int, bytes]] = {}
        self.log_starts: dict[tuple[str, int], int] = {}
        self.refused = 0
        self.is_started = False

    def manager(self) -> LogManager:
        manager = LogManager(
            self.files,
            ["/data"],
            LogConfig(),
            self.clock,
            Timer(self.clock),
            InlineOffload(),
            SeededEntropy(3),
            logging.getLogger("test"),
        )
        self.timer = manager._timer
        return manager

    async def attempt(self, work: object) -> None:
        """Clients and operators are told of an error; the broker goes on."""
        try:
            result = work()  # type: ignore[operator]
            if result is not None and hasattr(result, "__await__"):
                await result
        except (KafkaError, OSError):
            self.refused += 1

    def append(self, manager: LogManager, topic: str, partition: int, count: int) -> None:
        topic_id = topic.encode().ljust(16, b"\1")
        try:
            log = manager.get_or_create_log(topic, partition, topic_id, SETTINGS)
        except KafkaError:
            self.refused += 1
            return
        acked = self.acked.setdefault((topic, partition), {})
        for _ in range(count):
            offset = log.log_end_offset
            value = b"%s %d" % (topic.encode(), offset)
            try:
                if partition:
                    data = batch(value, producer_id=9, base_sequence=len(acked))
                    append(log, data)
                else:
                    append_values(log, value)
            except KafkaError:
                self.refused += 1
            else:
                acked[offset] = value

    def delete_records(self, manager: LogManager, topic: str, offset: int) -> None:
        log = manager.get_log(topic, 0)
        if log is not None and offset <= log.high_watermark:
            self.log_starts[topic, 0] = offset
            log.maybe_increment_log_start_offset(offset)

    async def background(self, manager: LogManager) -> None:
        self.clock.advance(2)
        self.timer.run_due()
        await manager.run_pending_jobs()

    async def run(self) -> None:
        manager = self.manager()
        manager.open_directories()
        manager.claim_directories("cluster", 1)
        await manager.load()
        self.append(manager, "first", 0, 12)
        self.append(manager, "second", 1, 9)
        self.append(manager, "gone", 0, 3)
        await self.background(manager)
        await self.attempt(manager.checkpoint)
        await self.attempt(lambda: self.delete_records(manager, "first", 7))
        await self.background(manager)
        manager.delete_old_segments()
        self.acked.pop(("gone", 0), None)
        await self.attempt(lambda: manager.delete_log("gone", 0))
        await self.background(manager)
        self.append(manager, "first", 0, 4)
        await manager.shutdown()
        manager = self.manager()
        await manager.load()
        self.append(manager, "first", 0, 3)
        self.append(manager, "second", 1, 3)
        await self.background(manager)
        await self.attempt(manager.checkpoint)
        await manager.shutdown(clean=False)

    async def check(self, files: FileSystem) -> None:
        self.files = files
        manager = self.manager()
        await manager.load()
        for (topic, partition), acked in self.acked.items():
            if not acked:
                continue
            log = manager.get_log(topic, partition)
            assert log is not None, f"{topic}-{partition} is gone"
            start = max(self.log_starts.get((topic, partition), 0), log.log_start_offset)
            found = dict(read_all(log))
            missing = {at for at, value in acked.items() if at >= start and found.get(at) != value}
            assert not missing, f"{log} has lost {sorted(missing)}"
            assert list(found) == list(range(log.log_start_offset, log.log_end_offset))
            assert log.log_start_offset <= self.log_starts.get((topic, partition), 0)
        self.append(manager, "first", 0, 2)
        await manager.shutdown()
        assert files.exists("/data/.kafka_cleanshutdown")


def is_death(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(is_death(each) for each in error.exceptions)
    return isinstance(error, Killed)


def run_once(
    fail_at: int, mode: str, make: Callable[[], MemoryFileSystem] = MemoryFileSystem
) -> Broker:
    """One run of the script and a look at what it left; the disk's locks and handles die with the
    process."""
    inner = make()
    broker = Broker(FaultyFileSystem(inner, fail_at=fail_at, mode=mode))

    async def main() -> None:
        try:
            await broker.run()
        except DataDirectoryError:
            broker.refused += 1
        except BaseException as error:
            if not is_death(error):
                raise
        inner._locked.clear()
        if isinstance(inner, ClosedFilesOnly):
            inner.open_handles.clear()
        await broker.check(inner)

    anyio.run(main)
    return broker


def count_calls(make: Callable[[], MemoryFileSystem] = MemoryFileSystem) -> int:
    files = FaultyFileSystem(make())
    broker = Broker(files)
    anyio.run(broker.run)
    assert broker.refused == 0
    assert sum(map(len, broker.acked.values())) == 31
    return files.calls


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["error", "short", "kill", "kill_mid", "kill_after"])
def test_a_data_directory_survives_every_fault(mode: str) -> None:
    calls = count_calls()
    assert calls > 150
    offset = sorted(["error", "short", "kill", "kill_mid", "kill_after"]).index(mode)
    visited = range(1 + offset % STRIDE, calls + 1, STRIDE)
    for fail_at in visited:
        try:
            run_once(fail_at, mode)
        except AssertionError as error:
            raise AssertionError(f"{mode} at change {fail_at}: {error}") from error
    print(f"{mode}: {len(visited)} of {calls} changes visited")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["error", "kill"])
def test_where_open_files_cannot_be_renamed_or_removed(mode: str) -> None:
    calls = count_calls(ClosedFilesOnly)
    assert calls > 150
    visited = range(1, calls + 1, size(ci=5, full=1))
    for fail_at in visited:
        run_once(fail_at, mode, ClosedFilesOnly)
    print(f"{mode}, open files cannot be renamed: {len(visited)} of {calls} changes visited")


def test_a_full_disk_refuses_appends_serves_reads_and_recovers() -> None:
    files = FaultyFileSystem(MemoryFileSystem())
    broker = Broker(files)

    async def main() -> None:
        manager = broker.manager()
        await manager.load()
        broker.append(manager, "first", 0, 5)
        log = manager.get_log("first", 0)
        assert log is not None
        files.is_full = True
        for _ in range(3):
            with pytest.raises(KafkaError) as caught:
                append_values(log, b"no room")
            assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
            await broker.attempt(manager.checkpoint)
            await broker.background(manager)
            assert len(read_all(log)) == 5
        assert manager.get_log("first", 0) is log
        assert manager.directories.all[0].failure is None
        files.is_full = False
        broker.append(manager, "first", 0, 8)
        broker.append(manager, "second", 0, 2)
        assert len(read_all(log)) == 13
        await broker.background(manager)
        await manager.checkpoint()
        await manager.shutdown()
        assert manager.directories.all[0].failure is None

    anyio.run(main)
    assert files.inner.exists("/data/.kafka_cleanshutdown")
    assert broker.refused == 3  # the checkpoints
