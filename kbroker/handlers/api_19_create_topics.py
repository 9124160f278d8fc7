"""CreateTopics (19), versions 2-7: new topics, with replicas placed or assigned by hand.

v4  -1 for partitions and replication factor takes the broker's default (KIP-464).
v5  flexible; the answer holds the topic's effective settings (KIP-525).
v6  may be throttled (KIP-599): there are no quotas yet, so it never is.
v7  the answer holds the topic id.
The answer comes when the topics are durable and this broker leads their partitions. A timeout of 0
or less is over before it begins, as with Kafka's controller: nothing is created.
"""

from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from kbroker.config.describe import describe_new_topic
from kbroker.metadata.topic_control import CreatedTopic, NewTopic
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.create_topics_request import CreatableTopic, CreateTopicsRequest
from kbroker.protocol.messages.create_topics_response import (
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsResponse,
)

if TYPE_CHECKING:
    from kbroker.config.broker_config import BrokerConfig
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext

_FIRST_WITH_CONFIGS = 5


def handle(
    services: "Services", context: "RequestContext", request: CreateTopicsRequest
) -> CreateTopicsResponse | Coroutine[Any, Any, CreateTopicsResponse]:
    """A coroutine, unless there is nothing to create."""
    if not request.topics:
        return CreateTopicsResponse()
    return _create(services, context.api_version, request)


async def _create(
    services: "Services", version: int, request: CreateTopicsRequest
) -> CreateTopicsResponse:
    created = await services.controller.create_topics(
        [_new_topic(topic) for topic in request.topics],
        validate_only=request.validate_only,
        timeout_ms=request.timeout_ms,
    )
    configs = _EffectiveConfigs(services.config.current)
    return CreateTopicsResponse(
        topics=[_to_result(topic, configs, version=version) for topic in created]
    )


def _new_topic(topic: CreatableTopic) -> NewTopic:
    return NewTopic(
        name=topic.name,
        num_partitions=topic.num_partitions,
        replication_factor=topic.replication_factor,
        assignments=[(a.partition_index, a.broker_ids) for a in topic.assignments],
        configs=[(config.name, config.value) for config in topic.configs],
    )


class _EffectiveConfigs:
    """The settings of new topics as the answer shows them; topics with the same share a list."""

    def __init__(self, config: "BrokerConfig") -> None:
        self._config = config
        self._known: dict[tuple[tuple[str, str], ...], list[CreatableTopicConfigs]] = {}

    def of(self, overrides: Mapping[str, str]) -> list[CreatableTopicConfigs]:
        key = tuple(sorted(overrides.items()))
        configs = self._known.get(key)
        if configs is None:
            configs = self._known[key] = [
                CreatableTopicConfigs(
                    name=entry.name,
                    value=entry.value,
                    read_only=entry.read_only,
                    config_source=entry.source,
                    is_sensitive=entry.is_sensitive,
                )
                for entry in describe_new_topic(overrides, self._config)
            ]
        return configs


def _to_result(
    topic: CreatedTopic, configs: _EffectiveConfigs, *, version: int
) -> CreatableTopicResult:
    if topic.error is not None:
        return CreatableTopicResult(
            name=topic.name,
            error_code=topic.error.error_code,
            error_message=topic.error.message,
        )
    return CreatableTopicResult(
        name=topic.name,
        topic_id=topic.topic_id,
        error_message=None,
        num_partitions=topic.num_partitions,
        replication_factor=topic.replication_factor,
        configs=configs.of(topic.configs) if version >= _FIRST_WITH_CONFIGS else [],
    )


def error_response(
    request: CreateTopicsRequest, error: KafkaError, version: int
) -> CreateTopicsResponse:
    """The error for every topic."""
    return CreateTopicsResponse(
        topics=[
            CreatableTopicResult(
                name=topic.name, error_code=error.error_code, error_message=error.message
            )
            for topic in request.topics
        ]
    )
