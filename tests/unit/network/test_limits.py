"""Budget and pool."""

import pytest

from kbroker.network.limits import BufferPool, ByteBudget, NetworkLimits

STEP = 65_536


class Owner:
    def __init__(self, budget: ByteBudget, wanted: int, log: list[str], name: str) -> None:
        self.budget, self.wanted, self.log, self.name = budget, wanted, log, name

    def ask(self) -> bool:
        granted = self.budget.try_hold(self, self.wanted)
        self.log.append(f"{self.name}{'+' if granted else '-'}")
        return granted

    def on_room(self) -> None:
        self.ask()


def test_those_who_wait_are_served_in_order():
    budget, log = ByteBudget(100), []
    budget.hold(90)
    big, a, b, c = (Owner(budget, n, log, x) for x, n in zip("XABC", (50, 20, 20, 20), strict=True))
    assert big.ask(), "the first may exceed"
    assert not a.ask()
    assert not b.ask()
    assert not c.ask()
    assert budget.is_crowded
    log.clear()
    budget.release(60)  # 80 left
    assert log == ["A+", "B-"]
    log.clear()
    budget.release(20)
    assert log == ["B+", "C-"]
    budget.forget(big)
    assert log[-1] == "C+", "now another may exceed"
    assert not budget.is_crowded


def test_the_one_that_exceeds_may_go_on():
    budget, log = ByteBudget(100), []
    budget.hold(100)
    owner = Owner(budget, 30, log, "A")
    assert owner.ask()
    assert owner.ask()
    assert budget.used == 160


def test_nobody_passes_those_who_wait():
    budget, log = ByteBudget(100), []
    Owner(budget, 150, log, "X").ask()
    waiting, small = Owner(budget, 80, log, "A"), Owner(budget, 1, log, "B")
    assert not waiting.ask()
    budget.used = 50
    assert not small.ask()


def test_a_waiting_owner_asks_once_and_can_leave():
    budget, log = ByteBudget(10), []
    first = Owner(budget, 20, log, "X")
    first.ask()
    gone = Owner(budget, 20, log, "A")
    gone.ask()
    gone.ask()
    budget.forget(gone)
    assert not budget.is_crowded
    log.clear()
    budget.forget(first)
    assert log == []


def test_the_pool_gives_back_what_it_was_given():
    pool = BufferPool(10 * STEP)
    buffer = pool.take(STEP + 1)
    assert len(buffer) == 2 * STEP
    assert pool.give(buffer)
    assert pool.take(2 * STEP) is buffer
    assert pool.take(2 * STEP) is not buffer


def test_the_pool_refuses_what_is_still_seen():
    pool = BufferPool(10 * STEP)
    buffer = pool.take(STEP)
    view = memoryview(buffer)[3:5]
    assert not pool.give(buffer)
    view.release()
    assert pool.give(buffer)
    assert len(buffer) == STEP


def test_a_buffer_that_is_seen_a_little_longer_serves_again():
    """As a transport sees it until the read event is over in which the frame was answered."""
    pool = BufferPool(10 * STEP)
    buffer = pool.take(STEP)
    view = memoryview(buffer)
    assert not pool.give(buffer)
    view.release()
    assert pool.take(STEP) is buffer
    view = memoryview(buffer)
    assert not pool.give(buffer)
    assert pool.take(STEP) is not buffer
    view.release()
    assert pool.take(STEP) is not buffer, "who holds one longer may hold it for ever"


def test_the_pool_waits_for_no_more_than_its_limit():
    pool = BufferPool(2 * STEP)
    buffers = [pool.take(STEP) for _ in range(3)]
    views = [memoryview(buffer) for buffer in buffers]
    for buffer in buffers:
        assert not pool.give(buffer)
    for view in views:
        view.release()
    assert [id(pool.take(STEP)) in map(id, buffers[:2]) for _ in range(3)] == [True, True, False]
    pool = BufferPool(2 * STEP)
    view = memoryview(buffers[0])
    pool.give(buffers[0])
    pool.forget_unused()
    view.release()
    assert pool.take(STEP) is not buffers[0]


def test_the_pool_keeps_no_more_than_its_limit():
    pool = BufferPool(2 * STEP)
    assert not pool.give(bytearray(3 * STEP))
    assert not pool.give(bytearray(100))
    assert not pool.give(bytearray())
    one, two, three = (pool.take(STEP) for _ in range(3))
    assert pool.give(one)
    assert pool.give(two)
    assert pool.give(three), "older ones make way"
    assert pool.take(STEP) is three
    assert pool._kept == 0


def test_buffers_that_nobody_takes_are_forgotten():
    pool = BufferPool(10 * STEP)
    buffer = pool.take(STEP)
    pool.give(buffer)
    pool.forget_unused()
    assert pool.take(STEP) is buffer
    pool.give(buffer)
    pool.forget_unused()
    pool.forget_unused()
    assert pool.take(STEP) is not buffer


def test_a_reused_buffer_can_be_poisoned():
    poisoned = []
    pool = BufferPool(2 * STEP, on_reuse=poisoned.append)
    buffer = pool.take(10)
    pool.give(buffer)
    assert poisoned == [buffer]


def test_limits_per_address():
    limits = NetworkLimits(
        max_connections_per_ip=5, max_connections_per_ip_overrides={"10.0.0.1": 50}
    )
    assert limits.connections_for("10.0.0.1") == 50
    assert limits.connections_for("10.0.0.2") == 5
    with pytest.raises(AttributeError):
        limits.max_connections = 1  # type: ignore[misc]
