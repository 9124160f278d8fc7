"""DescribeLogDirs, versions 1-5: what lies in the data directory, partition by partition.

v3 adds an error of the whole answer, v4 the volume's size and free bytes, v5 whether a directory
is cordoned, which none is. Null topics ask for every partition. Logs never move between
directories, so there is no lag and no future key.
"""

import os
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
    logs = services.replica_manager.log_manager
    by_directory: dict[str, dict[str, DescribeLogDirsTopic]] = {
        directory.path: {} for directory in logs.directories
    }
    for number, log in enumerate(logs.logs, 1):
        directory = logs.directory_of(log.topic, log.partition)
        if directory is not None and (wanted is None or (log.topic, log.partition) in wanted):
            topics = by_directory[directory.path]
            topic = topics.get(log.topic)
            if topic is None:
                topic = topics[log.topic] = DescribeLogDirsTopic(log.topic)
            topic.partitions.append(DescribeLogDirsPartition(log.partition, log.size, 0, False))
        if number % _AT_ONCE == 0:
            await checkpoint()
    return DescribeLogDirsResponse(
        results=[
            _result(services, path, list(topics.values())) for path, topics in by_directory.items()
        ]
    )


def _result(
    services: "Services", path: str, topics: list[DescribeLogDirsTopic]
) -> DescribeLogDirsResult:
    absolute = os.path.abspath(path)
    try:
        space = services.replica_manager.log_manager.env.files.disk_space(path)
    except OSError as error:
        services.log.error("looking at the volume of %s failed: %s", absolute, error)
        return DescribeLogDirsResult(ErrorCode.KAFKA_STORAGE_ERROR, absolute)
    return DescribeLogDirsResult(ErrorCode.NONE, absolute, topics, space.total, space.usable)


def error_response(
    request: "DescribeLogDirsRequest", error: "KafkaError", version: int
) -> DescribeLogDirsResponse:
    """The error of the whole answer; below v3 there is no field for it."""
    return DescribeLogDirsResponse(error_code=error.error_code if version >= 3 else 0)
