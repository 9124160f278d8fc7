"""Unmodified clients on brokers of this very process: each form with the clients it is for."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from kbroker import Broker, BrokerThread
from tests.compat.kafka_python import clients as kafka_python

COUNT = 50


def test_aiokafka_in_the_same_loop(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[bytes]:
        async with Broker() as broker:
            address = broker.bootstrap_servers
            await broker.create_topic("orders", partitions=3)
            async with AIOKafkaProducer(bootstrap_servers=address, acks="all") as producer:
                for number in range(COUNT):
                    await producer.send_and_wait("orders", b"%d" % number, key=b"%d" % number)
            consumer = AIOKafkaConsumer(
                "orders",
                bootstrap_servers=address,
                group_id="readers",
                auto_offset_reset="earliest",
            )
            async with asyncio.timeout(30), consumer:
                received = [(await consumer.getone()).value for _ in range(COUNT)]
                await consumer.commit()
            stored = await broker.consume("orders", count=COUNT)
            assert sorted(record.value or b"" for record in stored) == sorted(received)
            return received

    received = asyncio.run(main())
    assert sorted(received) == sorted(b"%d" % number for number in range(COUNT))
    assert not [r for r in caplog.records if r.name.startswith("kbroker.embedded")]


def test_confluent_kafka_beside_a_broker_thread() -> None:
    with BrokerThread() as broker:
        address = {"bootstrap.servers": broker.bootstrap_servers}
        admin = AdminClient(address)
        admin.create_topics([NewTopic("orders", 2)])["orders"].result(30)
        producer = Producer({**address, "enable.idempotence": True})
        for number in range(COUNT):
            producer.produce("orders", b"%d" % number, key=b"%d" % number)
        assert producer.flush(30) == 0
        assert {r.value for r in broker.consume("orders", count=COUNT)} == {
            b"%d" % number for number in range(COUNT)
        }
        consumer = Consumer({**address, "group.id": "readers", "auto.offset.reset": "earliest"})
        try:
            consumer.subscribe(["orders"])
            received: list[Any] = []
            while len(received) < COUNT:
                messages = consumer.consume(COUNT, timeout=30)
                assert messages, "nothing more within 30 s"
                assert not [message.error() for message in messages if message.error()]
                received += messages
        finally:
            consumer.close()
        assert len({message.value() for message in received}) == COUNT


def test_kafka_python_beside_a_broker_thread() -> None:
    with BrokerThread() as broker:
        broker.create_topic("orders")
        producer = kafka_python.producer(broker.bootstrap_servers)
        try:
            for number in range(COUNT):
                producer.send("orders", b"%d" % number)
            producer.flush(30)
        finally:
            producer.close()
        broker.produce("orders", "last")
        consumer = kafka_python.consumer(broker.bootstrap_servers, "readers")
        try:
            kafka_python.subscribe(consumer, "orders")
            received: list[bytes] = []
            while len(received) < COUNT + 1:
                polled = consumer.poll(timeout_ms=30_000)
                assert polled, "nothing more within 30 s"
                received += [record.value for records in polled.values() for record in records]
        finally:
            consumer.close()
        assert received == [b"%d" % number for number in range(COUNT)] + [b"last"]


def test_a_client_that_blocks_in_the_brokers_loop_is_told_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The newcomer's first try: it cannot work, and says within the client's patience why not."""
    from kafka.errors import KafkaError

    async def main() -> None:
        async with Broker() as broker:
            with pytest.raises(KafkaError):
                kafka_python.producer(
                    broker.bootstrap_servers, bootstrap_timeout_ms=2500, max_block_ms=2500
                )

    asyncio.run(main())
    told = [r.getMessage() for r in caplog.records if r.name == "kbroker.embedded"]
    assert len(told) == 1
    assert "with BrokerThread()" in told[0]
    assert "kafka" in told[0], "it names the client's code"
    assert logging.getLogger("kbroker").handlers == []


def test_two_brokers_and_one_program() -> None:
    """Copy a topic from one broker to another, as a mirroring program would."""
    with BrokerThread() as source, BrokerThread() as target:
        for number in range(COUNT):
            source.produce("orders", str(number))
        consumer = kafka_python.consumer(source.bootstrap_servers)
        producer = kafka_python.producer(target.bootstrap_servers)
        try:
            kafka_python.subscribe(consumer, "orders")
            copied = 0
            while copied < COUNT:
                for records in consumer.poll(timeout_ms=30_000).values():
                    for record in records:
                        producer.send("orders", record.value)
                        copied += 1
            producer.flush(30)
        finally:
            consumer.close()
            producer.close()
        assert [r.value for r in target.consume("orders", count=COUNT)] == [
            b"%d" % number for number in range(COUNT)
        ]
