"""The data directory, as Kafka's own tool reads it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.compat.java.dump_log import COMPLAINTS, dump
from tests.compat.kafka_python import clients
from tests.compat.samples import Sample, now_ms
from tests.peers import kafka_tools

if TYPE_CHECKING:
    from pathlib import Path

    from tests.compat.broker_under_test import OwnedBroker
    from tests.peers.kafka_tools import KafkaTools


def _segment(data_dir: Path, topic: str) -> Path:
    (found,) = data_dir.glob(f"**/{topic}-0/00000000000000000000.log")
    return found


def test_kafka_reads_our_segments_and_indexes(
    tools: KafkaTools, owned_broker: OwnedBroker, topic: str
) -> None:
    """kafka-dump-log finds every record, no bad CRC and no index entry that points astray."""
    bootstrap = owned_broker.bootstrap
    clients.create_topic(bootstrap, topic, configs={"index.interval.bytes": "1000"})
    start = now_ms() - 100_000
    samples = [Sample(b"k%d" % n, b"v%d" % n * 50, start + n) for n in range(500)]
    clients.produce(bootstrap, topic, samples, batch_size=4000, compression_type="gzip")
    owned_broker.stop()
    segment = _segment(owned_broker.data_dir, topic)
    index, time_index = segment.with_suffix(".index"), segment.with_suffix(".timeindex")

    dumped = tools.run(kafka_tools.DUMP_LOG, "--files", str(segment), "--print-data-log")

    assert re.findall(r"offset: (\d+).* key: (\S+) payload", dumped) == [
        (str(n), f"k{n}") for n in range(500)
    ]
    assert dumped.count("isvalid: true") >= 5
    assert "isvalid: false" not in dumped
    for file in (index, time_index):
        _, errors = dump(tools, [file], "--verify-index-only")
        assert not [line for line in errors.splitlines() if any(c in line for c in COMPLAINTS)]
    assert index.stat().st_size > 0, "a log of this size has index entries"
