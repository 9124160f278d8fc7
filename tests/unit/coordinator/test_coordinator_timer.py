"""Timers of a shard."""

from collections.abc import Hashable

from kbroker.common.clock import ManualClock
from kbroker.common.timer import Timer
from kbroker.coordinator.coordinator_timer import CoordinatorTimer, TimerOperation


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timer = Timer(self.clock)
        self.ran: list[tuple[float, Hashable]] = []
        self.shard_timer = CoordinatorTimer(self.clock, self.timer, self._run)

    def _run(self, key: Hashable, operation: TimerOperation, retry: bool) -> None:
        self.ran.append((self.clock.monotonic(), key))
        operation()

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.timer.run_due()


def test_runs_at_its_time() -> None:
    bench = Bench()
    bench.shard_timer.schedule("a", 1.0, lambda: None)
    bench.advance(0.9)
    assert bench.ran == []
    bench.advance(0.2)
    assert [key for _, key in bench.ran] == ["a"]
    assert not bench.shard_timer.is_scheduled("a")
    assert bench.timer.pending == 0


def test_a_second_of_the_name_replaces_the_first() -> None:
    bench = Bench()
    seen: list[str] = []
    bench.shard_timer.schedule("a", 2.0, lambda: seen.append("old"))  # type: ignore[arg-type,return-value]
    bench.shard_timer.schedule("a", 1.0, lambda: seen.append("new"))  # type: ignore[arg-type,return-value]
    bench.advance(5)
    assert seen == ["new"]
    assert len(bench.ran) == 1


def test_pushed_back_again_and_again_it_does_not_run() -> None:
    bench = Bench()
    bench.shard_timer.schedule("session", 1.0, lambda: None)
    for _ in range(20):
        bench.advance(0.5)
        assert bench.shard_timer.push_back("session", 1.0)
    assert bench.ran == []
    assert bench.timer.pending == 1
    bench.advance(1.2)
    assert len(bench.ran) == 1


def test_push_back_may_bring_it_forward() -> None:
    bench = Bench()
    bench.shard_timer.schedule("session", 300.0, lambda: None)
    assert bench.shard_timer.push_back("session", 1.0)
    bench.advance(1.2)
    assert len(bench.ran) == 1


def test_push_back_of_nothing_says_so() -> None:
    assert not Bench().shard_timer.push_back("session", 1.0)


def test_cancelled_ones_do_not_run_and_leave_nothing() -> None:
    bench = Bench()
    for name in ("a", "b", "c"):
        bench.shard_timer.schedule(name, 1.0, lambda: None)
    bench.shard_timer.cancel("a")
    bench.shard_timer.cancel("unknown")
    bench.shard_timer.cancel_all()
    bench.advance(2)
    assert bench.ran == []
    assert bench.shard_timer.pending == 0
    assert bench.timer.pending == 0


def test_an_operation_may_schedule_its_name_again() -> None:
    bench = Bench()

    def again() -> None:
        bench.shard_timer.schedule("a", 1.0, again)

    bench.shard_timer.schedule("a", 1.0, again)
    bench.advance(3.5)
    assert len(bench.ran) == 3
