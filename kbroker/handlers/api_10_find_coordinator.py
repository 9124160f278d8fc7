"""FindCoordinator (10), versions 0-6: which broker coordinates a group, a transaction, a share.

v0     groups only.
v1     key types: 0 group, 1 transaction, 2 share (from v6, KIP-932); an error message.
v4     several keys at once.
The coordinator is the leader of the key's partition of an internal topic, which is created when it
is missing. Apache Kafka answers COORDINATOR_NOT_AVAILABLE then and lets the client ask again; here
the answer waits for the topic.
"""

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from kbroker.coordinator.partitioning import partition_for
from kbroker.metadata.topic_metadata import is_reachable
from kbroker.metadata.topic_names import CONSUMER_OFFSETS, SHARE_GROUP_STATE, TRANSACTION_STATE
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.find_coordinator_request import FindCoordinatorRequest
from kbroker.protocol.messages.find_coordinator_response import (
    Coordinator,
    FindCoordinatorResponse,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext

_TOPICS = {0: CONSUMER_OFFSETS, 1: TRANSACTION_STATE, 2: SHARE_GROUP_STATE}
_SHARE = 2
_SHARE_FROM = 6
_MANY_KEYS_FROM = 4

_INVALID_REQUEST_TEXT = (
    "This most likely occurs because of a request being malformed by the client library or the "
    "message was sent to an incompatible broker. See the broker logs for more details."
)
_NOT_AVAILABLE_TEXT = "The coordinator is not available."


def handle(
    services: "Services", context: "RequestContext", request: FindCoordinatorRequest
) -> FindCoordinatorResponse | Coroutine[Any, Any, FindCoordinatorResponse]:
    """Answers at once, unless the internal topic has to be created."""
    topic_name = _TOPICS.get(request.key_type)
    if topic_name is None:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, f"Unknown coordinator type received: {request.key_type}"
        )
    needed = any(
        _error_of_key(request.key_type, key, context.api_version) is ErrorCode.NONE
        for key in _keys(request, context.api_version)
    )
    if needed and services.metadata.image.topics.get(topic_name) is None:
        return _create_and_answer(services, context, request, topic_name)
    return _answer(services, context, request, topic_name)


def _keys(request: FindCoordinatorRequest, version: int) -> Sequence[str]:
    return request.coordinator_keys if version >= _MANY_KEYS_FROM else (request.key,)


async def _create_and_answer(
    services: "Services",
    context: "RequestContext",
    request: FindCoordinatorRequest,
    topic_name: str,
) -> FindCoordinatorResponse:
    await services.controller.ensure_topics([topic_name])
    return _answer(services, context, request, topic_name)


def _answer(
    services: "Services",
    context: "RequestContext",
    request: FindCoordinatorRequest,
    topic_name: str,
) -> FindCoordinatorResponse:
    version = context.api_version
    found = [
        _find(services, context, request.key_type, key, topic_name)
        for key in _keys(request, version)
    ]
    if version >= _MANY_KEYS_FROM:
        return FindCoordinatorResponse(coordinators=found)
    return _old_response(found[0])


def _find(
    services: "Services", context: "RequestContext", key_type: int, key: str, topic_name: str
) -> Coordinator:
    error = _error_of_key(key_type, key, context.api_version)
    if error is not ErrorCode.NONE:
        return Coordinator(key, -1, "", -1, error)
    image = services.metadata.image
    topic = image.topics.get(topic_name)
    if topic is None or not topic.partitions:
        return Coordinator(key, -1, "", -1, ErrorCode.COORDINATOR_NOT_AVAILABLE)
    leader = topic.partitions[partition_for(key, len(topic.partitions))].leader
    listener = context.connection.listener_name
    if leader == services.node_id:
        host, port = context.connection.advertised_address()
    elif is_reachable(image.brokers, leader, listener):
        host, port = image.brokers[leader].endpoints[listener]
    else:
        return Coordinator(key, -1, "", -1, ErrorCode.COORDINATOR_NOT_AVAILABLE)
    return Coordinator(key, leader, host, port)


def _error_of_key(key_type: int, key: str, version: int) -> ErrorCode:
    if key_type != _SHARE:
        return ErrorCode.NONE
    if version < _SHARE_FROM or not _is_share_key(key):
        return ErrorCode.INVALID_REQUEST
    return ErrorCode.NONE


def _is_share_key(key: str) -> bool:
    """Whether it is ``group:topic id:partition``; the group may have colons of its own."""
    group, _, rest = key.rpartition(":")
    group, _, topic_id = group.rpartition(":")
    if not group.strip():
        return False
    try:
        int(rest)
        return len(urlsafe_b64decode(topic_id + "=" * (-len(topic_id) % 4))) == 16
    except (ValueError, binascii.Error):
        return False


def _old_response(found: Coordinator) -> FindCoordinatorResponse:
    """Versions 0 to 3 hold one coordinator; success has the message "NONE", as in Kafka."""
    texts = {
        ErrorCode.NONE: "NONE",
        ErrorCode.INVALID_REQUEST: _INVALID_REQUEST_TEXT,
        ErrorCode.COORDINATOR_NOT_AVAILABLE: _NOT_AVAILABLE_TEXT,
    }
    return FindCoordinatorResponse(
        error_code=found.error_code,
        error_message=texts[ErrorCode(found.error_code)],
        node_id=found.node_id,
        host=found.host,
        port=found.port,
    )


def error_response(
    request: FindCoordinatorRequest, error: KafkaError, version: int
) -> FindCoordinatorResponse:
    """The error for every key, with the text that Kafka has for the code."""
    code = error.error_code
    text = _INVALID_REQUEST_TEXT if code is ErrorCode.INVALID_REQUEST else error.message
    if version < _MANY_KEYS_FROM:
        return FindCoordinatorResponse(
            error_code=code, error_message=text, node_id=-1, host="", port=-1
        )
    return FindCoordinatorResponse(
        coordinators=[Coordinator(key, -1, "", -1, code, text) for key in request.coordinator_keys]
    )
