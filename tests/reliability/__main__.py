"""``python -m tests.reliability``: a kill -9 campaign from the command line.

Prints every round; the status is 1 when a violation was found (0 with ``--planted``, where a
violation is what is looked for).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers.apache_kafka import ApacheKafka
from tests.peers.kbroker_process import KbrokerProcess
from tests.reliability.campaign import (
    BROKER_SETTINGS,
    PLANTED_FAULTS,
    hunt_planted_fault,
    run_campaign,
)

if TYPE_CHECKING:
    from tests.reliability.rounds import Broker


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", choices=("kbroker", "apache-kafka"), default="kbroker")
    parser.add_argument("--planted", choices=PLANTED_FAULTS)
    parser.add_argument("--folder", type=Path, help="where to work and leave the data directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kbroker-reliability-") as scratch:
        folder = (options.folder or Path(scratch)) / "node"
        broker: Broker
        if options.broker == "apache-kafka":
            broker = ApacheKafka(folder, settings=BROKER_SETTINGS)
        else:
            environment = {"KBROKER_PLANTED_FAULT": options.planted} if options.planted else {}
            broker = KbrokerProcess(folder, settings=BROKER_SETTINGS, environment=environment)
        if options.planted:
            found = hunt_planted_fault(
                broker, options.planted, seed=options.seed, at_most=options.rounds
            )
            print("\n".join(map(str, found.violations[:20])) if found else "nothing found")
            return 0 if found else 1
        result = run_campaign(
            broker,
            rounds=options.rounds,
            seed=options.seed,
            with_failpoints=options.broker == "kbroker",
        )
    print(f"slowest start after a death: {result.slowest_ready_s * 1000:.0f} ms")
    print(f"{len(result.violations)} violations")
    print("\n".join(map(str, result.violations[:50])))
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
