"""aiokafka: the broker stops, or is killed, and comes back on the same data directory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio.to_thread
import pytest
from aiokafka import TopicPartition

from tests.compat.aiokafka import clients
from tests.compat.samples import Sample, now_ms, of_partition, varied_samples

if TYPE_CHECKING:
    from tests.compat.broker_under_test import OwnedBroker

pytestmark = pytest.mark.anyio

# After kill -9 Apache Kafka needs half a minute until it leads its partitions again.
RECOVERY_S = 120.0


async def _end_and_start(broker: OwnedBroker, how: str) -> None:
    """In a thread: the clients of this loop must live on meanwhile."""
    await anyio.to_thread.run_sync(broker.stop if how == "stopped" else broker.kill)
    await anyio.to_thread.run_sync(broker.start)


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_records_topics_and_offsets_survive(
    owned_broker: OwnedBroker, topic: str, group: str, how: str
) -> None:
    """New clients after the restart find everything that was acknowledged before it."""
    bootstrap = owned_broker.bootstrap
    sent = {partition: varied_samples(100, seed=partition) for partition in range(3)}
    await clients.create_topic(bootstrap, topic, partitions=3)
    for partition, samples in sent.items():
        await clients.produce(bootstrap, topic, samples, partition, compression_type="zstd")
    partition_1 = TopicPartition(topic, 1)
    async with clients.consumer(bootstrap, group=group) as consumer:
        consumer.assign([partition_1])
        await consumer.commit({partition_1: 77})

    await _end_and_start(owned_broker, how)

    received = await clients.read_topic(bootstrap, topic, 300, partitions=3)
    assert {partition: of_partition(received, partition) for partition in range(3)} == sent
    async with clients.consumer(bootstrap, group=group) as consumer:
        consumer.assign([partition_1])
        assert await consumer.committed(partition_1) == 77


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_clients_that_stay_connected_go_on(
    owned_broker: OwnedBroker, topic: str, group: str, how: str
) -> None:
    """One producer and one group member live through the restart and miss nothing."""
    bootstrap = owned_broker.bootstrap
    await clients.create_topic(bootstrap, topic)
    values = [b"%d" % number for number in range(100)]
    patient = {"enable_idempotence": True, "request_timeout_ms": int(RECOVERY_S * 1000)}
    async with (
        clients.producer(bootstrap, **patient) as producer,
        clients.consumer(bootstrap, topic, group=group) as consumer,
    ):
        before = [Sample(None, value, now_ms()) for value in values[:40]]
        await clients.send(producer, topic, before)
        received = await clients.receive(consumer, 40)
        seen = {record.offset: record.sample.value for record in received}
        await consumer.commit()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_end_and_start(owned_broker, how))
            for value in values[40:]:
                await producer.send(topic, value)
        await asyncio.wait_for(producer.flush(), RECOVERY_S)

        async def all_seen() -> bool:
            found = await consumer.getmany(timeout_ms=200)
            seen.update({r.offset: r.value for batch in found.values() for r in batch})
            return len(seen) == 100

        await clients.eventually(all_seen, what="all records come", timeout_s=RECOVERY_S)
    assert [seen[offset] for offset in range(100)] == values
