"""``python -m tests.reliability.groups``: a campaign of crashes around consumer groups.

Prints every round; the status is 1 when a violation was found (0 with ``--planted``, where a
violation is what is looked for).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers.kbroker_process import KbrokerProcess
from tests.reliability.groups_rounds import GroupRound, GroupRunner
from tests.reliability.groups_settings import BROKER_SETTINGS, GROUPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.reliability.rounds import Broker

INCIDENTS = (
    "broker_dies",
    "member_crashes",
    "member_is_stopped",
    "broker_dies_at_a_failpoint",
    "member_leaves",
    "broker_dies_in_a_rebalance",
    "member_sleeps_shortly",
)
PLANTED_FAULTS = ("commit_before_write", "two_owners")
HUNTS = {
    "commit_before_write": ("broker_dies",),
    "two_owners": ("member_leaves",) * 4,
}
"""What brings a planted fault to light."""


def run_group_campaign(
    broker: Broker,
    folder: Path,
    *,
    rounds: int,
    seed: int,
    slack_s: float,
    incidents_a_round: int = 3,
    report: Callable[[str], None] = print,
) -> list[GroupRound]:
    """Runs rounds on a broker that is not running yet, and kills it at the end.

    The mixes of members take turns, and so do the incidents, from a place that the seed says.
    """
    source = random.Random(seed)
    first = source.randrange(len(INCIDENTS))
    results = []
    broker.start()
    try:
        for number in range(rounds):
            mix = list(GROUPS)[number % len(GROUPS)]
            at = first + number * incidents_a_round
            incidents = tuple(
                INCIDENTS[(at + step) % len(INCIDENTS)] for step in range(incidents_a_round)
            )
            done = GroupRound(f"groups-{number}", mix, incidents, slack_s)
            GroupRunner(broker, done, folder, source).run()
            report(str(done))
            results.append(done)
            if done.violations:
                break
    finally:
        broker.kill()
    return results


def hunt_planted_fault(
    broker: Broker,
    folder: Path,
    fault: str,
    *,
    mix: str,
    seed: int,
    at_most: int,
    report: Callable[[str], None] = print,
) -> GroupRound | None:
    """Runs rounds on a broker with a planted fault until one reports what it does.

    None when ``at_most`` rounds all passed: then the harness is blind to this fault.
    """
    source = random.Random(seed)
    broker.start()
    try:
        for number in range(at_most):
            done = GroupRound(f"{fault}-{number}", mix, HUNTS[fault], slack_s=30.0)
            GroupRunner(broker, done, folder, source).run()
            report(str(done))
            if done.violations:
                return done
    finally:
        broker.kill()
    return None


def make_broker(folder: Path, planted: str = "") -> KbrokerProcess:
    """A broker with short sessions."""
    environment = {"KBROKER_PLANTED_FAULT": planted} if planted else {}
    return KbrokerProcess(folder / "node", settings=BROKER_SETTINGS, environment=environment)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.groups")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slack", type=float, default=2.0, help="seconds beyond the session")
    parser.add_argument("--planted", choices=PLANTED_FAULTS)
    parser.add_argument("--mix", choices=GROUPS, default="consumer", help="with --planted")
    parser.add_argument("--folder", type=Path, help="where to work and leave the data directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kbroker-groups-") as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        broker = make_broker(folder, options.planted or "")
        if options.planted:
            found = hunt_planted_fault(
                broker,
                folder,
                options.planted,
                mix=options.mix,
                seed=options.seed,
                at_most=options.rounds,
            )
            print("\n".join(map(str, found.violations[:20])) if found else "nothing found")
            return 0 if found else 1
        results = run_group_campaign(
            broker, folder, rounds=options.rounds, seed=options.seed, slack_s=options.slack
        )
    violations = [violation for done in results for violation in done.violations]
    slowest = max(after_s for done in results for _, after_s in done.flowed_after_s)
    print(f"slowest until every partition flowed again: {slowest:.1f} s")
    print(f"{len(violations)} violations")
    print("\n".join(map(str, violations[:50])))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
