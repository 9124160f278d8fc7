"""A look at the end of a log finds what recovery finds, or leaves it to recovery."""

import logging
import random
from collections.abc import Callable

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.faults import Faults
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.common.offload import InlineOffload
from kbroker.common.timer import Timer
from kbroker.config.topic_config import LogConfig
from kbroker.storage import log_glance
from kbroker.storage.dormant_log import DormantLog
from kbroker.storage.log_manager import LogManager
from kbroker.storage.unified_log import UnifiedLog
from tests.sizes import size
from tests.unit.storage.log_fixture import TOPIC_ID, append, append_values, batch, read_all

PATH = "/data/topic-0/00000000000000000000.log"


class Plain(Faults):
    """Nothing planted that does anything, but every log is loaded at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.planted = "nothing"


def start(files: MemoryFileSystem, faults: Faults | None = None) -> LogManager:
    clock = ManualClock(time_ms=2_000_000)
    manager = LogManager(
        files,
        ["/data"],
        LogConfig(),
        clock,
        Timer(clock),
        InlineOffload(),
        SeededEntropy(5),
        logging.getLogger("test"),
        faults=faults or Faults(),
    )
    anyio.run(manager.load)
    return manager


def copy_of(files: MemoryFileSystem) -> MemoryFileSystem:
    copied = MemoryFileSystem()

    def copy(path: str) -> None:
        copied.make_directory(path)
        for entry in files.list(path):
            child = f"{path}/{entry.name}"
            if entry.is_directory:
                copy(child)
            else:
                copied.open(child, create=True).write_at(files.read(child), 0)

    copy("/data")
    return copied


def crashed(*, checkpoint_after: int | None, batches: int = 6) -> MemoryFileSystem:
    """A broker that died after so many batches, its checkpoint written in between or never."""
    files = MemoryFileSystem()
    manager = start(files)
    log = manager.get_or_create_log("topic", 0, TOPIC_ID, LogConfig())
    for number in range(batches):
        if number == checkpoint_after:
            anyio.run(manager.checkpoint)
        append_values(log, b"value %d" % number, leader_epoch=number // 3)
        append(log, batch(b"p", producer_id=3, base_sequence=number), leader_epoch=number // 3)
    anyio.run(lambda: manager.shutdown(clean=False))
    return files


def both(files: MemoryFileSystem) -> tuple[UnifiedLog, UnifiedLog, bool]:
    """The log as recovery finds it, as a look finds it, and whether it was left asleep."""
    recovered = start(copy_of(files), Plain()).get_log("topic", 0)
    looked_at = start(files).get_log("topic", 0)
    assert recovered is not None and looked_at is not None
    slept = type(looked_at) is DormantLog
    assert looked_at.log_end_offset == recovered.log_end_offset
    assert looked_at.log_start_offset == recovered.log_start_offset
    assert looked_at.latest_epoch == recovered.latest_epoch
    assert looked_at.earliest_epoch == recovered.earliest_epoch
    assert read_all(looked_at) == read_all(recovered)
    assert looked_at.epochs.entries() == recovered.epochs.entries()
    assert looked_at.producer_state.producers.keys() == recovered.producer_state.producers.keys()
    return recovered, looked_at, slept


@pytest.mark.parametrize("checkpoint_after", [None, 1, 3, 5])
def test_a_sound_end_is_enough(checkpoint_after: int | None) -> None:
    files = crashed(checkpoint_after=checkpoint_after)
    _, log, slept = both(files)
    assert slept
    assert log.log_end_offset == 12
    again = append(log, batch(b"p", producer_id=3, base_sequence=5), leader_epoch=1)
    assert again.duplicate


@pytest.mark.parametrize("checkpoint_after", [None, 5])
def test_a_torn_end_is_recovered_wherever_it_is_torn(checkpoint_after: int | None) -> None:
    whole = crashed(checkpoint_after=checkpoint_after)
    end = whole.size(PATH)
    for cut in range(1, 90, size(ci=7, full=1)):
        files = copy_of(whole) if checkpoint_after is None else crashed(checkpoint_after=5)
        files.open(PATH).truncate(end - cut)
        recovered, _, slept = both(files)
        assert recovered.log_end_offset < 12
        assert not slept or files.size(PATH) == recovered.size


def test_a_flipped_bit_is_never_overlooked() -> None:
    whole = crashed(checkpoint_after=None)
    data = whole.read(PATH)
    random_bytes = random.Random(4)
    for _ in range(size(ci=30, full=1000)):
        files = copy_of(whole)
        place = random_bytes.randrange(len(data))
        flipped = bytes([data[place] ^ 1 << random_bytes.randrange(8)])
        files.open(PATH).write_at(flipped, place)
        both(files)


def _transaction(log: UnifiedLog) -> None:
    append(log, batch(b"t", producer_id=8, base_sequence=0, transactional=True))


def _second_segment(log: UnifiedLog) -> None:
    log.roll()
    append_values(log, b"x", leader_epoch=1)


def _long(log: UnifiedLog) -> None:
    append_values(log, b"x" * 70_000, leader_epoch=1)


@pytest.mark.parametrize("change", [_transaction, _second_segment, _long])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_what_is_not_plain_is_left_to_recovery(
    change: Callable[[UnifiedLog], None], checkpoint: bool
) -> None:
    files = crashed(checkpoint_after=3)
    manager = start(files)
    log = manager.get_log("topic", 0)
    assert log is not None
    log.wake() if isinstance(log, DormantLog) else None
    if checkpoint:
        anyio.run(manager.checkpoint)
    else:
        files.remove("/data/log-state-checkpoint")
    change(log)
    end = log.log_end_offset
    anyio.run(lambda: manager.shutdown(clean=False))
    recovered, _, slept = both(files)
    assert recovered.log_end_offset == end
    assert not slept


def test_a_log_that_is_longer_than_the_look_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_glance, "MAX_BYTES", 100)
    _, _, slept = both(crashed(checkpoint_after=None))
    assert not slept


def test_a_log_without_a_topic_id_is_loaded() -> None:
    files = crashed(checkpoint_after=None)
    files.remove("/data/topic-0/partition.metadata")
    _, _, slept = both(files)
    assert not slept
