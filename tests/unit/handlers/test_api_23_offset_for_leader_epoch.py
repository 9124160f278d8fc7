"""OffsetForLeaderEpoch: where epochs ended, and who may be asked."""

from typing import Any

import pytest

from kbroker.handlers import api_23_offset_for_leader_epoch
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.offset_for_leader_epoch_request import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from kbroker.protocol.messages.offset_for_leader_epoch_response import (
    OffsetForLeaderEpochResponse,
    write_offset_for_leader_epoch_response,
)
from tests.unit.data_plane import World, finish


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def request(*partitions: tuple[str, int, int, int]) -> OffsetForLeaderEpochRequest:
    """``partitions`` are (topic, index, current leader epoch, epoch asked for)."""
    return OffsetForLeaderEpochRequest(
        -1,
        [
            OffsetForLeaderTopic(name, [OffsetForLeaderPartition(index, current, epoch)])
            for name, index, current, epoch in partitions
        ],
    )


def handle(world: World, asked: OffsetForLeaderEpochRequest) -> Any:
    return api_23_offset_for_leader_epoch.handle(world.services, world.context(23, 4), asked)


def one(world: World, *partition: Any) -> tuple[int, int, int]:
    answer = handle(world, request(partition))
    assert isinstance(answer, OffsetForLeaderEpochResponse)
    for version in (2, 3, 4):
        write_offset_for_leader_epoch_response([], answer, version)
    [topic] = answer.topics
    [end] = topic.partitions
    assert (topic.topic, end.partition) == partition[:2]
    return end.error_code, end.leader_epoch, end.end_offset


def test_an_empty_log_knows_its_leaders_epoch() -> None:
    world = World()
    world.topic()
    assert one(world, "t", 0, -1, 0) == (0, 0, 0)
    assert one(world, "t", 0, -1, 1) == (0, -1, -1)


def test_epochs_of_a_log() -> None:
    world = World()
    world.topic(leader_epoch=2)
    world.append(b"a")
    world.append(b"b")
    world.change_partition(leader_epoch=5)
    world.append(b"c")
    for epoch, expected in (
        (5, (0, 5, 3)),
        (4, (0, 2, 2)),
        (2, (0, 2, 2)),
        (1, (0, 1, 0)),
        (-2, (0, -2, 0)),
        (-1, (0, -1, -1)),
        (6, (0, -1, -1)),
    ):
        assert one(world, "t", 0, -1, epoch) == expected


def test_errors() -> None:
    world = World()
    world.topic(leader_epoch=2)
    world.topic("elsewhere", leader=2, replicas=(2,))
    world.topic("followed", leader=2, replicas=(1, 2))
    for partition, error in (
        (("nope", 0, -1, 0), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (("t", 5, -1, 0), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (("elsewhere", 0, -1, 0), ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (("followed", 0, -1, 0), ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (("t", 0, 1, 0), ErrorCode.FENCED_LEADER_EPOCH),
        (("t", 0, 3, 0), ErrorCode.UNKNOWN_LEADER_EPOCH),
    ):
        assert one(world, *partition) == (error, -1, -1)


@pytest.mark.anyio
async def test_many_partitions_give_way() -> None:
    world = World()
    world.topic("t", 600)
    asked = OffsetForLeaderEpochRequest(
        -1,
        [OffsetForLeaderTopic("t", [OffsetForLeaderPartition(i, -1, 0) for i in range(600)])],
    )
    answer = await finish(handle(world, asked))
    assert [end.partition for end in answer.topics[0].partitions] == list(range(600))


def test_the_error_of_the_request() -> None:
    asked = request(("t", 3, -1, 0))
    error = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
    answer = api_23_offset_for_leader_epoch.error_response(asked, error, 4)
    [end] = answer.topics[0].partitions
    assert (end.error_code, end.partition, end.leader_epoch, end.end_offset) == (-1, 3, -1, -1)
