"""ListOffsets: special timestamps by version, real ones to the record, errors, isolation."""

from typing import Any

import pytest

from kbroker.handlers import api_02_list_offsets
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.list_offsets_request import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from kbroker.protocol.messages.list_offsets_response import (
    ListOffsetsPartitionResponse,
    ListOffsetsResponse,
    write_list_offsets_response,
)
from tests.unit.data_plane import World, finish


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def request(
    *partitions: tuple[str, int, int],
    replica_id: int = -1,
    isolation_level: int = 0,
    leader_epoch: int = -1,
) -> ListOffsetsRequest:
    """``partitions`` are (topic, index, timestamp)."""
    return ListOffsetsRequest(
        replica_id,
        isolation_level,
        [
            ListOffsetsTopic(name, [ListOffsetsPartition(index, leader_epoch, timestamp)])
            for name, index, timestamp in partitions
        ],
    )


def handle(world: World, asked: ListOffsetsRequest, version: int = 11) -> Any:
    return api_02_list_offsets.handle(world.services, world.context(2, version), asked)


def list_offsets(world: World, asked: ListOffsetsRequest, version: int = 11) -> ListOffsetsResponse:
    answer = handle(world, asked, version)
    assert isinstance(answer, ListOffsetsResponse)
    write_list_offsets_response([], answer, version)
    return answer


def one(
    world: World, timestamp: int, version: int = 11, **fields: int
) -> ListOffsetsPartitionResponse:
    [topic] = list_offsets(world, request(("t", 0, timestamp), **fields), version).topics
    [partition] = topic.partitions
    return partition


def told(partition: ListOffsetsPartitionResponse) -> tuple[int, int, int, int]:
    return (
        partition.error_code,
        partition.timestamp,
        partition.offset,
        partition.leader_epoch,
    )


def filled(**topic: Any) -> World:
    """Records 0..3 with timestamps 1000, 3000, 2000, 3000."""
    world = World()
    world.topic(**topic)
    for timestamp in (1000, 3000, 2000, 3000):
        world.append(b"x", timestamp=timestamp)
    return world


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (-1, (0, -1, 4, 0)),
        (-2, (0, -1, 0, 0)),
        (-3, (0, 3000, 1, 0)),
        (-4, (0, -1, 0, 0)),
        (-5, (0, -1, -1, -1)),
        (-6, (0, -1, -1, -1)),
        (-7, (35, -1, -1, -1)),
        (-99, (35, -1, -1, -1)),
        (0, (0, 1000, 0, 0)),
        (1000, (0, 1000, 0, 0)),
        (1001, (0, 3000, 1, 0)),
        (3000, (0, 3000, 1, 0)),
        (3001, (0, -1, -1, -1)),
        (2**63 - 1, (0, -1, -1, -1)),
    ],
)
def test_what_a_timestamp_finds(timestamp: int, expected: tuple[int, int, int, int]) -> None:
    assert told(one(filled(), timestamp)) == expected


@pytest.mark.parametrize(
    ("timestamp", "since"), [(-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9), (-6, 11)]
)
def test_special_timestamps_have_a_first_version(timestamp: int, since: int) -> None:
    world = filled()
    for version in range(1, 12):
        expected = ErrorCode.NONE if version >= since else ErrorCode.UNSUPPORTED_VERSION
        assert one(world, timestamp, version).error_code == expected


def test_leader_epochs_are_told_from_version_4_on() -> None:
    world = filled()
    assert one(world, -1, 3).leader_epoch == -1
    assert one(world, -1, 4).leader_epoch == 0


def test_an_empty_log() -> None:
    world = World()
    world.topic(leader_epoch=3)
    assert told(one(world, -1)) == (0, -1, 0, 3)
    assert told(one(world, -2)) == (0, -1, 0, 3)
    assert told(one(world, -3)) == (0, -1, -1, -1)
    assert told(one(world, 0)) == (0, -1, -1, -1)


def test_the_earliest_offset_after_deletion() -> None:
    world = filled()
    world.change_partition(leader_epoch=2)
    world.append(b"x", timestamp=5000)
    world.partition().delete_records(2)
    assert told(one(world, -2)) == (0, -1, 2, 0)
    assert told(one(world, 0)) == (0, 2000, 2, 0)
    world.partition().delete_records(5)
    assert told(one(world, -2)) == (0, -1, 5, 2)
    assert told(one(world, 0)) == (0, -1, -1, -1)


def test_consumers_see_what_is_committed() -> None:
    world = filled(replicas=(1, 2))
    assert told(one(world, -1)) == (0, -1, 0, 0)
    assert told(one(world, 1000)) == (0, -1, -1, -1)
    assert told(one(world, -3)) == (0, -1, -1, -1)
    assert told(one(world, -1, replica_id=2)) == (0, -1, 4, 0)
    follower = world.partition().follower(2, knows_leader_epoch=True)
    world.partition().update_follower(follower, log_end_offset=2, log_start_offset=0)
    assert told(one(world, -1)) == (0, -1, 2, 0)
    assert told(one(world, -1, isolation_level=1)) == (0, -1, 2, 0)
    assert told(one(world, 1000)) == (0, 1000, 0, 0)
    assert told(one(world, -3)) == (0, 3000, 1, 0)


def test_a_new_leader_that_does_not_know_what_is_committed() -> None:
    world = filled(replicas=(1, 2))
    world.change_partition(replicas=(1, 2), leader_epoch=1)
    assert one(world, -1, 5).error_code == ErrorCode.OFFSET_NOT_AVAILABLE
    assert one(world, -1, 4).error_code == ErrorCode.LEADER_NOT_AVAILABLE
    assert one(world, 1000, 5).error_code == ErrorCode.OFFSET_NOT_AVAILABLE
    assert one(world, -2, 5).error_code == ErrorCode.NONE
    assert one(world, -1, 5, replica_id=2).offset == 4


def test_a_partition_listed_twice() -> None:
    world = filled()
    world.topic("other")
    answer = list_offsets(world, request(("t", 0, -1), ("other", 0, -1), ("t", 0, -2)))
    assert [(topic.name, len(topic.partitions)) for topic in answer.topics] == [
        ("t", 1),
        ("other", 1),
    ]
    assert told(answer.topics[0].partitions[0]) == (ErrorCode.INVALID_REQUEST, -1, -1, -1)
    assert answer.topics[1].partitions[0].error_code == 0


def test_unknown_partitions_and_wrong_epochs() -> None:
    world = filled(leader_epoch=2)
    unknown = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1, -1)
    for name, index in (("nope", 0), ("t", 5), ("t", -1), ("a b", 0)):
        [topic] = list_offsets(world, request((name, index, -1))).topics
        assert told(topic.partitions[0]) == unknown
    assert one(world, -1, leader_epoch=1).error_code == ErrorCode.FENCED_LEADER_EPOCH
    assert one(world, -1, leader_epoch=-9).error_code == ErrorCode.FENCED_LEADER_EPOCH
    assert one(world, -1, leader_epoch=3).error_code == ErrorCode.UNKNOWN_LEADER_EPOCH
    assert one(world, -1, leader_epoch=2).error_code == ErrorCode.NONE


def test_only_tools_may_ask_a_follower() -> None:
    world = World()
    world.topic(leader=2, replicas=(1, 2))
    assert one(world, -2).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert one(world, -2, replica_id=-2).error_code == ErrorCode.NONE


@pytest.mark.parametrize("level", [2, -1])
def test_an_unknown_isolation_level_fails_the_request(level: int) -> None:
    asked = request(("t", 0, -1), isolation_level=level)
    with pytest.raises(KafkaError) as raised:
        list_offsets(filled(), asked)
    answer = api_02_list_offsets.error_response(asked, raised.value, 11)
    assert told(answer.topics[0].partitions[0]) == (-1, -1, -1, -1)


def test_no_topics() -> None:
    assert list_offsets(World(), ListOffsetsRequest(isolation_level=9)).topics == []


@pytest.mark.anyio
async def test_many_partitions_give_way() -> None:
    world = World()
    world.topic("t", 150)
    asked = ListOffsetsRequest(
        -1, 0, [ListOffsetsTopic("t", [ListOffsetsPartition(i, -1, -1) for i in range(150)])]
    )
    answer = await finish(handle(world, asked))
    assert [each.offset for each in answer.topics[0].partitions] == [0] * 150
