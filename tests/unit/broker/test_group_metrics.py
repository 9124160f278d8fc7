"""Lag of groups, from offsets that were really committed."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kbroker.broker.broker_server import BrokerServer
from kbroker.broker.group_metrics import collect_groups
from kbroker.broker.local_client import LocalClient
from kbroker.config.broker_config import BrokerConfig
from kbroker.coordinator.deferred import Deferred
from kbroker.protocol.messages.offset_commit_request import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server() -> AsyncIterator[BrokerServer]:
    config = BrokerConfig.from_properties({"listeners": "PLAINTEXT://127.0.0.1:0"})
    async with BrokerServer(config, memory=True) as running:
        await LocalClient(running).create_topic("t", partitions=2)
        await running.controller.ensure_topics(["__consumer_offsets"])
        yield running


async def commit(server: BrokerServer, group: str, **offsets: int) -> None:
    partitions = [
        OffsetCommitRequestPartition(int(index.lstrip("p")), offset)
        for index, offset in offsets.items()
    ]
    request = OffsetCommitRequest(
        group_id=group, topics=[OffsetCommitRequestTopic("t", partitions=partitions)]
    )
    answer: Any = server.coordinators.group.requests.commit_offsets(request, 9)
    if isinstance(answer, Deferred):
        answer = await answer.wait()
    assert {p.error_code for topic in answer.topics for p in topic.partitions} == {0}


async def samples(server: BrokerServer) -> dict[tuple[str, ...], float]:
    return {
        (family.name, *sample.labels.values()): sample.value
        for family in await collect_groups(server)
        for sample in family.samples
    }


async def test_lag_is_what_is_not_committed_yet(server: BrokerServer) -> None:
    client = LocalClient(server)
    for _ in range(5):
        await client.produce("t", b"v", partition=0)
    await client.produce("t", b"v", partition=1)
    await commit(server, "g", p0=2, p1=1)
    await commit(server, "ahead", p0=9)
    found = await samples(server)
    assert found["kafka_coordinator_group_groupmetadatamanager_numgroups",] == 2
    assert found["kafka_consumergroup_current_offset", "g", "t", "0"] == 2
    assert found["kafka_consumergroup_lag", "g", "t", "0"] == 3
    assert found["kafka_consumergroup_lag", "g", "t", "1"] == 0
    assert found["kafka_consumergroup_lag_sum", "g", "t"] == 3
    assert found["kafka_consumergroup_lag", "ahead", "t", "0"] == 0
    assert found["kbroker_group_state", "g", "Empty", "classic"] == 1


async def test_one_group_with_many_offsets_leaves_others_their_turn(server: BrokerServer) -> None:
    await LocalClient(server).create_topic("many", partitions=1000)
    partitions = [OffsetCommitRequestPartition(index, 1) for index in range(1000)]
    request = OffsetCommitRequest(
        group_id="g", topics=[OffsetCommitRequestTopic("many", partitions=partitions)]
    )
    answer: Any = server.coordinators.group.requests.commit_offsets(request, 9)
    if isinstance(answer, Deferred):
        await answer.wait()
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count_turns)
        found = await samples(server)
        tasks.cancel_scope.cancel()
    assert found["kafka_consumergroup_current_offset", "g", "many", "999"] == 1
    assert turns >= 5


async def test_without_groups_there_is_only_their_number(server: BrokerServer) -> None:
    assert await samples(server) == {("kafka_coordinator_group_groupmetadatamanager_numgroups",): 0}
