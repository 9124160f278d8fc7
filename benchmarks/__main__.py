"""``python -m benchmarks``: the first figures, beside Apache Kafka where Java and Maven are there.

The brokers run at the same time and are measured in turn, ours-theirs-theirs-ours, so that a noisy
moment of the machine falls on both. A JVM is warmed with 100,000 records first. Medians are
printed, of the start the best of five; a ratio is ours over theirs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import client_cycle, embedded, round_trip, throughput
from benchmarks.brokers import BrokerFactory, seconds_to_first_answer
from benchmarks.process_stats import idle_cpu_percent, rss_mb
from benchmarks.table import OURS, PEER, Figures
from tests.peers.apache_kafka import ApacheKafka
from tests.peers.kbroker_process import KbrokerProcess
from tests.peers.maven import kafka_jars
from tests.peers.require import PeerUnavailable

if TYPE_CHECKING:
    from benchmarks.brokers import MeasuredBroker

WARM_UP_RECORDS = 100_000
WARM_UP_ROUND_TRIPS = 2_000
STARTS = 5
PARTITION_COUNTS = (1, 12)
KINDS: dict[str, type[KbrokerProcess] | type[ApacheKafka]] = {
    OURS: KbrokerProcess,
    PEER: ApacheKafka,
}


class Size:
    """How much is measured: ``quick`` for a look, ``full`` for figures to publish."""

    def __init__(self, *, full: bool) -> None:
        self.idle_s = 10.0 if full else 3.0
        # Four rounds over two topics: 1 GB per broker at full size.
        self.records = 125_000 if full else 50_000
        self.round_trips = 10_000 if full else 2_000
        self.embedded = 50 if full else 20
        self.repeats = 2 if full else 1


def main() -> int:
    options = _options()
    size = Size(full=options.full)
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="kbroker-benchmarks-") as scratch:
        factories = _factories(Path(scratch), options.brokers.split(","))
        if any(factory.name == OURS for factory in factories):
            _measure_embedded(figures, size)
        _measure_starts(figures, factories)
        brokers = [factory.make() for factory in factories]
        try:
            for broker in brokers:
                broker.start()
                _measure_idle(figures, broker, size)
            _warm_up(brokers)
            for _ in range(size.repeats):
                for broker in (*brokers, *reversed(brokers)):
                    _measure_round(figures, broker, size)
            for broker in brokers:
                _rss(figures, "RSS at the end", broker, target="<= 64")
        finally:
            for broker in brokers:
                broker.kill()
    print(figures.render())
    if options.json:
        options.json.write_text(figures.as_json())
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="1 GB per broker, more rounds")
    parser.add_argument("--brokers", default=f"{OURS},{PEER}", help="names, comma between them")
    parser.add_argument("--json", type=Path, help="also write every single value to this file")
    return parser.parse_args()


def _factories(folder: Path, names: list[str]) -> list[BrokerFactory]:
    """In the order of ``names``; Apache Kafka is left out, with a word, where it cannot be had."""
    factories = []
    for name in names:
        kind = KINDS[name]
        if kind is ApacheKafka:
            try:
                kafka_jars()
            except PeerUnavailable as missing:
                _progress(f"without Apache Kafka: {missing}")
                continue
        factories.append(BrokerFactory(kind, folder))
    return factories


def _measure_embedded(figures: Figures, size: Size) -> None:
    _progress("in-process brokers")
    for up_ms, down_ms in embedded.start_and_stop_ms(size.embedded + 1)[1:]:
        figures.line("in-process start", "ms", digits=2, target="<= 5").add(OURS, up_ms)
        figures.line("in-process stop", "ms", digits=2, target="<= 5").add(OURS, down_ms)


def _measure_starts(figures: Figures, factories: list[BrokerFactory]) -> None:
    line = figures.line("start to first answer", "ms", digits=0, best=True, target="<= 150")
    for factory in factories:
        for number in range(STARTS):
            _progress(f"{factory.name}: start {number + 1}")
            line.add(factory.name, seconds_to_first_answer(factory) * 1000)


def _measure_idle(figures: Figures, broker: MeasuredBroker, size: Size) -> None:
    _progress(f"{broker.name}: idle")
    _rss(figures, "RSS when ready", broker, target="<= 40")
    figures.line("idle CPU when ready", "% of a core", target="< 1").add(
        broker.name, idle_cpu_percent(broker.pid, seconds=size.idle_s)
    )
    _progress(f"{broker.name}: a cycle of each client")
    client_cycle.run_all(broker.bootstrap, "cycle")
    _rss(figures, "RSS after client cycles", broker)
    figures.line("idle CPU after client cycles", "% of a core", target="< 1").add(
        broker.name, idle_cpu_percent(broker.pid, seconds=size.idle_s)
    )


def _rss(figures: Figures, name: str, broker: MeasuredBroker, *, target: str = "") -> None:
    figures.line(name, "MB", target=target).add(broker.name, rss_mb(broker.pid))


def _warm_up(brokers: list[MeasuredBroker]) -> None:
    for broker in brokers:
        _progress(f"{broker.name}: warm-up")
        throughput.create_topic(broker.bootstrap, "warm-up", 1)
        throughput.produce(broker, "warm-up", records=WARM_UP_RECORDS)
        throughput.consume(broker, "warm-up", records=WARM_UP_RECORDS, partitions=1)
        round_trip.measure(broker, "warm-up", count=WARM_UP_ROUND_TRIPS)


def _measure_round(figures: Figures, broker: MeasuredBroker, size: Size) -> None:
    for partitions in PARTITION_COUNTS:
        _progress(f"{broker.name}: {partitions} partitions")
        topic = f"benchmark-{uuid.uuid4().hex[:8]}"
        throughput.create_topic(broker.bootstrap, topic, partitions)
        produced = throughput.produce(broker, topic, records=size.records)
        consumed = throughput.consume(broker, topic, records=size.records, partitions=partitions)
        for verb, run in (("produce", produced), ("consume", consumed)):
            name = f"{verb} 1 KiB, {partitions} partitions"
            figures.line(name, "records/s", digits=0, target="ratio >= 1").add(
                broker.name, run.records_per_s
            )
            figures.line(f"{name}: CPU", "us/record", digits=2, target="ratio <= 0.6").add(
                broker.name, run.cpu_us_per_record
            )
    topic = f"benchmark-{uuid.uuid4().hex[:8]}"
    throughput.create_topic(broker.bootstrap, topic, 1)
    trips = round_trip.measure(broker, topic, count=size.round_trips)
    figures.line("round trip of one record, p50", "us", digits=0).add(broker.name, trips.p50_us)
    figures.line("round trip of one record, p99", "us", digits=0).add(broker.name, trips.p99_us)


def _progress(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
