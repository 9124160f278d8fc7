"""Apache Kafka as a process: one KRaft node, broker and controller in one."""

from __future__ import annotations

import base64
import os
import time
from typing import TYPE_CHECKING

from tests.peers import kafka_tools, probe
from tests.peers.kafka_tools import KafkaTools, ToolFailed
from tests.peers.process import BrokerDied, ChildProcess
from tests.peers.require import PeerUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# An unclean start recovers every segment first; on a loaded machine that takes its time.
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 60

# bin/kafka-run-class.sh's own flags, and a heap that no test outgrows.
JVM_FLAGS = (
    "-Xms1g",
    "-Xmx1g",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
)


class ApacheKafka:
    """One Apache Kafka node on free ports of 127.0.0.1, in ``folder``.

    ``settings`` are laid over a single-node configuration. Raises PeerUnavailable where Java or
    the jars cannot be had.
    """

    name = "apache-kafka"

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._tools = KafkaTools()
        self.port = probe.free_port()
        self.controller_port = probe.free_port()
        self.settings = {**self._single_node(), **(settings or {})}
        self.ready_after_s = 0.0
        self._process: ChildProcess | None = None

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def error_log(self) -> Path:
        """Standard error of all its starts."""
        return self.folder / "stderr.log"

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.exit_status is None

    def prepare(self) -> None:
        """Writes the settings and formats the data directory, unless that was done before."""
        properties = self.folder / "server.properties"
        if not properties.exists():
            self._format(properties)

    def start(self, *, environment: Mapping[str, str] | None = None) -> None:
        """Formats the directory on the first call, starts, and waits for an ApiVersions answer."""
        if self.is_running:
            raise RuntimeError("already running")
        process = self._spawn(environment)
        self._wait_until_it_answers()
        self.ready_after_s = time.monotonic() - process.started_at

    def start_and_kill(self, *, after_s: float) -> None:
        """Starts and kills -9 after that time, ready by then or not: a death during recovery."""
        process = self._spawn(None)
        time.sleep(after_s)
        process.kill()

    def stop(self) -> None:
        """SIGTERM: Kafka's controlled shutdown (the JVM then reports 128 + 15)."""
        self._running().terminate(timeout_s=STOP_TIMEOUT_S)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()

    def wait_for_end(self, *, timeout_s: float) -> int:
        """Waits until the process ends by itself and returns its status."""
        return self._running().wait(timeout_s=timeout_s)

    def report(self) -> str:
        """What it printed last, for a failure message."""
        return self._running().report()

    def _single_node(self) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.data_dir),
            "num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
        }

    def _format(self, properties: Path) -> None:
        """What ``kafka-storage.sh format`` does: a cluster id and the bootstrap records."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{name}={value}\n" for name, value in self.settings.items())
        cluster_id = base64.urlsafe_b64encode(b"k" + os.urandom(15)).decode().rstrip("=")
        unformatted = properties.with_suffix(".new")
        unformatted.write_text(text)
        try:
            self._tools.run(kafka_tools.STORAGE, "format", "-t", cluster_id, "-c", str(unformatted))
        except ToolFailed as failed:
            raise PeerUnavailable("java", f"kafka-storage format failed: {failed}") from failed
        unformatted.rename(properties)

    def _spawn(self, environment: Mapping[str, str] | None) -> ChildProcess:
        self.prepare()
        command = self._tools.command(
            kafka_tools.BROKER, str(self.folder / "server.properties"), flags=JVM_FLAGS
        )
        self._process = ChildProcess(command, error_log=self.error_log, environment=environment)
        return self._process

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            process = self._running()
            if process.exit_status is not None:
                raise BrokerDied(f"ended with {process.exit_status}\n{process.report()}")
            try:
                probe.ask_api_versions(self.bootstrap, timeout_s=5)
                return
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{error}\n{process.report()}") from error
            time.sleep(0.02)

    def _running(self) -> ChildProcess:
        if self._process is None:
            raise RuntimeError("never started")
        return self._process

    def __enter__(self) -> ApacheKafka:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
