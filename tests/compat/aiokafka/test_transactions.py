"""aiokafka: commit, abort, fencing, offsets in transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio.to_thread
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tests.compat.aiokafka import clients

if TYPE_CHECKING:
    from tests.compat.broker_under_test import OwnedBroker

pytestmark = pytest.mark.anyio


async def values(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    async with clients.consumer(bootstrap, isolation_level="read_committed") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        return [record.sample.value for record in await clients.receive(consumer, count)]


async def test_committed_records_are_seen_and_aborted_ones_are_not(
    bootstrap: str, topic: str, fresh_name: Any
) -> None:
    await clients.create_topic(bootstrap, topic)
    async with clients.producer(bootstrap, transactional_id=fresh_name("tx")) as producer:
        for number in range(5):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"%d" % number, partition=0)
            if number % 2:
                await producer.abort_transaction()
            else:
                await producer.commit_transaction()
    assert await values(bootstrap, topic, 3) == [b"0", b"2", b"4"]


async def test_a_second_producer_fences_the_first(
    bootstrap: str, topic: str, fresh_name: Any
) -> None:
    await clients.create_topic(bootstrap, topic)
    transactional_id = fresh_name("tx")
    async with clients.producer(bootstrap, transactional_id=transactional_id) as first:
        await first.begin_transaction()
        await first.send_and_wait(topic, b"zombie", partition=0)
        async with clients.producer(bootstrap, transactional_id=transactional_id) as second:
            with pytest.raises(KafkaError):
                await first.commit_transaction()
            async with second.transaction():
                await second.send_and_wait(topic, b"new", partition=0)
    assert await values(bootstrap, topic, 1) == [b"new"]


async def test_offsets_count_with_the_transaction(
    bootstrap: str, topic: str, group: str, fresh_name: Any
) -> None:
    await clients.create_topic(bootstrap, topic)
    partition = TopicPartition(topic, 0)
    async with clients.producer(bootstrap, transactional_id=fresh_name("tx")) as producer:
        async with producer.transaction():
            await producer.send_offsets_to_transaction({partition: 3}, group)
        await producer.begin_transaction()
        await producer.send_offsets_to_transaction({partition: 8}, group)
        await producer.abort_transaction()
    async with clients.consumer(bootstrap, group=group) as consumer:
        assert await consumer.committed(partition) == 3


async def test_an_open_transaction_survives_kill_9(owned_broker: OwnedBroker, topic: str) -> None:
    bootstrap = owned_broker.bootstrap
    await clients.create_topic(bootstrap, topic)
    async with clients.producer(bootstrap, transactional_id="tx") as producer:
        for number in range(2):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"before %d" % number, partition=0)
            await anyio.to_thread.run_sync(owned_broker.kill)
            await anyio.to_thread.run_sync(owned_broker.start)
            await producer.send_and_wait(topic, b"after %d" % number, partition=0)
            if number:
                await producer.commit_transaction()
            else:
                await producer.abort_transaction()
    assert await values(bootstrap, topic, 2) == [b"before 1", b"after 1"]
