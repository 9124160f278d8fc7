"""Transactions: how many a second, and what they cost over plain idempotent produce.

One producer of confluent-kafka, ``acks=all``, records of 100 bytes to one partition, a transaction
after the other; beside it an idempotent producer that sends as many records and waits for them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer

from benchmarks import small_requests, throughput
from benchmarks.process_stats import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.brokers import MeasuredBroker
    from benchmarks.table import Figures

    Measure = Callable[["MeasuredBroker", "Figures", Any], None]

RECORD_COUNTS = (1, 10, 100)
RECORD_SIZE = 100
WARM_UP_TRANSACTIONS = 50
PATIENCE_S = 60.0
REQUESTS_A_TRANSACTION = 10
"""The sizes of a run are counted in requests."""


@dataclass(frozen=True)
class Run:
    """Batches of records, each waited for before the next: in transactions, or without."""

    count: int
    seconds: float
    broker_cpu_s: float

    @property
    def per_s(self) -> float:
        return self.count / self.seconds

    @property
    def cpu_us(self) -> float:
        """Of the broker, for each."""
        return 1e6 * self.broker_cpu_s / self.count


def subjects() -> Iterator[tuple[str, Measure]]:
    """Names for --only, and what measures."""
    for records in RECORD_COUNTS:
        yield f"transactions of {records} records", partial(_measure, records)


def _measure(records: int, broker: MeasuredBroker, figures: Figures, size: Any) -> None:
    count = max(20, size.requests // REQUESTS_A_TRANSACTION)
    topic = f"transactions-{records}-{time.monotonic_ns()}"
    throughput.create_topic(broker.bootstrap, topic, 1)
    small_requests.wait_until_led(broker, topic)
    plain = run(broker, topic, records=records, count=count, transactional_id="")
    within = run(broker, topic, records=records, count=count, transactional_id=topic)
    name = f"transactions of {records} records"
    figures.line(name, "transactions/s", digits=0, target="ratio >= 1").add(
        broker.name, within.per_s
    )
    figures.line(f"{name}: CPU", "us/transaction", digits=0, target="ratio <= 0.8").add(
        broker.name, within.cpu_us
    )
    line = figures.line(f"{name}: time over idempotent", "times", digits=2)
    line.add(broker.name, plain.per_s / within.per_s)
    line = figures.line(f"{name}: CPU over idempotent", "times", digits=2)
    line.add(broker.name, within.cpu_us / plain.cpu_us)


def run(
    broker: MeasuredBroker, topic: str, *, records: int, count: int, transactional_id: str
) -> Run:
    """``count`` times ``records`` records, in transactions when there is a transactional id."""
    settings: dict[str, Any] = {
        "bootstrap.servers": broker.bootstrap,
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 0,
    }
    if transactional_id:
        settings["transactional.id"] = transactional_id
    failures: list[Any] = []

    def delivered(error: Any, _: Any) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer(settings)
    if transactional_id:
        producer.init_transactions(PATIENCE_S)
    value = bytes(RECORD_SIZE)
    cpu = started = 0.0
    for number in range(-WARM_UP_TRANSACTIONS, count):
        if number == 0:
            cpu, started = cpu_seconds(broker.pid), time.perf_counter()
        if transactional_id:
            producer.begin_transaction()
        for _ in range(records):
            producer.produce(topic, value, on_delivery=delivered)
        if transactional_id:
            producer.commit_transaction(PATIENCE_S)
        elif producer.flush(PATIENCE_S):
            raise TimeoutError("records are still in flight")
    seconds = time.perf_counter() - started
    if failures:
        raise RuntimeError(f"{len(failures)} records were refused: {failures[:1]}")
    return Run(count, seconds, cpu_seconds(broker.pid) - cpu)
