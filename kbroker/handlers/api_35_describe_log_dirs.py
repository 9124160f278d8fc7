"""DescribeLogDirs, versions 1-5: what lies in the data directories, partition by partition.

v3 adds an error of the whole answer, v4 the volume's size and free bytes, v5 whether a directory
is cordoned, which none is. Null topics ask for every partition. A directory whose disk failed has
KAFKA_STORAGE_ERROR and nothing else. A log on its way to another directory is in both: there as a
future key, with the offsets that it lacks.
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
    from kbroker.storage.log_directory import LogDirectory
    from kbroker.storage.unified_log import UnifiedLog

_Topics = dict[str, DescribeLogDirsTopic]
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
    found: dict[str, _Topics] = {directory.path: {} for directory in logs.directories}
    for number, log in enumerate(logs.logs, 1):
        if wanted is None or (log.topic, log.partition) in wanted:
            directory = logs.directory_of(log.topic, log.partition)
            if directory is not None:
                _add(
                    found[directory.path], log, lag=max(log.high_watermark - log.log_end_offset, 0)
                )
            move = logs.moves.get(log.topic, log.partition)
            if move is not None:
                lag = log.log_end_offset - move.future.log_end_offset
                _add(found[move.directory.path], move.future, lag=lag, is_future=True)
        if number % _AT_ONCE == 0:
            await checkpoint()
    return DescribeLogDirsResponse(
        results=[
            _result(services, directory, list(found[directory.path].values()))
            for directory in logs.directories
        ]
    )


def _add(topics: _Topics, log: "UnifiedLog", *, lag: int, is_future: bool = False) -> None:
    topic = topics.get(log.topic)
    if topic is None:
        topic = topics[log.topic] = DescribeLogDirsTopic(log.topic)
    topic.partitions.append(DescribeLogDirsPartition(log.partition, log.size, lag, is_future))


def _result(
    services: "Services", directory: "LogDirectory", topics: list[DescribeLogDirsTopic]
) -> DescribeLogDirsResult:
    path = os.path.abspath(directory.path)
    if directory.failure is not None:
        return DescribeLogDirsResult(ErrorCode.KAFKA_STORAGE_ERROR, path)
    try:
        space = services.replica_manager.log_manager.env.files.disk_space(directory.path)
    except OSError as error:
        services.log.error("looking at the volume of %s failed: %s", path, error)
        return DescribeLogDirsResult(ErrorCode.KAFKA_STORAGE_ERROR, path)
    return DescribeLogDirsResult(ErrorCode.NONE, path, topics, space.total, space.usable)


def error_response(
    request: "DescribeLogDirsRequest", error: "KafkaError", version: int
) -> DescribeLogDirsResponse:
    """The error of the whole answer; below v3 there is no field for it."""
    return DescribeLogDirsResponse(error_code=error.error_code if version >= 3 else 0)
