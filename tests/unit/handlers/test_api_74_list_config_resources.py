"""ListConfigResources: names by type."""

import pytest

from kbroker.metadata.config_control import AlterOperation, ConfigChange, SettingChange
from kbroker.metadata.topic_control import NewTopic
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.list_config_resources_request import ListConfigResourcesRequest
from kbroker.protocol.messages.list_config_resources_response import ListConfigResourcesResponse
from tests.unit.handlers.asking import Asker, asking

pytestmark = pytest.mark.anyio
KEY = 74
TOPIC, BROKER, LOGGER, METRICS, GROUP = 2, 4, 8, 16, 32


async def fill(client: Asker) -> None:
    await client.node.controller.create_topics([NewTopic(name="t")])
    await client.node.controller.alter_configs(
        [
            ConfigChange(
                resource_type=kind,
                resource_name=name,
                changes=[SettingChange(setting, AlterOperation.SET, value)],
            )
            for kind, name, setting, value in (
                (METRICS, "m", "interval.ms", "100"),
                (GROUP, "g", "share.isolation.level", "read_committed"),
                (TOPIC, "t", "retention.ms", "1"),
            )
        ]
    )


async def names(client: Asker, version: int, *types: int) -> list[tuple[int, str]]:
    response: ListConfigResourcesResponse = await client.ask(
        KEY, version, ListConfigResourcesRequest(list(types))
    )
    assert response.error_code == 0
    return [(r.resource_type, r.resource_name) for r in response.config_resources]


async def test_client_metrics_only_in_v0() -> None:
    async with asking() as client:
        assert await names(client, 0) == []
        await fill(client)
        assert await names(client, 0) == [(METRICS, "m")]


async def test_all_types_and_some() -> None:
    async with asking() as client:
        await fill(client)
        everything = [(GROUP, "g"), (METRICS, "m"), (LOGGER, "1"), (BROKER, "1"), (TOPIC, "t")]
        assert await names(client, 1) == everything
        assert await names(client, 1, TOPIC, GROUP) == [(GROUP, "g"), (TOPIC, "t")]


async def test_an_unknown_type() -> None:
    async with asking() as client:
        response = await client.ask(KEY, 1, ListConfigResourcesRequest([TOPIC, 3]))
        assert response == ListConfigResourcesResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
