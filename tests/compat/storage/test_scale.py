"""Many partitions on one broker: they are there again after each start, which is short.

The limits are those of a quiet machine, made wider for a busy one; the benchmark of the same name
has the figures.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.partitions import ManyPartitions
from benchmarks.table import OURS, Figures
from tests.peers.kbroker_process import KbrokerProcess
from tests.sizes import size

if TYPE_CHECKING:
    from pathlib import Path

COUNT = size(ci=1_000, full=10_000)
WIDER = 6.0

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]


def test_a_broker_with_many_partitions(tmp_path: Path) -> None:
    figures = Figures()
    broker = KbrokerProcess(tmp_path / "broker")
    try:
        many = ManyPartitions(broker, COUNT, figures)
        assert many.count == COUNT
        many.measure(idle_s=3.0, rest_s=0)
    finally:
        broker.kill()
    print(figures.render())

    def figure(name: str) -> float:
        value = figures.line(f"{COUNT} partitions: {name}", "").of(OURS)
        assert value is not None
        return value

    assert figure("start after a clean stop: CPU") <= 1 * WIDER
    assert figure("start after kill -9: CPU") <= 2 * WIDER
    assert figure("start after kill -9, idle: CPU") <= 2 * WIDER
    assert figure("RSS, started") <= 80
    assert figure("RSS, created") <= 80
    assert figure("RSS, one record in each") <= 80
    assert figure("open files") < 200
    assert figure("open files, started") < 200
    assert figure("idle CPU") < 3
