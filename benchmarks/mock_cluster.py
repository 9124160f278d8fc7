"""librdkafka's mock cluster as a process: what a broker costs that checks nothing.

It makes topics by itself, with four partitions, and keeps the last few megabytes of each.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.peers.process import ChildProcess

if TYPE_CHECKING:
    from pathlib import Path

_READY = "mock cluster "


class MockCluster:
    """One mock broker, which lives as long as its process."""

    name = "librdkafka-mock"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: ChildProcess | None = None
        self.bootstrap = ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = ChildProcess(
            [sys.executable, "-m", "benchmarks.mock_cluster"],
            error_log=self._folder / "stderr.log",
            environment=None,
        )
        self.bootstrap = self._process.wait_for_line(_READY, timeout_s=30).split()[-1]

    def stop(self) -> None:
        self.kill()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()


def main() -> None:
    """Run a mock cluster until killed; its address is the only line of standard output."""
    import threading

    from confluent_kafka import Producer

    client = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": ""})
    (broker,) = client.list_topics(timeout=10).brokers.values()
    print(f"{_READY}{broker.host}:{broker.port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
