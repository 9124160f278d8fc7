"""Short ways to make aiokafka's clients and to read with them."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from tests.compat.samples import Received, Sample
from tests.compat.waiting import PATIENCE_S, POLL_INTERVAL_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable


@asynccontextmanager
async def producer(bootstrap: str, **settings: Any) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(bootstrap_servers=bootstrap, **{"acks": "all", **settings})
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def consumer(
    bootstrap: str, *topics: str, group: str | None = None, **settings: Any
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that starts at the beginning and commits only when told."""
    defaults = {
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "metadata_max_age_ms": 500,
    }
    client = AIOKafkaConsumer(
        *topics, bootstrap_servers=bootstrap, group_id=group, **{**defaults, **settings}
    )
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def create_topic(
    bootstrap: str, topic: str, partitions: int = 1, configs: dict[str, str] | None = None
) -> None:
    """Creates a topic; raises a subclass of aiokafka.errors.KafkaError when it is refused."""
    new = NewTopic(topic, partitions, replication_factor=1, topic_configs=configs or {})
    async with admin(bootstrap) as client:
        raise_first_error((await client.create_topics([new])).topic_errors)


def raise_first_error(topic_errors: Iterable[tuple[Any, ...]]) -> None:
    """aiokafka's admin client leaves (topic, error code, ...) rows to its caller."""
    for name, error_code, *message in topic_errors:
        if error_code:
            raise for_code(error_code)(name, *message)


async def send(
    client: AIOKafkaProducer, topic: str, samples: Iterable[Sample], partition: int | None = None
) -> None:
    """Produces and waits for every answer; raises the first error."""
    answers = [
        await client.send(
            topic,
            sample.value,
            key=sample.key,
            partition=partition,
            timestamp_ms=sample.timestamp_ms,
            headers=list(sample.headers),
        )
        for sample in samples
    ]
    await asyncio.wait_for(asyncio.gather(*answers), PATIENCE_S)


async def produce(
    bootstrap: str,
    topic: str,
    samples: Iterable[Sample],
    partition: int | None = None,
    **settings: Any,
) -> None:
    """``send`` with a producer of its own."""
    async with producer(bootstrap, **settings) as client:
        await send(client, topic, samples, partition)


async def receive(client: AIOKafkaConsumer, count: int) -> list[Received]:
    """Polls until ``count`` records came."""
    records: list[Received] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(records) < count:
        found = await client.getmany(timeout_ms=200, max_records=count - len(records))
        records += [as_received(record) for batch in found.values() for record in batch]
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
    return records


async def read_topic(
    bootstrap: str, topic: str, count: int, partitions: int = 1, **settings: Any
) -> list[Received]:
    """The first ``count`` records of a topic, without a group."""
    async with consumer(bootstrap, **settings) as client:
        client.assign([TopicPartition(topic, number) for number in range(partitions)])
        return await receive(client, count)


def as_received(record: Any) -> Received:
    sample = Sample(record.key, record.value, record.timestamp, tuple(record.headers))
    return Received(record.partition, record.offset, sample)


async def eventually(
    check: Callable[[], Awaitable[object]], *, what: str, timeout_s: float = PATIENCE_S
) -> None:
    """Calls ``check`` until it returns something true; raises AssertionError with the last."""
    deadline = time.monotonic() + timeout_s
    while not (result := await check()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}; last {result!r}"
        await asyncio.sleep(POLL_INTERVAL_S)
