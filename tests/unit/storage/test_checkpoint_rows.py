"""Lines of the checkpoint are made anew for what changed, and cost little memory for the rest."""

import sys

import anyio
import pytest

from kbroker.storage import dormant_log
from kbroker.storage.dormant_log import rest
from kbroker.storage.indexes import IndexFile
from kbroker.storage.log_segment import LogSegment
from kbroker.storage.log_state import LogState
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.log_fixture import append_values
from tests.unit.storage.test_dormant_log import World, filled, log_of

CHECKPOINT = "/data/log-state-checkpoint"


def rows(world: World) -> dict[int, LogState]:
    lines = world.files.read(CHECKPOINT).decode().splitlines()[3:]
    states = map(LogState.parse, lines)
    return {state.partition: state for state in states}


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[UnifiedLog]:
    """The logs whose state is taken, in order."""
    found: list[UnifiedLog] = []
    state_of = dormant_log.state_of

    def note(log: UnifiedLog, now_ms: int | None) -> LogState | None:
        found.append(log)
        return state_of(log, now_ms)

    monkeypatch.setattr(dormant_log, "state_of", note)
    return found


def test_only_a_log_that_changed_is_looked_at_again(looked_at: list[UnifiedLog]) -> None:
    world = World()
    manager = filled(world)
    anyio.run(manager.checkpoint)
    assert len(looked_at) == 2
    looked_at.clear()
    first, second = log_of(manager), log_of(manager, 1)
    append_values(first, b"more")
    anyio.run(manager.checkpoint)
    assert looked_at == [first]
    assert rows(world)[0].log_end_offset == first.log_end_offset == 13
    second.roll()
    looked_at.clear()
    anyio.run(manager.checkpoint)
    assert looked_at == [second]
    assert rows(world)[1].segment_count == 2


def test_a_checkpoint_loads_no_index_of_a_short_log() -> None:
    world = World()
    manager = filled(world)
    segment = log_of(manager, 1).segments.active
    assert isinstance(segment, LogSegment)
    segment.release_file()
    anyio.run(manager.checkpoint)
    assert rows(world)[1].unsynced_bytes == segment.size
    assert not [name for name in segment.__slots__ if isinstance(getattr(segment, name), IndexFile)]


def test_a_log_that_rests_keeps_a_small_dictionary() -> None:
    world = World()
    manager = filled(world)
    log = log_of(manager)
    awake = sys.getsizeof(vars(log))
    assert rest(log)
    # A dictionary doubles at 22 names; ten thousand logs would notice.
    assert len(vars(log)) <= 21
    assert sys.getsizeof(vars(log)) < awake or awake < 512
    append_values(log, b"awake")
    assert log.log_end_offset == 13
