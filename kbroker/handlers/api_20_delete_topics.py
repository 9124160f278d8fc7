"""DeleteTopics (20), versions 1-6: topics by name, from v6 also by id.

v3  delete.topic.enable=false is TOPIC_DELETION_DISABLED, before it was INVALID_REQUEST.
v5  error messages; may be throttled (KIP-599): there are no quotas yet, so it never is.
v6  either a name or an id for each topic; ids in answers.
The answer comes when the deletion is durable and this broker no longer serves the partitions; files
go a little later. Kafka shuffles the results so that their order tells nothing; ours tells nothing
either: refusals first, then the deleted.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.delete_topics_request import DeleteTopicsRequest
from kbroker.protocol.messages.delete_topics_response import (
    DeletableTopicResult,
    DeleteTopicsResponse,
)
from kbroker.protocol.wire import ZERO_UUID

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.metadata.image import TopicImage, TopicsImage
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: DeleteTopicsRequest
) -> Coroutine[Any, Any, DeleteTopicsResponse]:
    """Raises KafkaError when topics may not be deleted at all."""
    if not services.config.current.delete_topic_enable:
        if context.api_version < 3:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, "This version does not support topic deletion."
            )
        raise KafkaError(ErrorCode.TOPIC_DELETION_DISABLED)
    return _delete(services, request)


async def _delete(services: "Services", request: DeleteTopicsRequest) -> DeleteTopicsResponse:
    results, names, ids = _sort_out(request)
    if (names or ids) and request.timeout_ms <= 0:
        # Kafka's controller gives up what is already over when its turn comes to look names up.
        raise KafkaError(ErrorCode.REQUEST_TIMED_OUT)
    topics = _resolve(services.metadata.image.topics, names, ids, results)
    deleted = await services.controller.delete_topics(topics, timeout_ms=request.timeout_ms)
    for topic in topics:
        if topic.topic_id in deleted:
            results.append(DeletableTopicResult(topic.name, topic.topic_id, 0, None))
        else:  # another request was faster
            results.append(_refused(topic.name, topic.topic_id, ErrorCode.UNKNOWN_TOPIC_ID))
    return DeleteTopicsResponse(responses=results)


def _sort_out(
    request: DeleteTopicsRequest,
) -> tuple[list[DeletableTopicResult], list[str], list[bytes]]:
    """(results of unusable items, names, ids); what is given twice is refused altogether."""
    results = []
    names: dict[str, int] = {}
    ids: dict[bytes, int] = {}
    for name in request.topic_names:
        names[name] = names.get(name, 0) + 1
    for topic in request.topics:
        if topic.name is None:
            if topic.topic_id == ZERO_UUID:
                text = "Neither topic name nor id were specified."
                results.append(_refused(None, ZERO_UUID, ErrorCode.INVALID_REQUEST, text))
            else:
                ids[topic.topic_id] = ids.get(topic.topic_id, 0) + 1
        elif topic.topic_id == ZERO_UUID:
            names[topic.name] = names.get(topic.name, 0) + 1
        else:
            text = "You may not specify both topic name and topic id."
            results.append(_refused(topic.name, topic.topic_id, ErrorCode.INVALID_REQUEST, text))
    for name, count in names.items():
        if count > 1:
            text = "Duplicate topic name."
            results.append(_refused(name, ZERO_UUID, ErrorCode.INVALID_REQUEST, text))
    for topic_id, count in ids.items():
        if count > 1:
            text = "Duplicate topic id."
            results.append(_refused(None, topic_id, ErrorCode.INVALID_REQUEST, text))
    once_named = [name for name, count in names.items() if count == 1]
    return results, once_named, [topic_id for topic_id, count in ids.items() if count == 1]


def _resolve(
    topics: "TopicsImage",
    names: list[str],
    ids: list[bytes],
    results: list[DeletableTopicResult],
) -> list["TopicImage"]:
    """The topics to delete; adds a result for each that there is not or that is given twice."""
    found: dict[bytes, TopicImage] = {}
    for topic_id in ids:
        topic = topics.get_by_id(topic_id)
        if topic is None:
            results.append(_refused(None, topic_id, ErrorCode.UNKNOWN_TOPIC_ID))
        else:
            found[topic_id] = topic
    for name in names:
        topic = topics.get(name)
        if topic is None:
            results.append(_refused(name, ZERO_UUID, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
        elif topic.topic_id in found:
            del found[topic.topic_id]
            text = "The provided topic name maps to an ID that was already supplied."
            results.append(_refused(name, topic.topic_id, ErrorCode.INVALID_REQUEST, text))
        else:
            found[topic.topic_id] = topic
    return list(found.values())


def _refused(
    name: str | None, topic_id: bytes, code: ErrorCode, message: str | None = None
) -> DeletableTopicResult:
    return DeletableTopicResult(name, topic_id, code, code.message if message is None else message)


def error_response(
    request: DeleteTopicsRequest, error: KafkaError, version: int
) -> DeleteTopicsResponse:
    """The error code for every topic, without a text."""
    return DeleteTopicsResponse(
        responses=[
            *(
                DeletableTopicResult(topic.name, topic.topic_id, error.error_code, None)
                for topic in request.topics
            ),
            *(
                DeletableTopicResult(name, error_code=error.error_code, error_message=None)
                for name in request.topic_names
            ),
        ]
    )
