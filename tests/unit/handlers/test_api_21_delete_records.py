"""DeleteRecords: what is cut, what is refused, waiting for the other replicas."""

from typing import Any

import anyio
import pytest

from kbroker.handlers import api_21_delete_records
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.delete_records_request import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)
from kbroker.protocol.messages.delete_records_response import DeleteRecordsResponse
from tests.unit.data_plane import World, finish


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def request(*partitions: tuple[str, int, int]) -> DeleteRecordsRequest:
    return DeleteRecordsRequest(
        [
            DeleteRecordsTopic(name, [DeleteRecordsPartition(index, offset)])
            for name, index, offset in partitions
        ],
        1000,
    )


def handle(world: World, asked: DeleteRecordsRequest) -> Any:
    return api_21_delete_records.handle(world.services, world.context(21, 2), asked)


def results(answer: DeleteRecordsResponse) -> dict[tuple[str, int], tuple[int, int]]:
    return {
        (topic.name, result.partition_index): (result.error_code, result.low_watermark)
        for topic in answer.topics
        for result in topic.partitions
    }


def filled(count: int = 3, **topic: Any) -> World:
    world = World()
    world.topic(**topic)
    for _ in range(count):
        world.append(b"x")
    return world


@pytest.mark.parametrize(
    ("offset", "expected"),
    [(2, (0, 2)), (0, (0, 0)), (-1, (0, 3)), (3, (0, 3)), (4, (1, -1)), (-2, (1, -1))],
)
def test_offsets(offset: int, expected: tuple[int, int]) -> None:
    world = filled()
    assert results(handle(world, request(("t", 0, offset)))) == {("t", 0): expected}
    assert world.partition().log.log_start_offset == max(expected[1], 0)


def test_the_log_never_starts_earlier_again() -> None:
    world = filled()
    handle(world, request(("t", 0, 2)))
    assert results(handle(world, request(("t", 0, 1)))) == {("t", 0): (0, 2)}


def test_what_is_refused() -> None:
    world = filled()
    world.topic("compacted", cleanup_policy="compact")
    world.topic("__consumer_offsets")
    world.topic("elsewhere", leader=2, replicas=(1, 2))
    asked = request(
        ("nope", 0, 0), ("t", 7, 0), ("compacted", 0, 0), ("__consumer_offsets", 0, 0),
        ("elsewhere", 0, 0), ("t", 0, 1),
    )  # fmt: skip
    assert results(handle(world, asked)) == {
        ("nope", 0): (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1),
        ("t", 7): (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1),
        ("compacted", 0): (ErrorCode.POLICY_VIOLATION, -1),
        ("__consumer_offsets", 0): (ErrorCode.INVALID_TOPIC_EXCEPTION, -1),
        ("elsewhere", 0): (ErrorCode.NOT_LEADER_OR_FOLLOWER, -1),
        ("t", 0): (0, 1),
    }


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("follower", (0, 1)),
        ("time", (ErrorCode.REQUEST_TIMED_OUT, -1)),
        ("leader", (ErrorCode.NOT_LEADER_OR_FOLLOWER, -1)),
    ],
)
async def test_the_other_replicas_are_waited_for(change: str, expected: tuple[int, int]) -> None:
    world = filled(1, replicas=(1, 2), isr=(1,))
    handled = handle(world, request(("t", 0, 1)))
    answers: list[DeleteRecordsResponse] = []

    async def wait() -> None:
        answers.append(await finish(handled))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert answers == []
        partition = world.partition()
        if change == "follower":
            follower = partition.follower(2, knows_leader_epoch=True)
            partition.update_follower(follower, log_end_offset=1, log_start_offset=1)
        elif change == "time":
            world.advance(1.1)
        else:
            world.change_partition(leader=2, replicas=(1, 2))
    assert results(answers[0]) == {("t", 0): expected}


@pytest.mark.anyio
async def test_many_partitions_give_way() -> None:
    world = World()
    world.topic("t", 150)
    asked = request(*(("t", index, 0) for index in range(150)))
    assert results(await finish(handle(world, asked))) == {("t", i): (0, 0) for i in range(150)}


def test_the_error_of_the_request() -> None:
    error = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
    answer = api_21_delete_records.error_response(request(("t", 0, 1), ("t", 1, 1)), error, 2)
    assert results(answer) == {("t", 0): (-1, -1), ("t", 1): (-1, -1)}
