"""AlterReplicaLogDirs (34), versions 1-2: let replicas move to another data directory (KIP-113).

The answer says that a move has begun; DescribeLogDirs shows how far it is. The copy goes on beside
appends and reads and begins anew after a restart. Versions differ in their encoding only.
"""

from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.alter_replica_log_dirs_response import (
    AlterReplicaLogDirPartitionResult,
    AlterReplicaLogDirsResponse,
    AlterReplicaLogDirTopicResult,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kbroker.handlers.services import Services
    from kbroker.protocol.messages.alter_replica_log_dirs_request import AlterReplicaLogDirsRequest
    from kbroker.request_context import RequestContext

_AT_ONCE = 100
"""Replicas that are set in motion before other connections get their turn."""


def handle(
    services: "Services", context: "RequestContext", request: "AlterReplicaLogDirsRequest"
) -> "Coroutine[Any, Any, AlterReplicaLogDirsResponse]":
    """A replica that is named twice goes where it was named last, as Kafka has it."""
    return _alter(services, _wanted(request))


def _wanted(request: "AlterReplicaLogDirsRequest") -> dict[tuple[str, int], str]:
    return {
        (topic.name, index): directory.path
        for directory in request.dirs
        for topic in directory.topics
        for index in topic.partitions
    }


async def _alter(
    services: "Services", wanted: dict[tuple[str, int], str]
) -> AlterReplicaLogDirsResponse:
    results: dict[tuple[str, int], ErrorCode] = {}
    for number, ((topic, index), path) in enumerate(wanted.items(), 1):
        try:
            services.replica_manager.alter_log_dir(topic, index, path)
            results[topic, index] = ErrorCode.NONE
        except KafkaError as error:
            results[topic, index] = error.error_code
        if number % _AT_ONCE == 0:
            await anyio.lowlevel.checkpoint()
    return _response(results)


def _response(results: dict[tuple[str, int], ErrorCode]) -> AlterReplicaLogDirsResponse:
    topics: dict[str, AlterReplicaLogDirTopicResult] = {}
    for (name, index), error_code in results.items():
        topic = topics.setdefault(name, AlterReplicaLogDirTopicResult(name))
        topic.partitions.append(AlterReplicaLogDirPartitionResult(index, error_code))
    return AlterReplicaLogDirsResponse(results=list(topics.values()))


def error_response(
    request: "AlterReplicaLogDirsRequest", error: "KafkaError", version: int
) -> AlterReplicaLogDirsResponse:
    """The error for every replica."""
    return _response(dict.fromkeys(_wanted(request), error.error_code))
