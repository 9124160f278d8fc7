"""Metadata (3), versions 0-13: brokers, controller, topics and their partitions' leaders.

v0     an empty list asks for all topics; unreachable replicas are left out, with an error.
v1     null asks for all topics, an empty list for none.
v4     allow_auto_topic_creation; earlier clients always allow it.
v6     a leader without the client's listener is LISTENER_NOT_FOUND.
v8     authorized operations (KIP-430): all of them, there is no authorizer yet.
v10-11 ids in answers; an id or a null name in a request is refused.
v12    topics by id; when one is given, names are ignored, as in Kafka.
v13    a top-level error code. REBOOTSTRAP_REQUIRED is never sent.
A missing topic is UNKNOWN_TOPIC_OR_PARTITION at first, also while it is being created.
"""

from typing import TYPE_CHECKING

from kbroker.handlers.authorized_operations import CLUSTER_OPERATIONS, NOT_ASKED, TOPIC_OPERATIONS
from kbroker.handlers.repeated_metadata import RepeatedMetadata
from kbroker.metadata.topic_metadata import alive_brokers, describe_partitions
from kbroker.metadata.topic_names import is_internal, topic_name_problem
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.metadata_request import MetadataRequest, MetadataRequestTopic
from kbroker.protocol.messages.metadata_response import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponseTopic,
)
from kbroker.protocol.wire import ZERO_UUID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbroker.handlers.services import Services
    from kbroker.metadata.image import MetadataImage, TopicImage
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: MetadataRequest
) -> MetadataResponse:
    """Answers from the image at once; topics that are to be created come later."""
    version = context.api_version
    image = services.metadata.image
    listener = context.connection.listener_name
    asked = request.topics
    if asked is None or (not asked and version == 0):
        found: Iterable[TopicImage] = image.topics.by_name.values()
        missing: list[MetadataResponseTopic] = []
        unknown_ids: list[MetadataResponseTopic] = []
    else:
        if version < 12:
            _refuse_ids(asked, version)
        found, absent_names, unknown_ids = _look_up(image, asked)
        missing = []
        if absent_names:
            allowed = request.allow_auto_topic_creation
            missing = _missing(services, absent_names, may_create=allowed)
    operations = TOPIC_OPERATIONS if request.include_topic_authorized_operations else NOT_ASKED
    brokers = image.brokers
    topics = [
        MetadataResponseTopic(
            0,
            topic.name,
            topic.topic_id,
            topic.is_internal,
            describe_partitions(topic, brokers, listener, version),
            operations,
        )
        for topic in found
    ]
    for topic in missing:
        topic.topic_authorized_operations = operations
    topics += missing
    topics += unknown_ids
    return MetadataResponse(
        brokers=_brokers(services, context, image),
        cluster_id=image.cluster_id,
        controller_id=_controller_id(image, listener),
        topics=topics,
        cluster_authorized_operations=(
            CLUSTER_OPERATIONS if request.include_cluster_authorized_operations else NOT_ASKED
        ),
    )


def shortcut(services: "Services") -> RepeatedMetadata:
    """What one dispatcher keeps of this API's answers."""
    return RepeatedMetadata(services)


def _refuse_ids(asked: list[MetadataRequestTopic], version: int) -> None:
    for topic in asked:
        if topic.name is None:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, f"Topic name can not be null for version {version}"
            )
        if topic.topic_id != ZERO_UUID:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"Topic IDs are not supported in requests for version {version}",
            )


def _look_up(
    image: "MetadataImage", asked: list[MetadataRequestTopic]
) -> tuple[list["TopicImage"], list[str], list[MetadataResponseTopic]]:
    """(topics there are, names there are not, answers for unknown ids); each topic once."""
    if len(asked) == 1:  # what producers and consumers send all day
        (only,) = asked
        if only.topic_id == ZERO_UUID and only.name is not None:
            topic = image.topics.get(only.name)
            return ([topic], [], []) if topic is not None else ([], [only.name], [])
    topic_ids = {topic.topic_id: None for topic in asked if topic.topic_id != ZERO_UUID}
    found: list[TopicImage] = []
    if topic_ids:
        unknown = []
        for topic_id in topic_ids:
            topic = image.topics.get_by_id(topic_id)
            if topic is not None:
                found.append(topic)
            else:
                unknown.append(MetadataResponseTopic(ErrorCode.UNKNOWN_TOPIC_ID, None, topic_id))
        return found, [], unknown
    absent = []
    for name in dict.fromkeys(topic.name for topic in asked):
        if name is None:
            # Kafka stumbles over the null; its clients never send one without an id.
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
        topic = image.topics.get(name)
        if topic is not None:
            found.append(topic)
        else:
            absent.append(name)
    return found, absent, []


def _missing(
    services: "Services", names: list[str], *, may_create: bool
) -> list[MetadataResponseTopic]:
    """Answers for topics that do not exist; asks for those that may be created."""
    answers = []
    wanted = []
    for name in names:
        if topic_name_problem(name) is not None:
            error = ErrorCode.INVALID_TOPIC_EXCEPTION
        else:
            error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            wanted.append(name)
        answers.append(MetadataResponseTopic(error, name, is_internal=is_internal(name)))
    if wanted and may_create and services.config.current.auto_create_topics_enable:
        services.controller.auto_create(wanted)
    return answers


def _brokers(
    services: "Services", context: "RequestContext", image: "MetadataImage"
) -> list[MetadataResponseBroker]:
    """Live brokers with the client's listener; this one under the address the client came by."""
    listener = context.connection.listener_name
    brokers = []
    for broker in alive_brokers(image.brokers, listener):
        if broker.node_id == services.node_id:
            host, port = context.connection.advertised_address()
        else:
            host, port = broker.endpoints[listener]
        brokers.append(MetadataResponseBroker(broker.node_id, host, port, broker.rack))
    return brokers


def _controller_id(image: "MetadataImage", listener: str) -> int:
    """The controller; any live broker when it cannot be reached, -1 when there is none."""
    controller = image.brokers.get(image.controller_id)
    if controller is not None and not controller.fenced:
        return image.controller_id
    alive = next(iter(alive_brokers(image.brokers, listener)), None)
    return alive.node_id if alive is not None else -1


def error_response(request: MetadataRequest, error: KafkaError, version: int) -> MetadataResponse:
    """The error for every topic that was asked for, and no brokers."""
    return MetadataResponse(
        topics=[
            MetadataResponseTopic(error.error_code, topic.name or "", topic.topic_id)
            for topic in request.topics or ()
        ],
        error_code=error.error_code,
    )
