"""The time from a Produce request of one record to its answer, over a plain socket."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING

from benchmarks.load import connect, receive_frame
from benchmarks.process_stats import cpu_seconds
from benchmarks.wire_requests import (
    ACKS_ALL,
    VALUE,
    check_fetched,
    check_produced,
    fetch_request,
    produce_request,
    record_batch,
)

if TYPE_CHECKING:
    from benchmarks.brokers import MeasuredBroker


@dataclass(frozen=True)
class RoundTrips:
    """Latencies and the broker's CPU for each, in microseconds."""

    p50_us: float
    p99_us: float
    cpu_us: float


def measure(broker: MeasuredBroker, topic: str, *, count: int, acks: int = ACKS_ALL) -> RoundTrips:
    """``count`` requests, one after the other, to partition 0 of a topic that is there."""
    request = produce_request(topic, record_batch([VALUE]), acks=acks)
    latencies = []
    with connect(broker.bootstrap) as peer:
        cpu = cpu_seconds(broker.pid)
        for _ in range(count):
            started = time.perf_counter()
            peer.sendall(request)
            answer = receive_frame(peer)
            latencies.append((time.perf_counter() - started) * 1e6)
            check_produced(answer, topic)
        cpu = cpu_seconds(broker.pid) - cpu
    return _summary(latencies, cpu)


def measure_to_consumer(broker: MeasuredBroker, topic: str, *, count: int) -> RoundTrips:
    """The same up to a consumer that waits: from the request to the record in a Fetch answer."""
    request = produce_request(topic, record_batch([VALUE]), acks=ACKS_ALL)
    latencies = []
    with connect(broker.bootstrap) as producer, connect(broker.bootstrap) as consumer:
        producer.sendall(request)
        offset = check_produced(receive_frame(producer), topic) + 1
        cpu = cpu_seconds(broker.pid)
        for number in range(offset, offset + count):
            consumer.sendall(fetch_request(topic, number, max_bytes=65_536, max_wait_ms=5_000))
            time.sleep(0.0003)  # so that it waits when the record comes
            started = time.perf_counter()
            producer.sendall(request)
            fetched = receive_frame(consumer)
            latencies.append((time.perf_counter() - started) * 1e6)
            check_produced(receive_frame(producer), topic)
            if not check_fetched(fetched, topic):
                raise ValueError("a Fetch answer without records")
        cpu = cpu_seconds(broker.pid) - cpu
    return _summary(latencies, cpu)


def _summary(latencies: list[float], cpu_s: float) -> RoundTrips:
    percentiles = quantiles(latencies, n=100)
    return RoundTrips(percentiles[49], percentiles[98], 1e6 * cpu_s / len(latencies))
