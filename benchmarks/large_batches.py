"""Batches of 1 MiB, one request under way on each of a few connections: CPU for each MiB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import warm_memory
from benchmarks.load import keep_busy
from benchmarks.throughput import RECORD_SIZE, values
from benchmarks.wire_requests import (
    ACKS_ALL,
    check_fetched,
    check_produced,
    fetch_request,
    produce_request,
    record_batch,
)

if TYPE_CHECKING:
    from benchmarks.brokers import MeasuredBroker

MIB = 1 << 20
CONNECTIONS = 4
_RECORDS = 1010  # with their lengths just below max.message.bytes
_BATCHES = 64  # fetched again and again


def _batch() -> bytes:
    different = values(RECORD_SIZE)
    return record_batch([different[number % len(different)] for number in range(_RECORDS)])


def produce(broker: MeasuredBroker, topic: str, *, count: int) -> float:
    """CPU us of the broker for each MiB of ``count`` batches, acks=all, every record validated."""
    batch = _batch()
    warm_memory.touch(count * len(batch))
    load = keep_busy(
        broker,
        [produce_request(topic, batch, acks=ACKS_ALL)],
        connections=CONNECTIONS,
        count=count,
        check=lambda answer: check_produced(answer, topic),
    )
    return load.cpu_us_per_request * MIB / len(batch)


def fetch(broker: MeasuredBroker, topic: str, *, count: int) -> float:
    """CPU us of the broker for each MiB of ``count`` answers of one batch, from the page cache."""
    batch = _batch()
    keep_busy(
        broker,
        [produce_request(topic, batch, acks=ACKS_ALL)],
        connections=1,
        count=_BATCHES,
        check=lambda answer: check_produced(answer, topic),
    )

    def check(answer: memoryview) -> None:
        if (size := check_fetched(answer, topic)) != len(batch):
            raise ValueError(f"{size} bytes of records instead of {len(batch)}")

    offsets = [number * _RECORDS for number in range(_BATCHES)]
    requests = [fetch_request(topic, offset, max_bytes=len(batch)) for offset in offsets]
    load = keep_busy(broker, requests, connections=CONNECTIONS, count=count, check=check)
    return load.cpu_us_per_request * MIB / len(batch)
