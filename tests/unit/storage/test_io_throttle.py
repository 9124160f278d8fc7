"""Bytes a second, on a clock that is moved by hand."""

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.timer import Timer
from kbroker.storage.io_throttle import IoThrottle

pytestmark = pytest.mark.anyio


class World:
    def __init__(self, bytes_per_s: float) -> None:
        self.clock = ManualClock()
        self.timer = Timer(self.clock)
        self.throttle = IoThrottle(self.clock, self.timer, bytes_per_s)
        self.moved = 0

    async def work(self, pieces: int, size: int) -> None:
        for _ in range(pieces):
            await self.throttle.moved(size)
            self.moved += size

    async def pass_time(self, seconds: float) -> None:
        await anyio.wait_all_tasks_blocked()
        for _ in range(round(seconds * 100)):
            self.clock.advance(0.01)
            self.timer.run_due()
            await anyio.wait_all_tasks_blocked()


async def test_no_more_than_the_rate_goes_through() -> None:
    world = World(1000)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.work, 50, 100)
        await world.pass_time(2)
        assert 1700 <= world.moved <= 2100
        await world.pass_time(3.2)
        assert world.moved == 5000


async def test_a_piece_larger_than_the_rate_is_paid_for_afterwards() -> None:
    world = World(100)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.work, 2, 500)
        await world.pass_time(4.5)
        assert world.moved == 0
        await world.pass_time(1)
        assert world.moved == 500
        await world.pass_time(5)
    assert world.moved == 1000


@pytest.mark.parametrize("rate", [0, float("inf"), 1.7976931348623157e308])
async def test_without_a_limit_nobody_waits(rate: float) -> None:
    world = World(rate)
    await world.work(1000, 1 << 30)
    assert world.timer.pending == 0


async def test_a_limit_that_is_lifted_counts_soon() -> None:
    world = World(1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.work, 3, 1_000_000)
        await world.pass_time(0.5)
        world.throttle.bytes_per_s = 0
        await world.pass_time(1.1)
        assert world.moved == 3_000_000


async def test_who_is_not_wanted_any_more_waits_no_longer() -> None:
    world = World(1)
    wanted = True

    async def work() -> None:
        await world.throttle.moved(1_000_000, lambda: wanted)
        world.moved += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await world.pass_time(3)
        assert world.moved == 0
        wanted = False
        await world.pass_time(1.1)
        assert world.moved == 1


async def test_what_was_left_to_pay_is_forgotten_with_its_rate() -> None:
    world = World(1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.throttle.moved, 1_000_000, lambda: False)
        await world.pass_time(0.1)
    world.throttle.bytes_per_s = 1000
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.work, 1, 500)
        await world.pass_time(0.6)
    assert world.moved == 500


async def test_nobody_waits_for_what_others_move_later() -> None:
    world = World(1000)

    async def work_on_and_on() -> None:
        while True:
            await world.throttle.moved(500)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.work, 1, 500)
        await anyio.wait_all_tasks_blocked()
        for _ in range(4):
            tasks.start_soon(work_on_and_on)
        await world.pass_time(0.6)
        assert world.moved == 500
        tasks.cancel_scope.cancel()
