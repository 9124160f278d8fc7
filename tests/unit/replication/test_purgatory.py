"""The purgatory: no lost wake-up, completed once, nothing left behind."""

from collections.abc import Hashable

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.timer import Timer
from kbroker.replication.purgatory import WATCH_AT_ONCE, DelayedOperation, Purgatory


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Countdown(DelayedOperation[Hashable]):
    """Complete when ``ready`` says so; remembers with which keys it was tried."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = False
        self.tried: list[Hashable] = []

    def try_complete(self, key: Hashable) -> bool:
        self.tried.append(key)
        return self.ready


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timer = Timer(self.clock)
        self.purgatory: Purgatory[Hashable] = Purgatory("test", self.timer)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timer.run_due()


@pytest.mark.anyio
async def test_an_operation_that_can_complete_at_once_never_sleeps() -> None:
    world, operation = World(), Countdown()
    operation.ready = True
    await world.purgatory.wait(operation, ["a"], 10)
    assert operation.is_completed and not operation.is_expired
    assert world.purgatory.watched_keys == 0
    assert world.timer.pending == 0


@pytest.mark.anyio
async def test_a_change_between_the_first_look_and_the_wait_is_seen() -> None:
    """PERFORMANCE trap 1: the append comes after the handler looked and before the task runs."""
    world, operation = World(), Countdown()
    assert not operation.try_complete("a")
    waiting = world.purgatory.wait(operation, ["a"], 10)  # made, not started
    operation.ready = True
    assert world.purgatory.check_and_complete("a") == 0  # nobody is registered yet
    with anyio.fail_after(5):
        await waiting
    assert operation.is_completed and not operation.is_expired


@pytest.mark.anyio
async def test_a_change_of_a_watched_key_wakes_the_operation() -> None:
    world, operation = World(), Countdown()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.purgatory.wait, operation, ["a", "b", "a"], 10)
        await anyio.wait_all_tasks_blocked()
        assert world.purgatory.watched_keys == 2
        assert world.purgatory.check_and_complete("b") == 0
        assert world.purgatory.check_and_complete("other") == 0
        operation.ready = True
        assert world.purgatory.check_and_complete("b") == 1
        assert world.purgatory.check_and_complete("a") == 0  # completed once
    assert operation.tried == ["a", "b", "b", "b"]
    assert not operation.is_expired
    assert world.purgatory.watched_keys == 0
    assert world.timer.pending == 0


@pytest.mark.anyio
async def test_time_over_ends_the_wait() -> None:
    world, operation = World(), Countdown()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.purgatory.wait, operation, ["a"], 10)
        await anyio.wait_all_tasks_blocked()
        world.advance(9.9)
        await anyio.wait_all_tasks_blocked()
        assert not operation.is_completed
        world.advance(0.2)
    assert operation.is_expired and operation.is_completed
    assert world.purgatory.watched_keys == 0


@pytest.mark.anyio
async def test_a_completed_operation_does_not_expire() -> None:
    world, operation = World(), Countdown()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.purgatory.wait, operation, ["a"], 10)
        await anyio.wait_all_tasks_blocked()
        operation.ready = True
        world.purgatory.check_and_complete("a")
        world.advance(11)
    assert not operation.is_expired


@pytest.mark.anyio
async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    world, operation = World(), Countdown()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.purgatory.wait, operation, ["a", "b"], 10)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert world.purgatory.watched_keys == 0
    assert world.timer.pending == 0
    assert not operation.is_completed


@pytest.mark.anyio
async def test_only_the_waiters_of_the_changed_key_are_tried() -> None:
    world = World()
    operations = [Countdown() for _ in range(100)]
    async with anyio.create_task_group() as tasks:
        for number, operation in enumerate(operations):
            tasks.start_soon(world.purgatory.wait, operation, [number % 10], 10)
        await anyio.wait_all_tasks_blocked()
        assert world.purgatory.waiting(3) == 10
        world.purgatory.check_and_complete(3)
        assert sum(len(operation.tried) for operation in operations) == 100 + 10
        tasks.cancel_scope.cancel()
    assert world.purgatory.watched_keys == 0


@pytest.mark.anyio
async def test_registering_under_many_keys_gives_way_and_misses_nothing() -> None:
    world, operation = World(), Countdown()
    keys = range(5 * WATCH_AT_ONCE)

    async def change_the_first() -> None:
        operation.ready = True
        assert world.purgatory.check_and_complete(0) == 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.purgatory.wait, operation, keys, 10)
        tasks.start_soon(change_the_first)
    assert operation.is_completed and not operation.is_expired
    assert len(operation.tried) < len(keys)  # it went on no further
    assert world.purgatory.watched_keys == 0


@pytest.mark.anyio
async def test_what_is_complete_before_it_waits_does_not_wait() -> None:
    world, operation = World(), Countdown()
    operation.is_completed = True
    await world.purgatory.wait(operation, [], 10)
    assert operation.tried == []
