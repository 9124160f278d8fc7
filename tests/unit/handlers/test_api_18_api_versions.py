"""ApiVersions: what is advertised is what is served."""

import pytest

from kbroker.handlers.registry import HANDLERS
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.api_versions_request import ApiVersionsRequest
from kbroker.protocol.registry import APIS
from tests.unit.handlers.asking import asking

pytestmark = pytest.mark.anyio
KEY = 18


def request(name: str = "test", version: str = "1.0") -> ApiVersionsRequest:
    return ApiVersionsRequest(name, version)


@pytest.mark.parametrize("version", range(5))
async def test_ranges_are_those_of_the_registry_and_produce_begins_at_0(version: int) -> None:
    async with asking() as client:
        response = await client.ask(KEY, version, request())
        assert response.error_code == 0
        told = {key.api_key: (key.min_version, key.max_version) for key in response.api_keys}
        assert told.pop(0) == (0, 13)
        assert list(told) == sorted(told)
        assert told == {
            key: (APIS[key].min_version, APIS[key].max_version)
            for key in HANDLERS
            if key not in (0, 71, 72)
        }


@pytest.mark.parametrize("version", [3, 4])
async def test_features(version: int) -> None:
    async with asking() as client:
        response = await client.ask(KEY, version, request())
        finalized = {f.name: f.max_version_level for f in response.finalized_features}
        assert finalized["metadata.version"] == 30
        assert finalized["group.version"] == 1  # KIP-848
        assert finalized["transaction.version"] == 2  # KIP-890
        assert response.finalized_features_epoch == client.node.image.revision
        assert all(f.max_version_level == f.min_version_level for f in response.finalized_features)
        supported = {f.name: f for f in response.supported_features}
        assert supported.keys() >= finalized.keys() or version == 3
        assert version == 4 or all(f.min_version > 0 for f in supported.values())
        assert not response.zk_migration_ready


@pytest.mark.parametrize("text", ["a", "A-b.c", "9", "apache-kafka-java", "x" * 300])
async def test_software_names_that_are_fine_are_remembered(text: str) -> None:
    async with asking() as client:
        assert (await client.ask(KEY, 3, request(text, "1"))).error_code == 0
        assert client.connection.client_software_name == text
        assert (await client.ask(KEY, 4, request("a", text))).error_code == 0
        assert client.connection.client_software_version == text


@pytest.mark.parametrize("text", ["", " ", "a b", "-a", "a-", ".", "a/b", "é", "a\n"])
async def test_software_names_that_are_not(text: str) -> None:
    async with asking() as client:
        for bad in (request(text, "1"), request("a", text)):
            response = await client.ask(KEY, 3, bad)
            assert response.error_code == ErrorCode.INVALID_REQUEST
            assert response.api_keys == response.supported_features == []
            assert response.finalized_features_epoch == -1
        assert client.connection.client_software_name == "unknown"


async def test_old_versions_have_no_name_to_check() -> None:
    async with asking() as client:
        assert (await client.ask(KEY, 2, ApiVersionsRequest())).error_code == 0
