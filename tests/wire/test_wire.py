"""Kafka's recorded answers, field by field, against a kbroker process.

``expected_differences.toml`` names every scenario that may differ, with the reason. It may only
shrink: a scenario in it that has become the same fails the test.
"""

import tomllib
from pathlib import Path

import pytest

from tests.peers.kbroker_process import KbrokerProcess
from tests.wire import runner

EXPECTED_FILE = Path(__file__).parent / "expected_differences.toml"


def expected_differences() -> dict[str, str]:
    """Reason by scenario name."""
    groups = tomllib.loads(EXPECTED_FILE.read_text()).get("difference", [])
    return {name: group["reason"] for group in groups for name in group["scenarios"]}


@pytest.mark.timeout(600)
def test_answers_are_kafkas(tmp_path):
    recorded, expected = runner.load_transcript(), expected_differences()
    names = [name for name in runner.load_scenarios() if name in recorded]
    assert expected.keys() <= set(names), "expected_differences.toml names unknown scenarios"
    broker = KbrokerProcess(tmp_path)
    broker.start()
    try:
        host, port = "127.0.0.1", broker.port
        runner.warm(host, port)
        nodes = runner.node_ids(host, port)
        outcomes = [runner.run_scenario(n, recorded[n], host, port, nodes) for n in names]
        broker.stop()
    finally:
        broker.kill()
    unexpected = [o for o in outcomes if o.differences and o.name not in expected]
    healed = [o.name for o in outcomes if not o.differences and o.name in expected]
    report = [f"{o.name}\n    {runner.show(o.differences[0])}" for o in unexpected]
    assert not report, f"{len(report)} scenarios differ from Kafka:\n" + "\n".join(report)
    assert not healed, f"the same as Kafka now; remove them from {EXPECTED_FILE.name}: {healed}"
