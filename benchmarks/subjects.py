"""What is measured, subject by subject: each measures one broker once and adds to the lines.

``kinds`` says which brokers a subject is for: those that keep records in files (``ALL``), and the
mock, which keeps nothing.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import (
    groups,
    large_batches,
    perf_tools,
    round_trip,
    small_requests,
    throughput,
    transactions,
)
from benchmarks.brokers import COMPILED, GATHERING
from benchmarks.mock_cluster import MockCluster
from benchmarks.paced_producer import paced_producer
from benchmarks.table import OURS, PEER
from benchmarks.wire_requests import ACKS_ALL, LEADER_ONLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.brokers import MeasuredBroker
    from benchmarks.table import Figures
    from tests.peers.kafka_tools import KafkaTools

    Measure = Callable[["MeasuredBroker", "Figures", "Size"], None]

BOTH = frozenset({OURS, PEER})
ALL = BOTH | {COMPILED}
WITH_MOCK = ALL | {MockCluster.name}
SIZES = ((100, "100 B"), (1024, "1 KiB"))
CODECS = ("none", "lz4", "zstd")
PARTITION_COUNTS = (1, 12)
OTHERS_RATE = 20_000


class Size:
    """How much is measured: ``full`` for figures to publish, otherwise for a look."""

    def __init__(self, *, full: bool, share: float = 1.0) -> None:
        def count(many: int, few: int) -> int:
            return max(200, int(share * (many if full else few)))

        self.rounds = 5 if full else 1
        self.idle_s = 10.0 if full else 2.0
        self.starts = 7 if full else 3
        self.embedded = 50 if full else 20
        self.records = count(200_000, 30_000)
        self.small_records = count(500_000, 50_000)
        self.tool_records = count(500_000, 100_000)
        self.round_trips = count(10_000, 2_000)
        self.requests = count(50_000, 5_000)
        self.large_requests = count(1_000, 200)
        self.warm_up_records = count(100_000, 100_000)
        self.warm_up_requests = count(20_000, 20_000)


@dataclass(frozen=True)
class Subject:
    """``name`` is what --only is compared with."""

    name: str
    measure: Measure
    kinds: frozenset[str] = ALL


def subjects(tools: KafkaTools | None) -> Iterator[Subject]:
    """All of them, in the order of the table; Kafka's tools only where they can be had."""
    for size, shown in SIZES:
        for codec in CODECS:
            for partitions in PARTITION_COUNTS:
                name = f"{shown}, {codec}, {partitions} partitions"
                measure = partial(_throughput, name, size, codec, partitions)
                yield Subject(f"throughput {name}", measure)
    yield Subject("throughput mock", _mock_throughput, WITH_MOCK)
    for acks, shown in ((LEADER_ONLY, "1"), (ACKS_ALL, "all")):
        yield Subject(f"round trip acks={shown}", partial(_round_trip, acks, shown), WITH_MOCK)
    yield Subject("round trip to a consumer", _to_consumer, BOTH)
    yield Subject("round trip beside another producer", _beside, WITH_MOCK)
    yield Subject("small metadata", _metadata, WITH_MOCK)
    yield Subject("small produce", _one_record, WITH_MOCK)
    for name, of_clients in (*groups.subjects(), *transactions.subjects()):
        yield Subject(name, of_clients, BOTH)
    yield Subject("large produce", _large_produce)
    yield Subject("large fetch", _large_fetch, ALL | {GATHERING})
    if tools is not None:
        for acks_name in ("1", "all"):
            for partitions in PARTITION_COUNTS:
                shown = f"acks={acks_name}, {partitions} partitions"
                tool = partial(_tool_produce, tools, acks_name, partitions)
                yield Subject(f"tools produce {shown}", tool, BOTH)
        yield Subject("tools consume", partial(_tool_consume, tools), BOTH)


def warm_up(broker: MeasuredBroker, size: Size) -> None:
    """A JVM needs it before its figures mean anything; the others get the same."""
    if broker.name in ALL:
        topic = _topic(broker, 1)
        throughput.produce(broker, topic, records=size.warm_up_records)
        throughput.consume(broker, topic, records=size.warm_up_records, partitions=1)
    topic = _topic(broker, 1)
    half = size.warm_up_requests // 2
    small_requests.one_record_produce(broker, topic, count=half)
    small_requests.metadata(broker, topic, count=half)


def _topic(broker: MeasuredBroker, partitions: int) -> str:
    topic = f"benchmark-{uuid.uuid4().hex[:8]}"
    if broker.name == MockCluster.name:
        small_requests.have_created(broker, topic)
    else:
        throughput.create_topic(broker.bootstrap, topic, partitions)
        small_requests.wait_until_led(broker, topic)
    return topic


def _throughput(
    name: str,
    size: int,
    codec: str,
    partitions: int,
    broker: MeasuredBroker,
    figures: Figures,
    how_much: Size,
) -> None:
    records = how_much.records if size > 100 else how_much.small_records
    topic = _topic(broker, partitions)
    produced = throughput.produce(broker, topic, records=records, size=size, codec=codec)
    consumed = throughput.consume(broker, topic, records=records, partitions=partitions)
    for verb, run, rate, cpu in (
        ("produce", produced, 1.3, "0.45"),
        ("consume", consumed, 1.0, "0.5"),
    ):
        line = figures.line(f"{verb} {name}", "records/s", digits=0, target=f"ratio >= {rate}")
        line.add(broker.name, run.records_per_s)
        line = figures.line(f"{verb} {name}: CPU", "us/record", digits=2, target=f"ratio <= {cpu}")
        line.add(broker.name, run.cpu_us_per_record)


def _mock_throughput(broker: MeasuredBroker, figures: Figures, size: Size) -> None:
    """The mock makes topics of four partitions; one of them is written to, of every broker."""
    topic = _topic(broker, 4)
    run = throughput.produce(broker, topic, records=size.records, partition=0)
    name = "produce 1 KiB, none, 1 partition of 4"
    figures.line(name, "records/s", digits=0).add(broker.name, run.records_per_s)
    figures.line(f"{name}: CPU", "us/record", digits=2).add(broker.name, run.cpu_us_per_record)


def _round_trip(
    acks: int, shown: str, broker: MeasuredBroker, figures: Figures, size: Size
) -> None:
    trips = round_trip.measure(broker, _topic(broker, 1), count=size.round_trips, acks=acks)
    name = f"round trip of one record, acks={shown}"
    _add_trips(name, trips, broker, figures, p50="ratio <= 0.5", p99="ratio <= 0.25")


def _to_consumer(broker: MeasuredBroker, figures: Figures, size: Size) -> None:
    trips = round_trip.measure_to_consumer(broker, _topic(broker, 1), count=size.round_trips // 2)
    _add_trips("one record to a waiting consumer", trips, broker, figures)


def _beside(broker: MeasuredBroker, figures: Figures, size: Size) -> None:
    other, own = _topic(broker, 4), _topic(broker, 1)
    with paced_producer(broker.bootstrap, other, records_per_s=OTHERS_RATE):
        trips = round_trip.measure(broker, own, count=size.round_trips)
    name = f"round trip beside {OTHERS_RATE:,} records/s"
    figures.line(f"{name}, p50", "us", digits=0).add(broker.name, trips.p50_us)
    figures.line(f"{name}, p99", "us", digits=0, target="ratio <= 0.3").add(
        broker.name, trips.p99_us
    )


def _add_trips(
    name: str,
    trips: round_trip.RoundTrips,
    broker: MeasuredBroker,
    figures: Figures,
    *,
    p50: str = "",
    p99: str = "",
) -> None:
    figures.line(f"{name}, p50", "us", digits=0, target=p50).add(broker.name, trips.p50_us)
    figures.line(f"{name}, p99", "us", digits=0, target=p99).add(broker.name, trips.p99_us)
    figures.line(f"{name}: CPU", "us/request").add(broker.name, trips.cpu_us)


def _metadata(broker: MeasuredBroker, figures: Figures, size: Size) -> None:
    load = small_requests.metadata(broker, _topic(broker, 1), count=size.requests)
    name = f"Metadata from {small_requests.METADATA_CONNECTIONS} connections"
    figures.line(name, "requests/s", digits=0).add(broker.name, load.requests_per_s)
    line = figures.line(f"{name}: CPU", "us/request", target="<= 20, ratio <= 0.8")
    line.add(broker.name, load.cpu_us_per_request)


def _one_record(broker: MeasuredBroker, figures: Figures, size: Size) -> None:
    load = small_requests.one_record_produce(broker, _topic(broker, 1), count=size.requests)
    name = f"one-record produce from {small_requests.PRODUCE_CONNECTIONS} connections"
    figures.line(name, "requests/s", digits=0).add(broker.name, load.requests_per_s)
    line = figures.line(f"{name}: CPU", "us/request", target="<= 30, ratio <= 0.8")
    line.add(broker.name, load.cpu_us_per_request)


def _large_produce(broker: MeasuredBroker, figures: Figures, size: Size) -> None:
    cpu_us = large_batches.produce(broker, _topic(broker, 1), count=size.large_requests)
    figures.line("produce batches of 1 MiB: CPU", "us/MiB", digits=0).add(broker.name, cpu_us)


def _large_fetch(broker: MeasuredBroker, figures: Figures, size: Size) -> None:
    cpu_us = large_batches.fetch(broker, _topic(broker, 1), count=size.large_requests)
    target = f"<= 150; {GATHERING} <= 400"
    line = figures.line("fetch 1 MiB: CPU", "us/MiB", digits=0, target=target)
    line.add(broker.name, cpu_us)


def _tool_produce(
    tools: KafkaTools,
    acks: str,
    partitions: int,
    broker: MeasuredBroker,
    figures: Figures,
    size: Size,
) -> None:
    topic = _topic(broker, partitions)
    rate = perf_tools.produce(tools, broker, topic, records=size.tool_records, acks=acks)
    name = f"kafka-producer-perf-test acks={acks}, {partitions} partitions"
    line = figures.line(name, "records/s", digits=0, target="ratio >= 1")
    line.add(broker.name, rate)


def _tool_consume(tools: KafkaTools, broker: MeasuredBroker, figures: Figures, size: Size) -> None:
    topic = _topic(broker, 12)
    throughput.produce(broker, topic, records=size.tool_records)
    rate = perf_tools.consume(tools, broker, topic, records=size.tool_records)
    name = "kafka-consumer-perf-test, 12 partitions"
    line = figures.line(name, "records/s", digits=0, target="ratio >= 0.9")
    line.add(broker.name, rate)
