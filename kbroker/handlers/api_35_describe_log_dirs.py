"""DescribeLogDirs, versions 1-5: what lies in the data directory, partition by partition.

v3 adds an error of the whole answer, v4 the volume's size and free bytes, v5 whether a directory
is cordoned, which none is. Null topics ask for every partition. Logs never move between
directories, so there is no lag and no future key.
"""

from typing import TYPE_CHECKING, Any, Final

from anyio.lowlevel import checkpoint

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.describe_log_dirs_response import (
    DescribeLogDirsPartition,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kbroker.handlers.services import Services
    from kbroker.protocol.errors import KafkaError
    from kbroker.protocol.messages.describe_log_dirs_request import DescribeLogDirsRequest
    from kbroker.request_context import RequestContext

_AT_ONCE: Final = 1000
"""Partitions that are described before other connections get their turn."""


def handle(
    services: "Services", context: "RequestContext", request: "DescribeLogDirsRequest"
) -> "Coroutine[Any, Any, DescribeLogDirsResponse]":
    """Sizes of the partitions asked for that have a log here."""
    return _describe(services, request)


async def _describe(
    services: "Services", request: "DescribeLogDirsRequest"
) -> DescribeLogDirsResponse:
    wanted: set[tuple[str, int]] | None = None
    if request.topics is not None:
        wanted = {(topic.topic, index) for topic in request.topics for index in topic.partitions}
    by_directory: dict[str, dict[str, DescribeLogDirsTopic]] = {
        directory: {} for directory in services.replica_manager.data_directories
    }
    for number, partition in enumerate(list(services.replica_manager.partitions()), 1):
        if wanted is None or (partition.topic, partition.index) in wanted:
            topics = by_directory[services.replica_manager.data_directory(partition)]
            topic = topics.get(partition.topic)
            if topic is None:
                topic = topics[partition.topic] = DescribeLogDirsTopic(partition.topic)
            topic.partitions.append(
                DescribeLogDirsPartition(partition.index, partition.log.size, 0, False)
            )
        if number % _AT_ONCE == 0:
            await checkpoint()
    return DescribeLogDirsResponse(
        results=[
            _result(services, directory, list(topics.values()))
            for directory, topics in by_directory.items()
        ]
    )


def _result(
    services: "Services", directory: str, topics: list[DescribeLogDirsTopic]
) -> DescribeLogDirsResult:
    try:
        space = services.replica_manager.disk_space(directory)
    except OSError as error:
        services.log.error("looking at the volume of %s failed: %s", directory, error)
        return DescribeLogDirsResult(ErrorCode.KAFKA_STORAGE_ERROR, directory)
    return DescribeLogDirsResult(ErrorCode.NONE, directory, topics, space.total, space.usable)


def error_response(
    request: "DescribeLogDirsRequest", error: "KafkaError", version: int
) -> DescribeLogDirsResponse:
    """The error of the whole answer; below v3 there is no field for it."""
    return DescribeLogDirsResponse(error_code=error.error_code if version >= 3 else 0)
