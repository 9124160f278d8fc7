"""``kbroker serve --trace``: what a real client and the broker say to each other, line by line."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer

from tests.peers.kbroker_process import KbrokerProcess

if TYPE_CHECKING:
    from pathlib import Path

CLIENT_TIMEOUT_S = 30
SECRET = b"nobody reads this in a log"


def produce_one(bootstrap: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "client.id": "traced"})
    producer.produce("orders", SECRET)
    assert producer.flush(CLIENT_TIMEOUT_S) == 0


def trace_of(folder: Path, *arguments: str) -> list[str]:
    """What a broker with these arguments traces while one record is written."""
    with KbrokerProcess(folder, arguments=arguments) as broker:
        produce_one(broker.bootstrap)
        broker.stop()
    lines = broker.error_log.read_text().splitlines()
    assert SECRET.decode() not in "\n".join(lines)
    return [line for line in lines if "traced" in line]


def test_every_request_and_answer_has_a_line(tmp_path: Path) -> None:
    lines = trace_of(tmp_path, "--trace")
    requests = [line for line in lines if " 'traced' > " in line]
    answers = [line for line in lines if " 'traced' < " in line]
    assert len(requests) == len(answers)
    assert any("> ApiVersions v" in line for line in requests)
    produced = next(line for line in requests if "> Produce v" in line)
    assert "records=<records=1 batches=1 " in produced
    assert any("< Produce v" in line and "base_offset=0" in line for line in answers)


def test_named_apis_as_json(tmp_path: Path) -> None:
    lines = trace_of(tmp_path, "--trace=produce", "--trace-format=json")
    request, response = (json.loads(line) for line in lines)
    assert request["api"] == response["api"] == "Produce"
    assert request["correlation_id"] == response["correlation_id"]
    assert request["client_id"] == "traced"
    (topic,) = request["body"]["topic_data"]
    (partition,) = topic["partition_data"]
    assert partition["records"]["records"] == 1
    assert response["ms"] >= 0


def test_an_unknown_api_is_refused_with_a_list() -> None:
    command = [sys.executable, "-m", "kbroker", "serve", "--memory", "--trace=Producing"]
    ended: Any = subprocess.run(
        command, capture_output=True, text=True, timeout=CLIENT_TIMEOUT_S, check=False
    )
    assert ended.returncode == 2
    assert "did you mean Produce?" in ended.stderr
    assert "ListOffsets" in ended.stderr
    assert ended.stdout == ""
