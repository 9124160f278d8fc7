"""DescribeProducers: what a partition remembers."""

import pytest

from kbroker.handlers import api_61_describe_producers
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.describe_producers_request import (
    DescribeProducersRequest,
    TopicRequest,
)
from kbroker.protocol.messages.describe_producers_response import PartitionResponse
from tests.unit.data_plane import World, batch, finish


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def describe(
    world: World, *topics: tuple[str, list[int]]
) -> dict[str, list[PartitionResponse]]:
    asked = DescribeProducersRequest([TopicRequest(name, indexes) for name, indexes in topics])
    handled = api_61_describe_producers.handle(world.services, world.context(61, 0), asked)
    answer = await finish(handled)
    return {topic.name: topic.partitions for topic in answer.topics}


@pytest.mark.anyio
async def test_producers_of_a_partition() -> None:
    world = World()
    world.topic("t", 2)
    for sequence in (0, 2):
        records = batch(
            b"a", b"b", producer_id=7, producer_epoch=3, base_sequence=sequence, timestamp=500
        )
        world.manager.leader_append.append_records(world.partition(), records, 1)
    answered = await describe(world, ("t", [0, 1]))
    first, second = answered["t"]
    [producer] = first.active_producers
    assert (producer.producer_id, producer.producer_epoch) == (7, 3)
    assert (producer.last_sequence, producer.last_timestamp) == (3, 500)
    assert (producer.coordinator_epoch, producer.current_txn_start_offset) == (-1, -1)
    assert (first.error_code, first.error_message) == (0, None)
    assert (second.error_code, second.active_producers) == (0, [])


@pytest.mark.anyio
async def test_errors() -> None:
    world = World()
    world.topic("t")
    world.topic("elsewhere", leader=2, replicas=(2,))
    answered = await describe(world, ("nope", [0, 1]), ("a b", [0]), ("t", [5]), ("elsewhere", [0]))
    codes = {name: [each.error_code for each in answers] for name, answers in answered.items()}
    assert codes == {
        "nope": [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION] * 2,
        "a b": [ErrorCode.INVALID_TOPIC_EXCEPTION],
        "t": [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION],
        "elsewhere": [ErrorCode.NOT_LEADER_OR_FOLLOWER],
    }


@pytest.mark.anyio
async def test_no_topics() -> None:
    assert await describe(World()) == {}


def test_the_error_of_the_request() -> None:
    asked = DescribeProducersRequest([TopicRequest("t", [1, 2])])
    error = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
    answer = api_61_describe_producers.error_response(asked, error, 0)
    partitions = answer.topics[0].partitions
    assert [(each.partition_index, each.error_code) for each in partitions] == [(1, -1), (2, -1)]
