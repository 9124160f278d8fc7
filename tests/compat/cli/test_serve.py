"""``kbroker serve`` as a person or a script meets it: output, exit status, settings, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.wire.connection import Conn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READY = re.compile(
    r"kbroker ready bootstrap=127\.0\.0\.1:(\d+) node=(\d+) cluster=([\w-]{22}) pid=(\d+)\n"
)
LIVENESS_S = 30
DISTRIBUTION = """\
process.roles=broker,controller
node.id=7
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
num.partitions=3
num.recovery.threads.per.data.dir=2
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
"""


class Served:
    """One ``kbroker serve``, its output captured."""

    def __init__(self, *arguments: str, cwd: Path, environment: dict[str, str] | None = None):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kbroker", "serve", *arguments],
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.port = 0

    def wait_until_ready(self) -> re.Match[str]:
        line = self.process.stdout.readline()
        match = READY.fullmatch(line)
        if match is None:
            pytest.fail(f"first line {line!r}; {self.process.communicate(timeout=LIVENESS_S)[1]}")
        self.port = int(match[1])
        return match

    def end(self) -> tuple[int, str, str]:
        """(status, rest of stdout, stderr)."""
        out, err = self.process.communicate(timeout=LIVENESS_S)
        return self.process.returncode, out, err

    def call(self, name: str, version: int, body: dict) -> dict:
        connection = Conn("127.0.0.1", self.port)
        try:
            connection.send(name, version, body)
            return connection.recv(LIVENESS_S)[4]
        finally:
            connection.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator:
    started: list[Served] = []

    def start(*arguments: str, **options) -> Served:
        started.append(Served(*arguments, cwd=tmp_path, **options))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
            served.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_line_on_stdout_and_a_clean_end(serve, number):
    served = serve("--port", "0", "--data-dir", "d")
    match = served.wait_until_ready()
    assert int(match[4]) == served.process.pid
    served.process.send_signal(number)
    status, out, err = served.end()
    assert status == 0
    assert out == ""
    assert "data directory:" in err.splitlines()[0]


def test_default_data_directory(serve, tmp_path):
    served = serve("--port", "0")
    served.wait_until_ready()
    served.process.terminate()
    assert served.end()[0] == 0
    assert (tmp_path / "kbroker-data" / "meta.properties").is_file()


def test_memory_leaves_nothing_behind(serve, tmp_path):
    served = serve("--port", "0", "--memory")
    served.wait_until_ready()
    topic = {"Name": "t", "NumPartitions": 1, "ReplicationFactor": 1}
    answer = served.call("CreateTopics", 7, {"timeoutMs": 5000, "Topics": [topic]})
    assert answer["Topics"][0]["ErrorCode"] == 0
    served.process.terminate()
    assert served.end()[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_keeps_its_id(serve):
    ids = set()
    for _ in range(2):
        served = serve("--port", "0", "--data-dir", "d")
        ids.add(served.wait_until_ready()[3])
        served.process.kill()
        served.end()
    assert len(ids) == 1


def test_a_taken_port_is_said_in_one_line(serve):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, out, err = serve("--port", str(port), "--memory").end()
    assert status == 1
    assert out == ""
    assert str(port) in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_locked_data_directory_is_said_in_one_line(serve):
    serve("--port", "0", "--data-dir", "d").wait_until_ready()
    status, out, err = serve("--port", "0", "--data-dir", "d").end()
    assert status == 1
    assert out == ""
    assert "Traceback" not in err
    assert "d" in err.splitlines()[-1]


def test_an_unusable_data_directory_is_said_in_one_line(serve, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    status, _, err = serve("--port", "0", "--data-dir", "file/below").end()
    assert status == 1
    assert "Traceback" not in err
    assert "file" in err.splitlines()[-1]


def test_bad_settings_are_said_in_one_line(serve):
    for arguments, text in (
        (("--set", "num.partitions=many"), "num.partitions"),
        (("--set", "nonsense"), "NAME=VALUE"),
        (("no-such-file.properties",), "no-such-file.properties"),
        (("--set", "authorizer.class.name=x.Y"), "no authorizer"),
        (("--port", "70000"), "70000"),
    ):
        status, out, err = serve(*arguments, "--memory").end()
        assert status == 2
        assert out == ""
        assert len(err.splitlines()) == 1
        assert text in err


def test_a_nearly_right_setting_is_named(serve):
    served = serve("--port", "0", "--memory", "--set", "num.partition=3")
    served.wait_until_ready()
    served.process.terminate()
    assert "did you mean num.partitions?" in served.end()[2]


def test_apache_kafkas_own_file(serve, tmp_path):
    data = tmp_path / "combined-logs"
    (tmp_path / "server.properties").write_text(DISTRIBUTION + f"log.dirs={data}\n")
    served = serve("server.properties")
    assert served.wait_until_ready()[2] == "7"
    answer = served.call("Metadata", 12, {"Topics": [{"Name": "auto"}]})
    assert answer["Brokers"][0]["NodeId"] == 7
    resource = {"ResourceType": 4, "ResourceName": "7", "ConfigurationKeys": ["num.partitions"]}
    answer = served.call("DescribeConfigs", 4, {"Resources": [resource]})
    assert answer["Results"][0]["Configs"][0]["Value"] == "3"
    assert data.is_dir()


def test_precedence_of_settings(serve, tmp_path):
    (tmp_path / "p").write_text("num.partitions=2\nlog.roll.hours=2\nbackground.threads=2\n")
    environment = {"KAFKA_LOG_ROLL_HOURS": "3", "KAFKA_BACKGROUND_THREADS": "3"}
    shown = serve(
        *("p", "--set", "background.threads=4", "--port", "0", "--print-config"),
        environment=environment,
    )
    status, out, _ = shown.end()
    settings = dict(line.split("=", 1) for line in out.splitlines())
    assert status == 0
    assert settings["num.partitions"] == "2"
    assert settings["log.roll.hours"] == "3"
    assert settings["background.threads"] == "4"
    assert settings["listeners"] == "PLAINTEXT://127.0.0.1:0"
    assert settings["group.initial.rebalance.delay.ms"] == "0"


def test_json_log(serve):
    served = serve("--port", "0", "--memory", "--log-format", "json")
    served.wait_until_ready()
    with socket.create_connection(("127.0.0.1", served.port), LIVENESS_S) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(1) == b""
    served.process.terminate()
    _, _, err = served.end()
    lines = [json.loads(line) for line in err.splitlines()]
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)
    (elected,) = [line for line in lines if line["logger"] == "kbroker.controller"]
    assert elected["node"] == 1
    assert elected["epoch"] > 0
    (bad,) = [line for line in lines if line["logger"] == "kbroker.network"]
    assert bad["peer"].startswith("127.0.0.1:")
    assert bad["connection"] == 1
    assert bad["reason"]


def test_a_waiting_fetch_does_not_hold_up_the_end(serve):
    served = serve("--port", "0", "--memory")
    served.wait_until_ready()
    topic = {"Name": "t", "NumPartitions": 1, "ReplicationFactor": 1}
    served.call("CreateTopics", 7, {"timeoutMs": 5000, "Topics": [topic]})
    connection = Conn("127.0.0.1", served.port)
    partition = {"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}
    body = {"MaxWaitMs": 600_000, "MinBytes": 1, "MaxBytes": 1 << 20, "SessionEpoch": -1}
    connection.send("Fetch", 12, {**body, "Topics": [{"Topic": "t", "Partitions": [partition]}]})
    time.sleep(0.2)
    served.process.terminate()
    assert served.end()[0] == 0
    connection.close()


def test_a_second_signal_ends_at_once(serve):
    served = serve("--port", "0", "--memory", "--set", "kbroker.drain.timeout.ms=600000")
    served.wait_until_ready()
    topic = {"Name": "t", "NumPartitions": 1, "ReplicationFactor": 1}
    served.call("CreateTopics", 7, {"timeoutMs": 5000, "Topics": [topic]})
    connection = Conn("127.0.0.1", served.port)
    partition = {"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}
    body = {"MaxWaitMs": 600_000, "MinBytes": 1, "MaxBytes": 1 << 20, "SessionEpoch": -1}
    connection.send("Fetch", 12, {**body, "Topics": [{"Topic": "t", "Partitions": [partition]}]})
    time.sleep(0.2)
    served.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    served.process.send_signal(signal.SIGTERM)
    status, _, err = served.end()
    connection.close()
    assert status in (0, 1)
    assert "Traceback" not in err


def test_version():
    done = subprocess.run(
        [sys.executable, "-m", "kbroker", "version"], capture_output=True, text=True, check=True
    )
    assert re.match(r"kbroker \d+\.\d+\.\d+ \(protocol of Apache Kafka 4\.3\.1", done.stdout)
