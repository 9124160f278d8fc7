"""kafka-producer-perf-test and kafka-consumer-perf-test: the Java clients, measuring themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from benchmarks.throughput import RECORD_SIZE
from tests.peers import kafka_tools

if TYPE_CHECKING:
    from benchmarks.brokers import MeasuredBroker
    from tests.peers.kafka_tools import KafkaTools

_SENT = re.compile(r"(\d+) records sent, ([\d.,]+) records/sec")
FLAGS = ("-Xms256m", "-Xmx512m", "-server", "-XX:+UseG1GC")  # as bin/kafka-run-class.sh's


def produce(
    tools: KafkaTools, broker: MeasuredBroker, topic: str, *, records: int, acks: str
) -> float:
    """Records per second as the tool reports them for the whole run."""
    printed = tools.run(
        kafka_tools.PRODUCER_PERFORMANCE,
        *("--topic", topic, "--num-records", str(records), "--record-size", str(RECORD_SIZE)),
        *("--throughput", "-1", "--bootstrap-server", broker.bootstrap),
        *("--command-property", f"acks={acks}"),
        timeout_s=300,
        flags=FLAGS,
    )
    for line in reversed(printed.splitlines()):
        found = _SENT.search(line)
        if found is not None and int(found[1]) == records:
            return float(found[2].replace(",", ""))
    raise ValueError(f"the tool did not say what it sent:\n{printed}")


def consume(tools: KafkaTools, broker: MeasuredBroker, topic: str, *, records: int) -> float:
    """Records per second while it fetched, without the time that its group took to form."""
    printed = tools.run(
        kafka_tools.CONSUMER_PERFORMANCE,
        *("--bootstrap-server", broker.bootstrap, "--topic", topic),
        *("--num-records", str(records), "--timeout", "60000"),
        timeout_s=300,
        flags=FLAGS,
    )
    header, row = (line.split(", ") for line in printed.strip().splitlines()[-2:])
    if float(row[header.index("data.consumed.in.nMsg")]) < records:
        raise ValueError(f"the tool did not read all:\n{printed}")
    return float(row[header.index("fetch.nMsg.sec")])
