"""DescribeLogDirs: directories, partitions, sizes."""

import os
from typing import Any

import pytest

from kbroker.handlers import api_35_describe_log_dirs
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.describe_log_dirs_request import (
    DescribableLogDirTopic,
    DescribeLogDirsRequest,
)
from kbroker.protocol.messages.describe_log_dirs_response import (
    DescribeLogDirsResponse,
    write_describe_log_dirs_response,
)
from tests.unit.data_plane import World, finish


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def describe(world: World, **fields: Any) -> DescribeLogDirsResponse:
    asked = DescribeLogDirsRequest(**fields)
    handled = api_35_describe_log_dirs.handle(world.services, world.context(35, 5), asked)
    answer = await finish(handled)
    assert isinstance(answer, DescribeLogDirsResponse)
    for version in range(1, 6):
        write_describe_log_dirs_response([], answer, version)
    return answer


def sizes(answer: DescribeLogDirsResponse) -> dict[tuple[str, int], int]:
    [directory] = answer.results
    assert directory.error_code == 0
    assert directory.log_dir == os.path.abspath("/data")
    assert (directory.total_bytes, directory.usable_bytes) == (-1, -1)  # memory has no volume
    return {
        (topic.name, partition.partition_index): partition.partition_size
        for topic in directory.topics
        for partition in topic.partitions
    }


@pytest.mark.anyio
async def test_all_or_those_asked_for() -> None:
    world = World()
    world.topic("a", 2)
    world.topic("b")
    world.append(b"x", name="a", index=1)
    size = world.partition("a", 1).log.size
    assert size > 0
    everything = {("a", 0): 0, ("a", 1): size, ("b", 0): 0}
    assert sizes(await describe(world, topics=None)) == everything
    wanted = [DescribableLogDirTopic("a", [1, 9]), DescribableLogDirTopic("nope", [0])]
    assert sizes(await describe(world, topics=wanted)) == {("a", 1): size}
    assert sizes(await describe(world, topics=[])) == {}


@pytest.mark.anyio
async def test_a_volume_that_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def fail(path: str) -> None:
        raise OSError("gone")

    monkeypatch.setattr(world.env.files, "disk_space", fail)
    [directory] = (await describe(world, topics=None)).results
    assert directory.error_code == ErrorCode.KAFKA_STORAGE_ERROR


def test_the_error_of_the_request() -> None:
    error = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
    for version, code in ((2, 0), (3, -1)):
        answer = api_35_describe_log_dirs.error_response(DescribeLogDirsRequest(), error, version)
        assert (answer.error_code, answer.results) == (code, [])
