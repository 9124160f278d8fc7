"""The clocks."""

import time

import pytest

from kbroker.common.clock import ManualClock, SystemClock


def test_the_machines_clock():
    clock = SystemClock()
    first = clock.monotonic()
    assert clock.monotonic() >= first
    assert abs(clock.time_ms() - time.time() * 1000) < 60_000


def test_a_manual_clock_stands_still_until_it_is_moved():
    clock = ManualClock(monotonic=5.0, time_ms=1000)
    assert (clock.monotonic(), clock.time_ms()) == (5.0, 1000)
    clock.advance(1.5)
    assert (clock.monotonic(), clock.time_ms()) == (6.5, 2500)


def test_only_the_wall_clock_jumps():
    clock = ManualClock(monotonic=5.0, time_ms=1000)
    clock.set_time_ms(10)
    assert (clock.monotonic(), clock.time_ms()) == (5.0, 10)
    with pytest.raises(ValueError, match="go back"):
        clock.advance(-0.1)


def test_small_steps_add_up():
    clock = ManualClock(time_ms=0)
    for _ in range(1000):
        clock.advance(0.0001)
    assert clock.time_ms() in (99, 100)
