"""Metrics of a running broker: names, values, and arithmetic of quantiles."""

import random
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kbroker.broker.broker_server import BrokerServer
from kbroker.broker.local_client import LocalClient
from kbroker.broker.metrics import COUNTER, Family, collect, quantile_ms
from kbroker.broker.request_meter import ApiCounts, MeteredDispatcher
from kbroker.config.broker_config import BrokerConfig

pytestmark = pytest.mark.anyio
SETTINGS = {"listeners": "PLAINTEXT://127.0.0.1:0", "kbroker.metrics.address": "0"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server() -> AsyncIterator[BrokerServer]:
    async with BrokerServer(BrokerConfig.from_properties(SETTINGS), memory=True) as running:
        yield running


async def values(server: BrokerServer) -> dict[tuple[str, tuple[str, ...]], float]:
    """By full name and the labels' values."""
    return {
        (family.name + sample.suffix, tuple(sample.labels.values())): sample.value
        for family in await collect(server)
        for sample in family.samples
    }


async def test_an_idle_broker(server: BrokerServer) -> None:
    found = await values(server)
    assert found["kafka_server_kafkaserver_brokerstate", ()] == 3
    assert found["kafka_controller_kafkacontroller_activecontrollercount", ()] == 1
    assert found["kafka_server_replicamanager_partitioncount", ()] == 0
    assert found["kafka_server_socket_server_metrics_connection_count", ()] == 0
    assert found["kafka_server_brokertopicmetrics_messagesin_total", ()] == 0
    assert found["kafka_server_delayedoperationpurgatory_purgatorysize", ("Fetch",)] == 0


async def test_logs_and_partitions(server: BrokerServer) -> None:
    client = LocalClient(server)
    await client.create_topic("t", partitions=3)
    for _ in range(4):
        await client.produce("t", b"v", partition=1)
    found = await values(server)
    assert found["kafka_server_replicamanager_leadercount", ()] == 3
    assert found["kafka_controller_kafkacontroller_globalpartitioncount", ()] == 3
    assert found["kafka_log_log_logendoffset", ("t", "1")] == 4
    assert found["kafka_log_log_logendoffset", ("t", "0")] == 0
    partition = server.replica_manager.get_leader_partition("t", 1)
    assert found["kafka_log_log_size", ("t", "1")] == partition.log.size > 0


async def test_others_have_their_turn_while_much_is_collected(server: BrokerServer) -> None:
    client = LocalClient(server)
    await client.create_topic("t", partitions=1000)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count_turns)
        await collect(server)
        tasks.cancel_scope.cancel()
    assert turns >= 15  # partitions are looked at three times


async def test_what_consumers_fetch_has_kafkas_second_name(server: BrokerServer) -> None:
    dispatcher = server.dispatcher
    assert isinstance(dispatcher, MeteredDispatcher)
    dispatcher._first_of(1, 12).requests = 3
    found = await values(server)
    assert found["kafka_network_requestmetrics_requests_total", ("Fetch", "12")] == 3
    assert found["kafka_network_requestmetrics_requests_total", ("FetchConsumer", "12")] == 3
    assert found["kafka_network_requestmetrics_totaltimems_count", ("FetchConsumer",)] == 3
    assert ("kbroker_request_bytes_total", ("FetchConsumer",)) not in found


async def test_quantiles_are_named_as_the_jmx_exporter_does(server: BrokerServer) -> None:
    dispatcher = server.dispatcher
    assert isinstance(dispatcher, MeteredDispatcher)
    dispatcher._first_of(18, 0).requests = 1
    (times,) = [family for family in await collect(server) if family.name.endswith("_totaltimems")]
    shown = [sample.labels["quantile"] for sample in times.samples if not sample.suffix]
    assert shown == ["0.50", "0.75", "0.95", "0.98", "0.99", "0.999"]


async def test_counters_end_in_total_and_nothing_is_said_twice(server: BrokerServer) -> None:
    families = await collect(server)
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    for family in families:
        assert family.text
        if family.kind == COUNTER:
            assert {sample.suffix for sample in family.samples} <= {"_total"}
        labels = [tuple(sorted(sample.labels.items())) for sample in family.samples]
        if family.kind in (COUNTER, "gauge"):
            assert len(set(labels)) == len(labels)


async def test_a_sample_has_its_labels() -> None:
    family = Family("f", COUNTER, "text").add(3, topic="t")
    assert family.samples == [("_total", {"topic": "t"}, 3)]


class TestQuantiles:
    async def test_nothing_is_zero(self) -> None:
        assert quantile_ms(ApiCounts(), 0.99) == 0

    async def test_they_are_right_to_a_factor_of_two(self) -> None:
        chance = random.Random(3)
        counts = ApiCounts()
        times = sorted(chance.lognormvariate(6, 1.5) for _ in range(1000))  # us
        for time in times:
            counts.requests += 1
            counts.durations[int(time).bit_length()] += 1
        for quantile in (0.5, 0.75, 0.95, 0.99, 0.999):
            true = times[int(quantile * 1000) - 1] / 1000
            assert true / 2 <= quantile_ms(counts, quantile) <= true * 2
