"""Rounds of kill -9 under load, and the proof that the harness sees what it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.kbroker_process import KbrokerProcess
from tests.reliability.campaign import (
    BROKER_SETTINGS,
    PLANTED_FAULTS,
    hunt_planted_fault,
    run_campaign,
)
from tests.sizes import size

if TYPE_CHECKING:
    from pathlib import Path

SEED = 20260
# The product's promise is half a second on an idle machine; this only catches a broken recovery.
READY_AGAIN_BOUND_S = 10.0


@pytest.mark.timeout(3600)
def test_no_acknowledged_record_is_lost_duplicated_or_reordered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = KbrokerProcess(tmp_path / "node", settings=BROKER_SETTINGS)

    result = run_campaign(broker, rounds=size(ci=6, full=50), seed=SEED)

    with capsys.disabled():
        print(f"\nslowest start after a death: {result.slowest_ready_s * 1000:.0f} ms")
    assert not result.violations, str(result)
    assert all(done.history.acked for done in result.rounds), str(result)
    assert result.slowest_ready_s < READY_AGAIN_BOUND_S, str(result)
    log = broker.error_log.read_text()
    assert "Traceback (most recent call last)" not in log, broker.report()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", PLANTED_FAULTS)
def test_a_planted_fault_is_reported(tmp_path: Path, fault: str) -> None:
    broker = KbrokerProcess(
        tmp_path / "node", settings=BROKER_SETTINGS, environment={"KBROKER_PLANTED_FAULT": fault}
    )

    found = hunt_planted_fault(broker, fault, seed=SEED, at_most=8)

    assert found is not None, f"{fault} went unnoticed"
