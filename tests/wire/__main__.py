"""``python -m tests.wire HOST:PORT``: compare a running broker with Kafka's recorded answers.

Start it as the recording was made: node id 1, replication factors 1, no rebalance delay, one
partition, topic auto-creation on (kbroker's default profile is that). Old state does not matter:
each scenario uses fresh names. Exit status 0 when all answers are the same.
"""

import argparse
import sys
import time
from pathlib import Path

from tests.wire import kit, runner


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.wire", description=__doc__)
    parser.add_argument("address", nargs="?", metavar="HOST:PORT")
    parser.add_argument("--only", action="append", metavar="GLOB", help="over scenario names")
    parser.add_argument("--list", action="store_true", help="names and what they are about")
    parser.add_argument("--record", type=Path, metavar="FILE", help="save the answers instead")
    parser.add_argument("--lines", type=int, default=4, help="lines of difference a scenario")
    options = parser.parse_args()
    scenarios = runner.load_scenarios()
    names = runner.pick(scenarios, options.only)
    if options.list:
        for name in names:
            print(f"{name:60} {' '.join(scenarios[name][1].split())}")
        return 0
    if options.address is None:
        parser.error("HOST:PORT is missing")
    host, _, port = options.address.rpartition(":")
    runner.warm(host, int(port))
    nodes = runner.node_ids(host, int(port))
    if options.record:
        kit.Ctx.settle_s = 0.3
        known = runner.load_transcript(options.record) if options.record.exists() else {}
        known |= {name: kit.run_one(name, host, int(port), nodes)[0] for name in names}
        runner.save_transcript(known, options.record)
        return 0
    return _compare(names, host, int(port), nodes, options.lines)


def _compare(names, host, port, nodes, lines) -> int:
    recorded = runner.load_transcript()
    started, totals = time.monotonic(), {}
    for name in (n for n in names if n in recorded):
        outcome = runner.run_scenario(name, recorded[name], host, port, nodes)
        total = totals.setdefault(name.partition("/")[0], [0, 0])
        total[0] += not outcome.differences
        total[1] += 1
        if outcome.differences:
            print(f"DIFFERENT {name}")
            for difference in outcome.differences[:lines]:
                print(f"    {runner.show(difference)}")
    for group, (same, count) in totals.items():
        print(f"{group:16} {same:5} of {count}")
    same, count = (sum(column) for column in zip(*totals.values(), strict=True))
    print(f"{'all':16} {same:5} of {count} in {time.monotonic() - started:.0f} s")
    return 0 if same == count else 1


if __name__ == "__main__":
    sys.exit(main())
