"""Seeded runs of the simulated transactions; a seed that ever failed goes into ``KNOWN``."""

import anyio
import pytest

from tests.sizes import size
from tests.unit.coordinator.transaction.transaction_simulation import Simulation

KNOWN = (1, 32, 49, 5032, 5046, 5322)
STEPS = 250


def run(seed: int, planted: str = "") -> Simulation:
    """AssertionError with the seed in it."""
    simulation = Simulation(seed, planted)
    try:
        anyio.run(simulation.run, STEPS)
    except ExceptionGroup as group:
        (error,) = group.exceptions
        if isinstance(error, AssertionError):
            raise AssertionError(f"seed {seed}: {error}") from group
        raise
    return simulation


@pytest.mark.parametrize("seed", KNOWN)
def test_seeds_that_failed_once(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("block", range(10))
def test_transactions_survive_crashes(block: int) -> None:
    count = size(ci=3, full=300)
    crashes = committed = aborted = 0
    for seed in range(block * count, (block + 1) * count):
        done = run(seed)
        crashes += done.crashes
        committed += sum(each.told is True for each in done.transactions)
        aborted += sum(each.told is False for each in done.transactions)
    assert crashes > count and committed > count and aborted > count, "nothing happens here"


@pytest.mark.parametrize("planted", ["marker_lost", "epoch_not_fenced"])
def test_a_planted_fault_is_noticed(planted: str) -> None:
    for seed in range(20):
        try:
            run(seed, planted)
        except AssertionError:
            return
    pytest.fail(f"{planted} went unnoticed")
