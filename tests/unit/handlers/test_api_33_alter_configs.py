"""AlterConfigs: everything a resource does not mention goes."""

import pytest

from kbroker.metadata.topic_control import NewTopic
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.alter_configs_request import (
    AlterableConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
)
from kbroker.protocol.messages.alter_configs_response import (
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
)
from tests.unit.handlers.asking import asking

pytestmark = pytest.mark.anyio
KEY = 33
TOPIC, BROKER, LOGGER = 2, 4, 8


def resource(kind: int, name: str, **settings: str | None) -> AlterConfigsResource:
    configs = [AlterableConfig(k.replace("_", "."), v) for k, v in settings.items()]
    return AlterConfigsResource(kind, name, configs)


@pytest.mark.parametrize("version", range(3))
async def test_settings_are_replaced(version: int) -> None:
    async with asking() as client:
        topic = NewTopic(name="t", configs=[("retention.ms", "1"), ("segment.ms", "1")])
        await client.node.controller.create_topics([topic])
        request = AlterConfigsRequest(
            [
                resource(TOPIC, "t", retention_ms="2"),
                resource(BROKER, "1", message_max_bytes="7"),
                resource(BROKER, "", min_insync_replicas="1"),
                resource(TOPIC, "nope", retention_ms="2"),
                resource(TOPIC, "null", retention_ms=None),
                resource(LOGGER, "1"),
            ]
        )
        response = await client.ask(KEY, version, request)
        invalid = ErrorCode.INVALID_REQUEST
        assert response.responses == [
            AlterConfigsResourceResponse(0, None, TOPIC, "t"),
            AlterConfigsResourceResponse(0, None, BROKER, "1"),
            AlterConfigsResourceResponse(0, None, BROKER, ""),
            AlterConfigsResourceResponse(3, "The topic 'nope' does not exist.", TOPIC, "nope"),
            AlterConfigsResourceResponse(
                invalid, "Null value not supported for : retention.ms", TOPIC, "null"
            ),
            AlterConfigsResourceResponse(invalid, "Unknown resource type 8", LOGGER, "1"),
        ]
        assert client.node.image.topic_overrides("t") == {"retention.ms": "2"}
        assert client.node.image.broker_overrides(1) == {"message.max.bytes": "7"}
        again = AlterConfigsRequest([resource(BROKER, "1")])
        await client.ask(KEY, version, again)
        assert client.node.image.broker_overrides(1) == {}


@pytest.mark.parametrize("version", range(3))
async def test_validate_only_and_nothing(version: int) -> None:
    async with asking() as client:
        await client.node.controller.create_topics([NewTopic(name="t")])
        revision = client.node.image.revision
        request = AlterConfigsRequest([resource(TOPIC, "t", retention_ms="2")], validate_only=True)
        response = await client.ask(KEY, version, request)
        assert response.responses[0].error_code == 0
        assert client.node.image.revision == revision
        assert await client.ask(KEY, version, AlterConfigsRequest()) == AlterConfigsResponse()
