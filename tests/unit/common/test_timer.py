"""The only sleeper."""

import logging
import random

import anyio
import pytest

from kbroker.common.clock import ManualClock, SystemClock
from kbroker.common.timer import Timer
from tests.sizes import size


@pytest.fixture
def clock():
    return ManualClock(monotonic=100.0)


@pytest.fixture
def timer(clock):
    return Timer(clock)


def test_callbacks_run_in_the_order_of_their_times(clock, timer):
    ran = []
    for delay in (3, 1, 2, 1):
        timer.schedule(delay, lambda delay=delay: ran.append(delay))
    assert (timer.pending, timer.next_deadline()) == (4, 101.0)
    assert timer.run_due() == 0
    clock.advance(2)
    assert timer.run_due() == 3
    assert ran == [1, 1, 2]
    assert timer.pending == 1


def test_equal_times_run_in_the_order_of_scheduling(clock, timer):
    ran = []
    for number in range(50):
        timer.schedule(1, lambda number=number: ran.append(number))
    clock.advance(1)
    timer.run_due()
    assert ran == list(range(50))


def test_a_cancelled_callback_never_runs(clock, timer):
    ran = []
    handle = timer.schedule(1, lambda: ran.append(1))
    handle.cancel()
    handle.cancel()
    assert (timer.pending, timer.next_deadline()) == (0, None)
    clock.advance(5)
    assert timer.run_due() == 0
    assert ran == []


def test_cancelling_after_the_run_changes_nothing(clock, timer):
    handle = timer.schedule(0, lambda: None)
    timer.run_due()
    handle.cancel()
    assert timer.pending == 0


def test_a_callback_may_cancel_another_that_is_due(clock, timer):
    ran = []
    later = []
    timer.schedule(1, lambda: later[0].cancel())
    later.append(timer.schedule(1, lambda: ran.append("cancelled")))
    timer.schedule(1, lambda: ran.append("third"))
    clock.advance(1)
    assert timer.run_due() == 2
    assert ran == ["third"]
    assert timer.pending == 0


def test_what_a_callback_schedules_runs_in_the_next_round(clock, timer):
    ran = []

    def again():
        ran.append(1)
        timer.schedule(0, again)

    timer.schedule(0, again)
    assert timer.run_due() == 1
    assert timer.run_due() == 1
    assert ran == [1, 1]


def test_a_failing_callback_does_not_stop_the_others(clock, caplog):
    timer = Timer(clock, logging.getLogger("kbroker.test"))
    ran = []
    timer.schedule(1, lambda: 1 / 0)
    timer.schedule(1, lambda: ran.append(1))
    clock.advance(1)
    assert timer.run_due() == 2
    assert ran == [1]
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


def test_cancelled_entries_do_not_pile_up(clock, timer):
    for _ in range(20):
        for handle in [timer.schedule(3600, lambda: None) for _ in range(1000)]:
            handle.cancel()
    assert timer.pending == 0
    assert len(timer._heap) <= 2000


def test_a_callback_may_cancel_very_many_that_are_due(clock, timer):
    handles = []
    timer.schedule(1, lambda: [handle.cancel() for handle in handles])
    handles += [timer.schedule(1, lambda: None) for _ in range(1000)]
    clock.advance(1)
    assert timer.run_due() == 1
    assert timer.pending == 0
    timer.schedule(1, lambda: None)
    assert timer.pending == 1


@pytest.mark.parametrize("seed", range(size(ci=10, full=300)))
def test_random_use_against_a_plain_list(seed):
    """Schedule, cancel from outside and from within, and pass time; the count stays right."""
    chance = random.Random(seed)
    clock = ManualClock()
    timer = Timer(clock)
    alive = {}
    ran = []

    def make(number, victims):
        def callback():
            ran.append(number)
            alive.pop(number)
            for victim in victims:
                if victim in alive:
                    alive.pop(victim)[1].cancel()

        return callback

    for number in range(1500):
        victims = chance.sample(range(number + 1), min(number + 1, chance.choice([0, 0, 0, 700])))
        deadline = clock.monotonic() + (delay := chance.choice([0, 1, 5, 50]))
        alive[number] = (deadline, timer.schedule(delay, make(number, victims)))
        if chance.random() < 0.3:
            victim = chance.choice(list(alive))
            alive.pop(victim)[1].cancel()
        if chance.random() < 0.05:
            clock.advance(chance.choice([0.5, 1, 10]))
            timer.run_due()
            assert timer.pending == len(alive)
            assert all(deadline > clock.monotonic() for deadline, _ in alive.values())
    assert len(ran) == len(set(ran))


@pytest.mark.anyio
@pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {}), ("asyncio", {"use_uvloop": True}), ("trio", {})],
    ids=["asyncio", "uvloop", "trio"],
)
async def test_the_task_wakes_for_what_is_scheduled_later_and_due_sooner(anyio_backend):
    timer = Timer(SystemClock())
    ran = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(timer.run)
        timer.schedule(3600, lambda: ran.append("late"))
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        done = anyio.Event()
        timer.schedule(0.001, lambda: ran.append("soon"))
        timer.schedule(0.002, done.set)
        with anyio.fail_after(10):
            await done.wait()
        tasks.cancel_scope.cancel()
    assert ran == ["soon"]
    assert timer.pending == 1
