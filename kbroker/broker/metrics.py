"""What a broker tells of itself, as families of samples; nothing is imported to export them.

Names are those that the JMX exporter gives Apache Kafka's own metrics (lower case, ``_total`` for
counters) and, for lag, those of kafka_exporter, wherever there is such a metric; ``kbroker_``
otherwise. Collecting reads counters that exist anyway and gives way between partitions and groups.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from anyio.lowlevel import checkpoint

from kbroker.broker.request_meter import (
    DURATIONS,
    UNKNOWN_VERSION,
    ApiCounts,
    MeteredDispatcher,
    TopicCounts,
)
from kbroker.protocol.registry import APIS

if TYPE_CHECKING:
    from kbroker.broker.broker_server import BrokerServer

COUNTER, GAUGE, HISTOGRAM, SUMMARY = "counter", "gauge", "histogram", "summary"

_T = TypeVar("_T")

_AT_ONCE: Final = 128
"""Partitions, or what costs as much, in one turn of the loop: less than a millisecond."""
_FETCH: Final = 1
_RUNNING: Final = 3
"""Kafka's BrokerState.RUNNING."""
_QUANTILES: Final = ("0.50", "0.75", "0.95", "0.98", "0.99", "0.999")
"""Those of Kafka's histograms, as the JMX exporter writes them."""
_BOUNDS: Final = tuple(range(7, 25))
"""Duration classes that are bounds of the exported histogram: 128 us to 16.8 s."""


class Sample(NamedTuple):
    """``suffix`` is what follows the family's name."""

    suffix: str
    labels: dict[str, str]
    value: float


class Family:
    """Samples under one name, with what they mean. Counters' samples end in ``_total``."""

    __slots__ = ("kind", "name", "samples", "text")

    def __init__(self, name: str, kind: str, text: str) -> None:
        self.name = name
        self.kind = kind
        self.text = text
        self.samples: list[Sample] = []

    def add(self, value: float, suffix: str = "", **labels: str) -> "Family":
        """One more sample; the family itself, for chains."""
        if self.kind == COUNTER:
            suffix = "_total"
        self.samples.append(Sample(suffix, labels, value))
        return self

    def put(self, value: float, labels: dict[str, str]) -> None:
        """As ``add``, with labels that other samples may have too: nobody changes them."""
        self.samples.append(Sample("_total" if self.kind == COUNTER else "", labels, value))


async def in_turns(items: Iterable[_T]) -> AsyncIterator[_T]:
    """The items; others have their turn in between."""
    for number, item in enumerate(items, 1):
        yield item
        if number % _AT_ONCE == 0:
            await checkpoint()


async def collect(server: "BrokerServer") -> list[Family]:
    """Everything, as of now. The broker must be ready."""
    families = [*_of_network(server), *_of_purgatories(server)]
    families += await _of_cluster(server)
    families += await _of_replicas(server)
    dispatcher = server.dispatcher
    if isinstance(dispatcher, MeteredDispatcher):
        families += _of_requests(dispatcher)
        families += _of_topics(dispatcher)
    families += await _of_logs(server)
    if server.services.metadata.image.topics.get("__consumer_offsets") is not None:
        from kbroker.broker.group_metrics import collect_groups

        families += await collect_groups(server)
    if server.telemetry is not None:
        families += await server.telemetry.families(server.clock.monotonic())
    return families


# -- network


def _of_network(server: "BrokerServer") -> Iterator[Family]:
    counters, network = server.network.counters, server.network
    prefix = "kafka_server_socket_server_metrics_connection"
    yield Family(f"{prefix}_count", GAUGE, "Open connections").add(counters.connections)
    yield Family(f"{prefix}_creation", COUNTER, "Connections accepted").add(
        counters.connections_accepted
    )
    closed = Family(f"{prefix}_close", COUNTER, "Connections closed, by reason")
    for reason, count in sorted(counters.connections_closed_by_reason.items()):
        closed.add(count, reason=reason)
    yield closed
    yield Family("kbroker_connections_refused", COUNTER, "Connections closed at once").add(
        counters.connections_refused
    )
    yield Family("kbroker_network_bytes_in", COUNTER, "Bytes received").add(counters.bytes_in)
    yield Family("kbroker_network_bytes_out", COUNTER, "Bytes sent").add(counters.bytes_out)
    bad = Family("kbroker_bad_frames", COUNTER, "Frames that were no requests, by reason")
    for reason, count in sorted(counters.bad_frames_by_reason.items()):
        bad.add(count, reason=reason)
    yield bad
    yield Family("kbroker_failed_requests", COUNTER, "Requests that a defect ended").add(
        counters.dispatch_failures
    )
    yield Family(
        "kbroker_longest_turn_seconds", GAUGE, "Longest turn of one connection since the start"
    ).add(counters.longest_turn_ms / 1000)
    yield Family(
        "kafka_network_requestchannel_requestqueuesize", GAUGE, "Requests received, not answered"
    ).add(network.queued_requests())
    yield Family(
        "kbroker_queued_request_bytes", GAUGE, "Memory of requests that wait or are arriving"
    ).add(network.settings.budget.used)


# -- requests


def _of_requests(dispatcher: MeteredDispatcher) -> list[Family]:
    requests = Family("kafka_network_requestmetrics_requests", COUNTER, "Requests answered")
    times = Family(
        "kafka_network_requestmetrics_totaltimems",
        SUMMARY,
        "Time to answer in ms; quantiles since the start, good to a factor of 2",
    )
    seconds = Family("kbroker_request_duration_seconds", HISTOGRAM, "Time to answer")
    bytes_in = Family("kbroker_request_bytes", COUNTER, "Bytes of requests")
    bytes_out = Family("kbroker_response_bytes", COUNTER, "Bytes of answers")
    by_api: dict[int, ApiCounts] = {}
    for (key, version), counts in sorted(dispatcher.api_counts().items()):
        label = "unknown" if version == UNKNOWN_VERSION else str(version)
        for name in _kafka_names(key):
            requests.add(counts.requests, request=name, version=label)
        _add_counts(by_api.setdefault(key, ApiCounts()), counts)
    for key, counts in by_api.items():
        name = APIS[key].name
        for each in _kafka_names(key):
            _add_times(times, each, counts)
        _add_durations(seconds, name, counts)
        bytes_in.add(counts.request_bytes, request=name)
        bytes_out.add(counts.response_bytes, request=name)
    refused = Family("kbroker_refused_requests", COUNTER, "Requests that closed their connection")
    return [requests, times, seconds, bytes_in, bytes_out, refused.add(dispatcher.refused)]


def _kafka_names(key: int) -> tuple[str, ...]:
    """Kafka counts what consumers fetch twice; here are no others, for want of followers."""
    name = APIS[key].name
    return (name, f"{name}Consumer") if key == _FETCH else (name,)


def _add_counts(total: ApiCounts, counts: ApiCounts) -> None:
    total.requests += counts.requests
    total.request_bytes += counts.request_bytes
    total.response_bytes += counts.response_bytes
    total.seconds += counts.seconds
    total.durations = [a + b for a, b in zip(total.durations, counts.durations, strict=True)]


def _add_times(times: Family, name: str, counts: ApiCounts) -> None:
    for quantile in _QUANTILES:
        times.add(quantile_ms(counts, float(quantile)), request=name, quantile=quantile)
    times.add(counts.requests, "_count", request=name)
    times.add(counts.seconds * 1000, "_sum", request=name)


def quantile_ms(counts: ApiCounts, quantile: float) -> float:
    """The time that this share of the requests did not exceed, interpolated in its class."""
    wanted = quantile * counts.requests
    before = 0
    for number, count in enumerate(counts.durations):
        if count and before + count >= wanted:
            low = 0.0 if number == 0 else 2.0 ** (number - 1)
            high = 2.0**number
            return (low + (high - low) * (wanted - before) / count) / 1000
        before += count
    return 0.0


def _add_durations(seconds: Family, name: str, counts: ApiCounts) -> None:
    below = 0
    for number in range(DURATIONS):
        below += counts.durations[number]
        if number in _BOUNDS:
            seconds.add(below, "_bucket", request=name, le=str(2**number / 1_000_000))
    seconds.add(counts.requests, "_bucket", request=name, le="+Inf")
    seconds.add(counts.requests, "_count", request=name)
    seconds.add(counts.seconds, "_sum", request=name)


_TOPIC_METRICS: Final = (
    ("messagesin", "messages_in", "Records written"),
    ("bytesin", "bytes_in", "Bytes of batches written"),
    ("bytesout", "bytes_out", "Bytes of batches read"),
    ("bytesrejected", "bytes_rejected", "Bytes of batches refused"),
    ("totalproducerequests", "produces", "Produce requests, counted for each partition"),
    ("totalfetchrequests", "fetches", "Fetch answers, counted for each partition"),
    ("failedproducerequests", "failed_produces", "Those that failed"),
    ("failedfetchrequests", "failed_fetches", "Those that failed"),
)


def _of_topics(dispatcher: MeteredDispatcher) -> Iterator[Family]:
    """As in Kafka: once without a topic, the sum, and once for each topic."""
    topics: dict[str, TopicCounts] = dispatcher.topic_counts()
    total = dispatcher.all_topics()
    for name, attribute, text in _TOPIC_METRICS:
        family = Family(f"kafka_server_brokertopicmetrics_{name}", COUNTER, text)
        family.add(getattr(total, attribute))
        for topic, counts in sorted(topics.items()):
            family.add(getattr(counts, attribute), topic=topic)
        yield family


# -- cluster, partitions, logs


async def _of_cluster(server: "BrokerServer") -> list[Family]:
    image = server.services.metadata.image
    topics = list(image.topics.by_name.values())
    count = offline = 0
    async for partition in in_turns(each for topic in topics for each in topic.partitions):
        count += 1
        offline += partition.leader < 0
    controller = "kafka_controller_kafkacontroller"
    return [
        Family("kafka_server_kafkaserver_brokerstate", GAUGE, "3: running").add(_RUNNING),
        Family(f"{controller}_activecontrollercount", GAUGE, "1: this broker controls").add(
            image.controller_id == server.node_id
        ),
        Family(f"{controller}_activebrokercount", GAUGE, "Brokers alive").add(
            sum(not broker.fenced for broker in image.brokers.values())
        ),
        Family(f"{controller}_globaltopiccount", GAUGE, "Topics").add(len(topics)),
        Family(f"{controller}_globalpartitioncount", GAUGE, "Partitions").add(count),
        Family(f"{controller}_offlinepartitionscount", GAUGE, "Partitions without leader").add(
            offline
        ),
    ]


async def _of_replicas(server: "BrokerServer") -> list[Family]:
    count = led = missing = too_few = 0
    async for partition in in_turns(list(server.replica_manager.partitions())):
        count += 1
        if partition.is_leader:
            led += 1
            missing += len(partition.isr) < len(partition.replicas)
            too_few += len(partition.isr) < partition.effective_min_isr
    manager = "kafka_server_replicamanager"
    return [
        Family(f"{manager}_partitioncount", GAUGE, "Partitions held here").add(count),
        Family(f"{manager}_leadercount", GAUGE, "Partitions led here").add(led),
        Family(f"{manager}_underreplicatedpartitions", GAUGE, "Led, replicas missing").add(missing),
        Family(f"{manager}_underminisrpartitioncount", GAUGE, "Led, acks=all is refused").add(
            too_few
        ),
    ]


def _of_purgatories(server: "BrokerServer") -> list[Family]:
    delayed = server.replica_manager.delayed
    family = Family(
        "kafka_server_delayedoperationpurgatory_purgatorysize",
        GAUGE,
        "Partitions that waiting requests watch, counted for each request",
    )
    for name, purgatory in (
        ("Produce", delayed.produce),
        ("Fetch", delayed.fetch),
        ("DeleteRecords", delayed.delete_records),
    ):
        family.add(purgatory.watchers(), delayedOperation=name)
    return [family]


async def _of_logs(server: "BrokerServer") -> list[Family]:
    size = Family("kafka_log_log_size", GAUGE, "Bytes of a partition's segments")
    start = Family("kafka_log_log_logstartoffset", GAUGE, "First offset of a partition")
    end = Family("kafka_log_log_logendoffset", GAUGE, "Offset of the next record")
    async for partition in in_turns(list(server.replica_manager.partitions())):
        log = partition.log
        labels = {"topic": log.topic, "partition": str(log.partition)}
        size.put(log.size, labels)
        start.put(log.log_start_offset, labels)
        end.put(log.log_end_offset, labels)
    return [size, start, end]
