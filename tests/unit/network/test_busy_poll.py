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

    def closely_until_awake(self):
        """How many answers it takes; the first has nothing it could follow."""
        self.clock.advance(1.0)
        self.answer()
        count = 0
        while not self.is_awake:
            self.answer()
            count += 1
        return count


def test_it_looks_when_answers_follow_each_other_closely():
    loop = Loop()
    loop.answer(8)
    assert not loop.is_awake, "the first followed none"
    loop.answer()
    assert loop.is_awake


def test_it_goes_to_sleep_a_span_after_the_last_answer():
    loop = Loop()
    loop.answer(40)
    assert 5 <= loop.turns_until_asleep() <= 6
    loop.answer(8, pause=SPAN * 2)
    assert not loop.is_awake


@pytest.mark.parametrize("pause", [SPAN * 1.01, 0.001, 1.0])
def test_it_never_looks_for_those_that_pause(pause):
    loop = Loop()
    for _ in range(200):
        loop.answer(1, pause=pause)
        assert not loop.is_awake


def test_one_pause_begins_the_count_anew():
    loop = Loop()
    for _ in range(50):
        loop.answer(8)
        loop.clock.advance(SPAN * 1.01)
        assert not loop.is_awake


def test_it_asks_for_one_look_in_each_turn():
    loop = Loop()
    for _ in range(100):
        loop.answer()
        assert len(loop.asked) <= 1


def test_looking_in_vain_is_tried_less_and_less_often():
    loop = Loop()
    needed = []
    for _ in range(9):
        needed.append(loop.closely_until_awake())
        loop.turns_until_asleep()
    assert needed == [8, 16, 32, 64, 128, 256, 512, 512, 512]


def test_what_looking_found_makes_up_for_having_looked_in_vain():
    loop = Loop()
    for _ in range(5):
        loop.closely_until_awake()
        loop.turns_until_asleep()
    assert loop.closely_until_awake() == 256
    loop.answer(15)
    loop.turns_until_asleep()
    assert loop.closely_until_awake() == 512
    loop.answer(16)
    loop.turns_until_asleep()
    assert loop.closely_until_awake() == 8


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
