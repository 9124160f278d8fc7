"""Topics and settings: created, described, changed, deleted."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from kbroker.client.client import KafkaClient, check
from kbroker.client.connection import ConnectionLostError
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.create_partitions_request import (
    CreatePartitionsRequest,
    CreatePartitionsTopic,
)
from kbroker.protocol.messages.create_topics_request import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from kbroker.protocol.messages.delete_topics_request import DeleteTopicsRequest
from kbroker.protocol.messages.describe_configs_request import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
)
from kbroker.protocol.messages.describe_configs_response import DescribeConfigsResourceResult
from kbroker.protocol.messages.incremental_alter_configs_request import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from kbroker.protocol.messages.list_config_resources_request import ListConfigResourcesRequest
from kbroker.protocol.messages.metadata_response import MetadataResponseTopic

TOPIC: Final = 2
BROKER: Final = 4
BROKER_LOGGER: Final = 8
CLIENT_METRICS: Final = 16
GROUP: Final = 32
RESOURCE_TYPES: Final = {
    TOPIC: "topic",
    BROKER: "broker",
    BROKER_LOGGER: "broker-logger",
    CLIENT_METRICS: "client-metrics",
    GROUP: "group",
}
_SET: Final = 0
_DELETE: Final = 1
_FINAL: Final = frozenset({ErrorCode.UNKNOWN_TOPIC_OR_PARTITION})


class Resource(NamedTuple):
    """What settings belong to: one of ``RESOURCE_TYPES`` and its name.

    The name of a broker and of its loggers is its id; BROKER "" is the default of all brokers.
    """

    resource_type: int
    name: str


class Admin:
    """Verbs over a client. Changes go to the controller; all raise KafkaError."""

    def __init__(self, client: KafkaClient) -> None:
        self._client = client
        self._timeout_ms = int(client.timeout_s * 1000)

    async def list_topics(self) -> list[MetadataResponseTopic]:
        """Every topic, by name."""
        found = await self._client.retrying(self._client.metadata)
        return sorted(found.topics, key=lambda topic: topic.name or "")

    async def describe_topics(self, names: Sequence[str]) -> list[MetadataResponseTopic]:
        """The topics in the order asked for; UNKNOWN_TOPIC_OR_PARTITION for the first missing."""

        async def attempt() -> list[MetadataResponseTopic]:
            found = {topic.name: topic for topic in (await self._client.metadata(names)).topics}
            for name in names:
                check(found[name].error_code, f"topic {name}")
            return [found[name] for name in names]

        return await self._client.retrying(attempt, final=_FINAL)

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = -1,
        replication_factor: int = -1,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """Create it; -1 leaves a number to the broker's settings (KIP-464)."""
        configs = [CreatableTopicConfig(key, value) for key, value in (config or {}).items()]
        topic = CreatableTopic(name, partitions, replication_factor, configs=configs)
        response = await self._on_controller(
            ApiKey.CREATE_TOPICS, CreateTopicsRequest([topic], timeout_ms=self._timeout_ms)
        )
        (result,) = response.topics
        check(result.error_code, result.error_message)

    async def create_partitions(self, name: str, count: int) -> None:
        """Let a topic have ``count`` partitions; there can only be more."""
        request = CreatePartitionsRequest(
            [CreatePartitionsTopic(name, count, None)], timeout_ms=self._timeout_ms
        )
        response = await self._on_controller(ApiKey.CREATE_PARTITIONS, request)
        (result,) = response.results
        _check(result, Resource(TOPIC, name))

    async def delete_topic(self, name: str) -> None:
        """Delete it with all its records."""
        request = DeleteTopicsRequest(topic_names=[name], timeout_ms=self._timeout_ms)
        response = await self._on_controller(ApiKey.DELETE_TOPICS, request)
        (result,) = response.responses
        _check(result, Resource(TOPIC, name))

    async def describe_configs(self, resource: Resource) -> list[DescribeConfigsResourceResult]:
        """The settings of a resource, by name."""
        asked = DescribeConfigsResource(resource.resource_type, resource.name, None)

        async def attempt() -> list[DescribeConfigsResourceResult]:
            node_id = await self._node_for(resource)
            response = await self._client.call(
                node_id, ApiKey.DESCRIBE_CONFIGS, DescribeConfigsRequest([asked])
            )
            (result,) = response.results
            _check(result, resource)
            return sorted(result.configs, key=lambda config: config.name)

        return await self._client.retrying(attempt, final=_FINAL)

    async def list_config_resources(self) -> list[Resource]:
        """What has settings of its own or could have, as the broker knows it (KIP-1142).

        A broker before 4.1 tells only of subscriptions to metrics, one before 3.7 of nothing: its
        topics and brokers are listed then, groups with settings are not known.
        """

        async def attempt() -> list[Resource]:
            connection = await self._client.connection()
            api_key = ApiKey.LIST_CONFIG_RESOURCES
            found: set[Resource] = set()
            if connection.knows(api_key):
                response = await connection.call(api_key, ListConfigResourcesRequest())
                check(response.error_code)
                found = {
                    Resource(each.resource_type, each.resource_name)
                    for each in response.config_resources
                }
            if not connection.knows(api_key) or connection.version(api_key) == 0:
                there = await self._client.metadata()
                found |= {Resource(TOPIC, each.name or "") for each in there.topics}
                for node_id in map(str, there.nodes):
                    found |= {Resource(BROKER, node_id), Resource(BROKER_LOGGER, node_id)}
            return sorted(found)

        return await self._client.retrying(attempt)

    async def alter_configs(self, resource: Resource, changes: Mapping[str, str | None]) -> None:
        """Set settings, or with None go back to their defaults; others stay (KIP-339)."""
        configs = [
            AlterableConfig(name, _DELETE if value is None else _SET, value)
            for name, value in changes.items()
        ]
        altered = AlterConfigsResource(resource.resource_type, resource.name, configs)

        async def attempt() -> None:
            node_id = await self._node_for(resource)
            response = await self._client.call(
                node_id, ApiKey.INCREMENTAL_ALTER_CONFIGS, IncrementalAlterConfigsRequest([altered])
            )
            (result,) = response.responses
            _check(result, resource)

        await self._client.retrying(attempt, final=_FINAL)

    async def _node_for(self, resource: Resource) -> int | None:
        """Settings of one broker are asked of that broker, all else of any."""
        if resource.resource_type not in (BROKER, BROKER_LOGGER) or not resource.name:
            return None
        nodes = (await self._client.metadata([])).nodes
        if not resource.name.isdecimal() or int(resource.name) not in nodes:
            known = ", ".join(map(str, sorted(nodes)))
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, f"there is no broker {resource.name}; there are: {known}"
            )
        return int(resource.name)

    async def _on_controller(self, api_key: ApiKey, request: Any) -> Any:
        """Sent again only to another controller: a repeated creation would find its own topic."""

        async def attempt() -> Any:
            connection = await self._client.connection(await self._client.controller_id())
            try:
                response = await connection.call(api_key, request)
            except ConnectionLostError as error:
                raise KafkaError(ErrorCode.NETWORK_EXCEPTION, str(error)) from error
            if api_key == ApiKey.CREATE_TOPICS:
                refused = {each.error_code for each in response.topics}
            elif api_key == ApiKey.DELETE_TOPICS:
                refused = {each.error_code for each in response.responses}
            else:
                refused = {each.error_code for each in response.results}
            if refused == {ErrorCode.NOT_CONTROLLER}:
                raise KafkaError(ErrorCode.NOT_CONTROLLER)
            return response

        return await self._client.retrying(attempt, final=frozenset({ErrorCode.NETWORK_EXCEPTION}))


def _check(result: Any, resource: Resource) -> None:
    """Raise the error of a result that has a message, which may not say what it is about."""
    message: str = result.error_message or ""
    if not re.search(rf"(?<![\w.-]){re.escape(resource.name)}(?![\w.-])", message):
        what = f"{RESOURCE_TYPES[resource.resource_type]} {resource.name}"
        message = f"{what}: {message}" if message.strip() else what
    check(result.error_code, message)
