"""When the loop stays awake for the next request, and when it goes to sleep."""

import os

import pytest

from kbroker.common.clock import ManualClock
from kbroker.network.busy_poll import BusyPoll
from tests.unit.network.peers import ECHO, PROTOCOL_KINDS, answer, request, settle, world

SPAN = 0.000_25
STEP = 0.000_05
"""What a turn of the loop takes here."""


class Loop:
    """Turns of a loop that runs what it was asked to."""

    def __init__(self):
        self.clock = ManualClock()
        self.asked = []
        self.poll = BusyPoll(SPAN, self.clock.monotonic, self.asked.append)

    @property
    def is_awake(self):
        return bool(self.asked)

    def turn(self):
        due, self.asked[:] = self.asked[:], []
        for callback in due:
            callback()

    def answer(self, count=1, pause=STEP):
        for _ in range(count):
            self.clock.advance(pause)
            self.turn()
            self.poll.answered()

    def turns_until_asleep(self):
        turns = 0
        while self.is_awake:
            self.clock.advance(STEP)
            self.turn()
            turns += 1
            assert turns < 100
        return turns

    def answer_until_awake(self):
        """The loop sleeps; how many answers it takes, the first having nothing to follow."""
        self.clock.advance(1.0)
        count = 0
        while not self.is_awake:
            self.answer()
            count += 1
        return count


def test_it_looks_when_answers_follow_each_other_closely():
    loop = Loop()
    loop.answer(4)
    assert not loop.is_awake, "the first followed none"
    loop.answer()
    assert loop.is_awake


def test_answers_are_close_that_had_to_wake_the_loop():
    loop = Loop()
    loop.answer(5, pause=SPAN * 1.15)
    assert loop.is_awake


def test_it_goes_to_sleep_a_span_after_the_last_answer():
    loop = Loop()
    loop.answer(40)
    assert 5 <= loop.turns_until_asleep() <= 6
    loop.answer(8, pause=SPAN * 1.3)
    assert not loop.is_awake


@pytest.mark.parametrize("pause", [SPAN * 1.21, 0.001, 1.0])
def test_it_never_looks_for_those_that_pause(pause):
    loop = Loop()
    for _ in range(200):
        loop.answer(1, pause=pause)
        assert not loop.is_awake


def test_one_pause_begins_the_count_anew():
    loop = Loop()
    for _ in range(50):
        loop.answer(4)
        loop.clock.advance(SPAN * 1.21)
        assert not loop.is_awake


def test_it_asks_for_one_look_in_each_turn():
    loop = Loop()
    for _ in range(100):
        loop.answer()
        assert len(loop.asked) <= 1


@pytest.mark.parametrize("burst", [5, 6, 8, 12])
@pytest.mark.parametrize("pause", [SPAN * 3, 0.01])
def test_looking_in_vain_takes_a_small_share_of_all_time(burst, pause):
    loop = Loop()
    in_vain = found = 0
    for _ in range(2_000):
        for _ in range(burst):
            found += loop.is_awake
            loop.answer()
        if loop.is_awake:
            in_vain += 1
            loop.turns_until_asleep()
        loop.clock.advance(pause)
    assert in_vain, "that it pays is tried now and then"
    assert in_vain * SPAN <= loop.clock.monotonic() * 0.005 + found * SPAN / 32 + SPAN


def test_what_looking_found_pays_for_looking_in_vain():
    loop = Loop()
    for _ in range(500):
        assert loop.answer_until_awake() == 5
        loop.answer(32)
        loop.turns_until_asleep()


def test_no_more_is_saved_up_than_a_moment_of_looking():
    loop = Loop()
    loop.answer(100_000)
    loop.turns_until_asleep()
    in_vain, start = 0, loop.clock.monotonic()
    for _ in range(1_000):
        loop.answer(5)
        if loop.is_awake:
            in_vain += 1
            loop.turns_until_asleep()
        loop.clock.advance(SPAN * 3)
    share = (loop.clock.monotonic() - start) * 0.005
    assert 16 <= in_vain <= 16 + share / SPAN + 1


def test_what_other_requests_took_is_no_time_of_looking():
    loop = Loop()
    loop.answer_until_awake()
    for _ in range(50):
        loop.answer(10)
        loop.clock.advance(SPAN * 20)
        loop.turn()
        loop.clock.advance(SPAN * 0.9)
        loop.turn()
        assert loop.is_awake
    assert loop.turns_until_asleep() <= 6


@pytest.mark.anyio
@pytest.mark.parametrize("kind", PROTOCOL_KINDS)
@pytest.mark.parametrize(("span", "processors"), [(60.0, 2), (60.0, 1), (0.0, 2)])
async def test_a_connection_alone_keeps_its_loop_awake(kind, span, processors, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)), raising=False)
    async with world(kind, busy_poll=span) as w:
        client = await w.connect()
        for number in range(40):
            data, expected = request(ECHO, number), answer(number)
            await client.send(data)
            assert await client.receive(len(expected)) == expected
        poll = w.server.write_batch.busy_poll
        if not span or processors == 1:
            assert poll is None
            return
        looks = []
        poll._look_again = lambda: looks.append(poll._look())
        await settle(20)
        assert len(looks) >= 10
