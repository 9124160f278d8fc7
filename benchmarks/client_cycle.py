"""One produce-consume-group cycle of each client, as small programs do it."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

CYCLE_RECORDS = 100
PATIENCE_S = 60.0


def run_all(bootstrap: str, prefix: str) -> None:
    """Each client produces to a topic of its own and reads it back as a member of a group."""
    with_kafka_python(bootstrap, f"{prefix}-kafka-python")
    with_confluent_kafka(bootstrap, f"{prefix}-confluent-kafka")
    asyncio.run(with_aiokafka(bootstrap, f"{prefix}-aiokafka"))


def with_kafka_python(bootstrap: str, topic: str) -> None:
    from kafka import KafkaConsumer, KafkaProducer

    with closing(KafkaProducer(bootstrap_servers=bootstrap)) as producer:
        for _ in range(CYCLE_RECORDS):
            producer.send(topic, b"value", key=b"key")
        producer.flush()
    consumer = KafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=topic, auto_offset_reset="earliest"
    )
    with closing(consumer):
        seen, deadline = 0, time.monotonic() + PATIENCE_S
        while seen < CYCLE_RECORDS:
            seen += sum(map(len, consumer.poll(timeout_ms=500).values()))
            _check(deadline, seen, "kafka-python")
        consumer.commit()


def with_confluent_kafka(bootstrap: str, topic: str) -> None:
    from confluent_kafka import Consumer, Producer

    producer = Producer({"bootstrap.servers": bootstrap})
    for _ in range(CYCLE_RECORDS):
        producer.produce(topic, b"value", key=b"key")
    producer.flush(PATIENCE_S)
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": topic,
        "auto.offset.reset": "earliest",
    }
    with closing(Consumer(settings)) as consumer:
        consumer.subscribe([topic])
        seen, deadline = 0, time.monotonic() + PATIENCE_S
        while seen < CYCLE_RECORDS:
            message = consumer.poll(0.5)
            seen += message is not None and message.error() is None
            _check(deadline, seen, "confluent-kafka")
        consumer.commit(asynchronous=False)


async def with_aiokafka(bootstrap: str, topic: str) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        for _ in range(CYCLE_RECORDS):
            await producer.send(topic, b"value", key=b"key")
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=topic, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        seen, deadline = 0, time.monotonic() + PATIENCE_S
        while seen < CYCLE_RECORDS:
            seen += sum(map(len, (await consumer.getmany(timeout_ms=500)).values()))
            _check(deadline, seen, "aiokafka")
        await consumer.commit()
    finally:
        await consumer.stop()


def _check(deadline: float, seen: int, client: str) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"{client} read {seen} of {CYCLE_RECORDS} records")
