"""Deferred answers."""

import anyio
import pytest

from kbroker.coordinator.deferred import Deferred, all_of


def test_first_outcome_counts() -> None:
    deferred: Deferred[int] = Deferred()
    assert deferred.complete(1)
    assert not deferred.complete(2)
    assert not deferred.fail(ValueError())
    assert deferred.result() == 1


def test_callbacks_run_once_in_order_and_at_once_when_done() -> None:
    deferred: Deferred[int] = Deferred()
    seen: list[str] = []
    deferred.on_done(lambda _: seen.append("first"))
    deferred.on_done(lambda _: seen.append("second"))
    deferred.complete(1)
    deferred.on_done(lambda _: seen.append("third"))
    assert seen == ["first", "second", "third"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_all_waiters_get_the_value(backend: str) -> None:
    async def main() -> list[int]:
        deferred: Deferred[int] = Deferred()
        values: list[int] = []

        async def wait() -> None:
            values.append(await deferred.wait())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            deferred.complete(7)
        assert await deferred.wait() == 7
        return values

    assert anyio.run(main, backend=backend) == [7, 7]


def test_a_cancelled_waiter_harms_nobody() -> None:
    async def main() -> int:
        deferred: Deferred[int] = Deferred()
        with anyio.move_on_after(0):
            await deferred.wait()
        deferred.complete(3)
        return await deferred.wait()

    assert anyio.run(main) == 3


def test_errors_are_raised() -> None:
    deferred: Deferred[int] = Deferred()
    deferred.fail(KeyError("x"))
    with pytest.raises(KeyError):
        deferred.result()


def test_all_of_is_at_once_when_all_are_there() -> None:
    done: Deferred[int] = Deferred()
    done.complete(2)
    assert all_of([1, done, 3]) == [1, 2, 3]


def test_all_of_waits_for_the_last() -> None:
    first: Deferred[int] = Deferred()
    second: Deferred[int] = Deferred()
    gathered = all_of([first, 5, second])
    assert isinstance(gathered, Deferred)
    second.complete(2)
    assert not gathered.done
    first.complete(1)
    assert gathered.result() == [1, 5, 2]


def test_all_of_fails_with_the_first_error() -> None:
    first: Deferred[int] = Deferred()
    gathered = all_of([first, 1])
    assert isinstance(gathered, Deferred)
    first.fail(KeyError())
    with pytest.raises(KeyError):
        gathered.result()
