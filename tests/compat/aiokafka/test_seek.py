"""aiokafka: moving about in a partition."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from tests.compat.aiokafka import clients
from tests.compat.samples import Sample, now_ms

pytestmark = pytest.mark.anyio


def _timed(count: int, *, start_ms: int) -> list[Sample]:
    """Records a second apart."""
    return [Sample(None, b"%d" % number, start_ms + number * 1000) for number in range(count)]


@pytest.mark.parametrize("codec", [None, "lz4"])
async def test_a_timestamp_finds_the_exact_record_inside_a_batch(
    bootstrap: str, topic: str, codec: str | None
) -> None:
    await clients.create_topic(bootstrap, topic)
    start = now_ms() - 3_600_000
    samples = _timed(100, start_ms=start)
    await clients.produce(bootstrap, topic, samples, linger_ms=50, compression_type=codec)
    partition = TopicPartition(topic, 0)

    async with clients.consumer(bootstrap) as consumer:
        consumer.assign([partition])

        async def found_at(timestamp_ms: int) -> tuple[int, int] | None:
            found = (await consumer.offsets_for_times({partition: timestamp_ms}))[partition]
            return None if found is None else (found.offset, found.timestamp)

        assert await found_at(start - 1) == (0, start)
        assert await found_at(start) == (0, start)
        assert await found_at(start + 1) == (1, start + 1000)
        assert await found_at(start + 57_000) == (57, start + 57_000)
        assert await found_at(start + 57_001) == (58, start + 58_000)
        assert await found_at(start + 99_001) is None

        consumer.seek(partition, 57)
        received = await clients.receive(consumer, 43)
        assert [record.offset for record in received] == list(range(57, 100))


async def test_seeks_to_the_beginning_and_to_the_end(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic)
    await clients.produce(bootstrap, topic, _timed(10, start_ms=now_ms() - 60_000))
    partition = TopicPartition(topic, 0)

    async with clients.consumer(bootstrap) as consumer:
        consumer.assign([partition])
        await consumer.seek_to_end(partition)
        assert await consumer.position(partition) == 10
        await consumer.seek_to_beginning(partition)
        received = await clients.receive(consumer, 10)
        assert [record.offset for record in received] == list(range(10))


async def test_an_offset_out_of_range_is_reset(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic)
    await clients.produce(bootstrap, topic, _timed(5, start_ms=now_ms()))
    partition = TopicPartition(topic, 0)

    async with clients.consumer(bootstrap) as consumer:
        consumer.assign([partition])
        consumer.seek(partition, 1000)
        received = await clients.receive(consumer, 5)
        assert [record.offset for record in received] == list(range(5))
