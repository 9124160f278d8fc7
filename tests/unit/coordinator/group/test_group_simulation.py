"""Seeded runs of the simulated group; a seed that ever failed goes into ``KNOWN``."""

import pytest

from tests.sizes import size
from tests.unit.coordinator.group.group_simulation import SESSION_S, STEP_S, Simulation

KNOWN = (0,)


def run(seed: int) -> None:
    simulation = Simulation(seed)
    for _ in range(150):
        simulation.step()
    simulation.heal()
    steps_of_three_sessions = int(3 * SESSION_S / STEP_S * 2)
    for _ in range(steps_of_three_sessions):
        simulation.step()
        if simulation.is_settled():
            return
    raise AssertionError(f"seed {seed}: the group does not become stable after the faults")


@pytest.mark.parametrize("seed", KNOWN)
def test_seeds_that_failed_once(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("block", range(10))
def test_groups_survive_their_members(block: int) -> None:
    count = size(ci=6, full=1_000)
    for seed in range(block * count, (block + 1) * count):
        try:
            run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
