"""No wake-up is lost, whatever the order: time stands still here, so a lost one hangs."""

import random
from collections.abc import Coroutine
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kbroker.handlers import api_00_produce, api_01_fetch
from kbroker.protocol.messages.fetch_request import FetchPartition, FetchRequest, FetchTopic
from kbroker.protocol.messages.produce_request import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from kbroker.record.batch import iter_batches
from tests.sizes import size
from tests.unit.data_plane import World, batch, finish

PARTITIONS = 3


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def pause(rng: random.Random) -> None:
    for _ in range(rng.randrange(3)):
        await checkpoint()


def fetch_request(offsets: list[int], *, replica_id: int) -> FetchRequest:
    return FetchRequest(
        replica_id=replica_id,
        max_wait_ms=3_600_000,
        min_bytes=1,
        topics=[
            FetchTopic(
                "t",
                partitions=[
                    FetchPartition(
                        partition=index, fetch_offset=offset, partition_max_bytes=1 << 20
                    )
                    for index, offset in enumerate(offsets)
                ],
            )
        ],
    )


async def finish_later(answer: Any, rng: random.Random) -> Any:
    """The answer, its coroutine begun a while after the handler returned it."""
    try:
        await pause(rng)
    except BaseException:
        if isinstance(answer, Coroutine):
            answer.close()
        raise
    return await finish(answer)


async def fetch(
    world: World, rng: random.Random, offsets: list[int], *, replica_id: int = -1
) -> None:
    """Wait for data and move ``offsets`` past what came; every batch holds one record."""
    request = fetch_request(offsets, replica_id=replica_id)
    answer = await finish_later(
        api_01_fetch.handle(world.services, world.context(1, 12), request), rng
    )
    for partition in answer.responses[0].partitions:
        assert partition.error_code == 0
        records = b"".join(partition.records.parts())
        offsets[partition.partition_index] += len(list(iter_batches(records)))


async def consume(world: World, rng: random.Random, ends: list[int]) -> None:
    """Read each partition to its end."""
    offsets = [0] * PARTITIONS
    while offsets != ends:
        await fetch(world, rng, offsets)
        await pause(rng)


async def follow(world: World, rng: random.Random) -> None:
    """Node 2: fetch from the end of what it has, for ever."""
    offsets = [0] * PARTITIONS
    while True:
        await fetch(world, rng, offsets, replica_id=2)
        await pause(rng)


async def write(world: World, rng: random.Random, batches: list[int], acks: int) -> None:
    """Produce one batch after the other to the partitions named."""
    for index in batches:
        data = [PartitionProduceData(index, memoryview(batch(b"x" * 50)))]
        request = ProduceRequest(
            None, acks, 3_600_000, [TopicProduceData("t", partition_data=data)]
        )
        answer = await finish_later(
            api_00_produce.handle(world.services, world.context(0, 9), request), rng
        )
        assert answer.responses[0].partition_responses[0].error_code == 0
        await pause(rng)


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(size(ci=15, full=500)))
async def test_readers_see_everything_without_a_timer(seed: int) -> None:
    """Two producers with acks=all, a follower that has to fetch first, three consumers."""
    rng = random.Random(seed)
    world = World()
    world.topic("t", PARTITIONS, replicas=(1, 2))
    plans = [[rng.randrange(PARTITIONS) for _ in range(20)] for _ in range(2)]
    ends = [sum(plan.count(index) for plan in plans) for index in range(PARTITIONS)]
    with anyio.fail_after(20):
        async with anyio.create_task_group() as followers:
            followers.start_soon(follow, world, rng)
            async with anyio.create_task_group() as clients:
                for plan in plans:
                    clients.start_soon(write, world, rng, plan, -1)
                for _ in range(3):
                    clients.start_soon(consume, world, rng, ends)
            followers.cancel_scope.cancel()
    assert [world.partition("t", index).log.high_watermark for index in range(PARTITIONS)] == ends
    assert world.manager.delayed.fetch.watched_keys == 0
    assert world.manager.delayed.produce.watched_keys == 0
    assert world.timer.pending == 0
