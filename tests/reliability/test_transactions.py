"""Exactly-once under crashes, and the proof that its auditor sees what it should."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.peers.kafka_tools import KafkaTools
from tests.peers.kbroker_process import KbrokerProcess
from tests.peers.require import PeerUnavailable, skip_or_fail
from tests.reliability.transactions import (
    BROKER_SETTINGS,
    CRASHES_OF_ALL_KINDS,
    PLANTED_TRANSACTION_FAULTS,
    TransactionCampaign,
    hunt_planted_transaction_fault,
    plan_crashes,
)
from tests.reliability.transactions_auditor import TransactionAnomaly
from tests.reliability.transactions_crew import java_worker, member_worker
from tests.sizes import size

if TYPE_CHECKING:
    from pathlib import Path

    from tests.reliability.transactions_crew import Launch

SEED = 20260
HUNTS = 4
EXPECTED = {
    "marker_lost": {TransactionAnomaly.TORN, TransactionAnomaly.STUCK, TransactionAnomaly.LOST},
    # What a zombie does under its old epoch ends its successor's transaction, or nobody ends it.
    "epoch_not_fenced": {
        TransactionAnomaly.UNFENCED,
        TransactionAnomaly.DUPLICATE,
        TransactionAnomaly.LOST_COMMIT,
    },
}


@pytest.mark.timeout(3600)
def test_every_input_is_reflected_exactly_once(tmp_path: Path) -> None:
    broker = KbrokerProcess(tmp_path / "node", settings=BROKER_SETTINGS)
    count = size(ci=CRASHES_OF_ALL_KINDS, full=100)
    crashes = plan_crashes(count, random.Random(SEED), with_failpoints=True)
    campaign = TransactionCampaign(
        broker, tmp_path, inputs=size(ci=800, full=10_000), crashes=crashes, seed=SEED
    )

    campaign.run()

    report = "\n".join(map(str, [*campaign.rounds, *campaign.violations[:50]]))
    assert not campaign.violations, report
    assert campaign.inputs >= size(ci=800, full=10_000), report
    assert "Traceback (most recent call last)" not in broker.error_log.read_text(), broker.report()


def holds_for(launch: Launch, folder: Path) -> None:
    """The same, shorter."""
    broker = KbrokerProcess(folder / "node", settings=BROKER_SETTINGS)
    crashes = plan_crashes(size(ci=2, full=40), random.Random(SEED), with_failpoints=True)
    inputs = size(ci=80, full=4_000)
    campaign = TransactionCampaign(
        broker, folder, inputs=inputs, crashes=crashes, seed=SEED, launch=launch
    )

    campaign.run()

    report = "\n".join(map(str, [*campaign.rounds, *campaign.violations[:50]]))
    assert not campaign.violations, report
    assert campaign.inputs >= inputs, report


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_it_holds_for_members_of_groups(tmp_path: Path, protocol: str) -> None:
    """KIP-447: partitions move between them, and a member's generation fences it as well."""
    holds_for(member_worker(protocol), tmp_path)


@pytest.mark.timeout(3600)
def test_it_holds_for_javas_transactions_of_level_2(tmp_path: Path) -> None:
    """KIP-890: partitions join by themselves, each end of a transaction bumps the epoch."""
    try:
        tools = KafkaTools()
    except PeerUnavailable as missing:
        skip_or_fail(missing)
    holds_for(java_worker(tools), tmp_path)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", PLANTED_TRANSACTION_FAULTS)
def test_a_planted_fault_of_transactions_is_reported(tmp_path: Path, fault: str) -> None:
    """On a broker anew when the first sign was another one: what is open for good ends a hunt."""
    seen: list[str] = []
    for attempt in range(HUNTS):
        folder = tmp_path / f"hunt-{attempt}"
        broker = KbrokerProcess(
            folder / "node",
            settings=BROKER_SETTINGS,
            environment={"KBROKER_PLANTED_FAULT": fault},
        )
        campaign = hunt_planted_transaction_fault(
            broker, folder, fault, seed=SEED + attempt, at_most=5
        )
        seen += map(str, [*campaign.rounds, *campaign.violations])
        if {violation.anomaly for violation in campaign.violations} & EXPECTED[fault]:
            return
    pytest.fail("\n".join(seen))
