"""aiokafka: consumer groups, their offsets and their rebalances."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from tests.compat.aiokafka import clients
from tests.compat.samples import Sample, now_ms, varied_samples

pytestmark = pytest.mark.anyio


def _assigned(consumer: AIOKafkaConsumer) -> set[int]:
    return {partition.partition for partition in consumer.assignment()}


async def test_a_group_goes_on_where_it_committed(bootstrap: str, topic: str, group: str) -> None:
    await clients.create_topic(bootstrap, topic)
    samples = varied_samples(20)
    await clients.produce(bootstrap, topic, samples)
    partition = TopicPartition(topic, 0)

    async with clients.consumer(bootstrap, topic, group=group) as first:
        await clients.receive(first, 20)
        await first.commit({partition: OffsetAndMetadata(8, "half way")})
    async with clients.consumer(bootstrap, topic, group=group) as second:
        received = await clients.receive(second, 12)
        assert await second.committed(partition) == 8

    assert [record.sample for record in received] == samples[8:]


async def test_offsets_are_committed_automatically(bootstrap: str, topic: str, group: str) -> None:
    await clients.create_topic(bootstrap, topic)
    await clients.produce(bootstrap, topic, varied_samples(10))
    partition = TopicPartition(topic, 0)

    settings = {"enable_auto_commit": True, "auto_commit_interval_ms": 100}
    async with clients.consumer(bootstrap, topic, group=group, **settings) as consumer:
        await clients.receive(consumer, 10)

        async def is_committed() -> bool:
            return await consumer.committed(partition) == 10

        await clients.eventually(is_committed, what="the position is committed")


async def test_stopping_commits_the_position(bootstrap: str, topic: str, group: str) -> None:
    await clients.create_topic(bootstrap, topic)
    await clients.produce(bootstrap, topic, varied_samples(10))
    settings = {"enable_auto_commit": True, "auto_commit_interval_ms": 3_600_000}

    async with clients.consumer(bootstrap, topic, group=group, **settings) as consumer:
        await clients.receive(consumer, 10)

    async with clients.consumer(bootstrap, topic, group=group) as later:
        assert await later.committed(TopicPartition(topic, 0)) == 10


async def test_partitions_without_a_commit_have_no_offset(
    bootstrap: str, topic: str, group: str
) -> None:
    await clients.create_topic(bootstrap, topic, partitions=2)
    async with clients.consumer(bootstrap, group=group) as consumer:
        consumer.assign([TopicPartition(topic, 0), TopicPartition(topic, 1)])
        await consumer.commit({TopicPartition(topic, 1): 5})

        assert await consumer.committed(TopicPartition(topic, 0)) is None
        assert await consumer.committed(TopicPartition(topic, 1)) == 5


async def test_two_consumers_rebalance(bootstrap: str, topic: str, group: str) -> None:
    await clients.create_topic(bootstrap, topic, partitions=3)
    settings = {"heartbeat_interval_ms": 500}
    async with clients.consumer(bootstrap, topic, group=group, **settings) as first:

        async def owns_all() -> bool:
            return _assigned(first) == {0, 1, 2}

        await clients.eventually(owns_all, what="the first member owns all")
        async with clients.consumer(bootstrap, topic, group=group, **settings) as second:

            async def shared() -> bool:
                one, two = _assigned(first), _assigned(second)
                return bool(one) and bool(two) and one | two == {0, 1, 2} and not one & two

            await clients.eventually(shared, what="both members own a share")
            for number in range(3):
                sample = Sample(None, b"%d" % number, now_ms())
                await clients.produce(bootstrap, topic, [sample], number)
            received = await clients.receive(first, len(_assigned(first)))
            received += await clients.receive(second, len(_assigned(second)))
            assert sorted(record.sample.value or b"" for record in received) == [b"0", b"1", b"2"]
        await clients.eventually(owns_all, what="the first member owns all again")


class _Moves(ConsumerRebalanceListener):
    """Notes down every rebalance that a member takes part in."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_partitions_assigned(self, assigned: object) -> None:
        self.seen.append("assigned")

    async def on_partitions_revoked(self, revoked: object) -> None:
        self.seen.append("revoked")


async def test_a_static_member_comes_back_to_its_partitions(
    bootstrap: str, topic: str, group: str
) -> None:
    """And nobody else notices. (A duplicate is not fenced: aiokafka's heartbeats name nobody.)"""
    await clients.create_topic(bootstrap, topic, partitions=3)
    settings = {"heartbeat_interval_ms": 500}
    static = {"group_instance_id": "reader-1", **settings}
    moves = _Moves()
    async with clients.consumer(bootstrap, group=group, **settings) as other:
        other.subscribe([topic], listener=moves)
        async with clients.consumer(bootstrap, topic, group=group, **static) as first:

            async def shared() -> bool:
                one, two = _assigned(first), _assigned(other)
                return bool(one) and bool(two) and one | two == {0, 1, 2} and not one & two

            await clients.eventually(shared, what="both members own a share")
            owned, kept = _assigned(first), _assigned(other)
        moves.seen.clear()
        async with clients.consumer(bootstrap, topic, group=group, **static) as again:

            async def is_back() -> bool:
                return _assigned(again) == owned

            await clients.eventually(is_back, what="the same partitions come back")
            await clients.produce(bootstrap, topic, [Sample(None, b"x", now_ms())], min(kept))
            assert len(await clients.receive(other, 1)) == 1
            assert (moves.seen, _assigned(other)) == ([], kept)


async def test_a_group_with_a_pattern_finds_topics(bootstrap: str, topic: str, group: str) -> None:
    for suffix in ("one", "two"):
        await clients.create_topic(bootstrap, f"{topic}.{suffix}")
        await clients.produce(bootstrap, f"{topic}.{suffix}", [Sample(None, b"v", now_ms())])

    async with clients.consumer(bootstrap, group=group) as consumer:
        consumer.subscribe(pattern=f"^{topic}[.].*")
        assert len(await clients.receive(consumer, 2)) == 2
