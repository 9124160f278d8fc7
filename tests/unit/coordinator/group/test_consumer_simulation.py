"""Seeded runs of simulated groups of KIP-848."""

import pytest

from tests.sizes import size
from tests.unit.coordinator.group.consumer_simulation import ConsumerSimulation

STEPS_OF_THREE_SESSIONS = 400


def run(seed: int) -> None:
    simulation = ConsumerSimulation(seed)
    for _ in range(150):
        simulation.step()
    simulation.heal()
    for _ in range(STEPS_OF_THREE_SESSIONS):
        simulation.step()
        if simulation.is_settled():
            return
    raise AssertionError("the group does not become stable after the faults")


@pytest.mark.parametrize("block", range(10))
def test_groups_survive_their_members(block: int) -> None:
    count = size(ci=3, full=1_000)
    for seed in range(block * count, (block + 1) * count):
        try:
            run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
