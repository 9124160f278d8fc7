"""AlterReplicaLogDirs and DescribeLogDirs over real logs in two directories, one of which fails."""

import logging
from typing import Any

import pytest

from kbroker.common.entropy import SeededEntropy
from kbroker.config.topic_config import LogConfig
from kbroker.handlers import api_34_alter_replica_log_dirs, api_35_describe_log_dirs
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.alter_replica_log_dirs_request import (
    AlterReplicaLogDir,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirTopic,
)
from kbroker.protocol.messages.alter_replica_log_dirs_response import (
    write_alter_replica_log_dirs_response,
)
from kbroker.protocol.messages.describe_log_dirs_request import DescribeLogDirsRequest
from kbroker.storage.log_manager import LogManager
from tests.unit.data_plane import World, finish

pytestmark = pytest.mark.anyio


def make_logs(world: World) -> LogManager:
    manager = LogManager(
        world.env.files,
        ["/one", "/two"],
        LogConfig(),
        world.clock,
        world.timer,
        world.offload,
        SeededEntropy(1),
        logging.getLogger("test"),
    )
    manager.open_directories()
    return manager


@pytest.fixture
def world() -> World:
    world = World(make_logs=make_logs)
    world.topic("t", 4)
    for index in range(4):
        world.append(b"x", name="t", index=index)
    return world


def logs_of(world: World) -> LogManager:
    manager: Any = world.logs
    assert isinstance(manager, LogManager)
    return manager


def request(path: str, topic: str, *partitions: int) -> AlterReplicaLogDirsRequest:
    topics = [AlterReplicaLogDirTopic(topic, list(partitions))]
    return AlterReplicaLogDirsRequest([AlterReplicaLogDir(path, topics)])


async def alter(world: World, asked: AlterReplicaLogDirsRequest) -> dict[tuple[str, int], int]:
    handled = api_34_alter_replica_log_dirs.handle(world.services, world.context(34, 2), asked)
    answer: Any = await finish(handled)
    for version in (1, 2):
        write_alter_replica_log_dirs_response([], answer, version)
    return {
        (topic.topic_name, partition.partition_index): partition.error_code
        for topic in answer.results
        for partition in topic.partitions
    }


async def describe(world: World) -> dict[str, Any]:
    """Directory to its error, or to (partition, lag, is future)."""
    asked = DescribeLogDirsRequest(topics=None)
    handled = api_35_describe_log_dirs.handle(world.services, world.context(35, 5), asked)
    answer: Any = await finish(handled)
    return {
        result.log_dir: result.error_code
        or sorted(
            (each.partition_index, each.offset_lag, each.is_future_key)
            for topic in result.topics
            for each in topic.partitions
        )
        for result in answer.results
    }


async def test_a_replica_is_shown_in_both_directories_while_it_moves(world: World) -> None:
    here = [(0, 0, False), (2, 0, False)]
    there = [(1, 0, False), (3, 0, False)]
    assert await describe(world) == {"/one": here, "/two": there}
    assert await alter(world, request("/two", "t", 0, 1)) == {("t", 0): 0, ("t", 1): 0}
    assert await describe(world) == {"/one": here, "/two": [(0, 1, True), *there]}
    await logs_of(world).movers.run_pending()
    assert await describe(world) == {"/one": here[1:], "/two": [(0, 0, False), *there]}
    partition = world.partition("t", 0)
    assert partition.log is logs_of(world).get_log("t", 0)
    world.append(b"y", name="t", index=0)
    assert partition.log.log_end_offset == partition.log.high_watermark == 2


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (request("/three", "t", 0), ErrorCode.LOG_DIR_NOT_FOUND),
        (request("", "t", 0), ErrorCode.LOG_DIR_NOT_FOUND),
        (request("/two/", "t", 0), ErrorCode.LOG_DIR_NOT_FOUND),
        (request("/three", "nope", 0), ErrorCode.LOG_DIR_NOT_FOUND),
        (request("/two", "t", 4), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (request("/two", "nope", 0), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (request("/two", "x" * 213, 0), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (request("/two", "x" * 214, 0), ErrorCode.INVALID_TOPIC_EXCEPTION),
    ],
)
async def test_what_cannot_be(
    world: World, asked: AlterReplicaLogDirsRequest, error: ErrorCode
) -> None:
    assert list((await alter(world, asked)).values()) == [error]


async def test_named_twice_the_last_one_counts(world: World) -> None:
    asked = AlterReplicaLogDirsRequest(
        [*request("/two", "t", 0).dirs, *request("/one", "t", 0).dirs]
    )
    assert await alter(world, asked) == {("t", 0): 0}
    assert logs_of(world).moves.get("t", 0) is None


async def test_a_failed_directory_and_its_partitions(world: World) -> None:
    told: list[Any] = []
    world.manager.on_offline = told.extend
    logs_of(world)._fail_directory(logs_of(world).directories.find("/one"), OSError(5, "bad"))
    world.timer.run_due()
    assert sorted(told) == [("t", 0), ("t", 2)]
    assert await describe(world) == {
        "/one": ErrorCode.KAFKA_STORAGE_ERROR,
        "/two": [(1, 0, False), (3, 0, False)],
    }
    for index, error in ((0, ErrorCode.KAFKA_STORAGE_ERROR), (1, ErrorCode.NONE)):
        assert await alter(world, request("/two", "t", index)) == {("t", index): error}
    assert await alter(world, request("/one", "t", 1)) == {("t", 1): ErrorCode.KAFKA_STORAGE_ERROR}
    with pytest.raises(KafkaError) as caught:
        world.manager.get_leader_partition("t", 2)
    assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
    assert world.manager.get_leader_partition("t", 3).is_leader
    world.change_partition("t", 2)  # the metadata changes nothing about the disk
    with pytest.raises(KafkaError):
        world.manager.get_leader_partition("t", 2)
    world.delete_topic("t")
    world.topic("t", 1)
    assert world.partition("t", 0).log.directory == "/two/t-0"


async def test_the_last_directory_that_fails_is_told(world: World) -> None:
    ended: list[bool] = []
    logs_of(world).on_all_failed = lambda: ended.append(True)
    for path, expected in (("/one", []), ("/two", [True])):
        logs_of(world)._fail_directory(logs_of(world).directories.find(path), OSError(5, "bad"))
        world.timer.run_due()
        assert ended == expected


async def test_the_error_of_a_whole_request() -> None:
    error = KafkaError(ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    asked = request("/two", "t", 3)
    answer = api_34_alter_replica_log_dirs.error_response(asked, error, 2)
    assert answer.results[0].partitions[0].error_code is ErrorCode.CLUSTER_AUTHORIZATION_FAILED
