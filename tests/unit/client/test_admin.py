"""What errors of topics and settings are about, and which resources have settings."""

from __future__ import annotations

import argparse
import json

import pytest
from trio.testing import MockClock

from kbroker.cli import topics
from kbroker.client.admin import BROKER, BROKER_LOGGER, CLIENT_METRICS, TOPIC, Admin, Resource
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.create_partitions_response import (
    CreatePartitionsResponse,
    CreatePartitionsTopicResult,
)
from kbroker.protocol.messages.delete_topics_response import (
    DeletableTopicResult,
    DeleteTopicsResponse,
)
from kbroker.protocol.messages.describe_configs_response import (
    DescribeConfigsResponse,
    DescribeConfigsResult,
)
from kbroker.protocol.messages.list_config_resources_response import (
    ConfigResource,
    ListConfigResourcesResponse,
)
from kbroker.protocol.messages.list_offsets_response import (
    ListOffsetsPartitionResponse,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from tests.unit.client import scripted
from tests.unit.client.scripted import ScriptedBroker, metadata

pytestmark = pytest.mark.anyio
MISSING = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.fixture
def anyio_backend() -> tuple[str, dict]:
    """Seconds pass in these tests, and cost nothing."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (None, "topic t"),
        ("", "topic t"),
        ("Not there.", "topic t: Not there."),
        ("No 't'.", "No 't'."),
    ],
)
async def test_an_error_names_its_topic(said: str | None, told: str) -> None:
    script = {
        ApiKey.CREATE_PARTITIONS: [
            CreatePartitionsResponse(results=[CreatePartitionsTopicResult("t", MISSING, said)])
        ],
        ApiKey.DELETE_TOPICS: [DeleteTopicsResponse(responses=[DeletableTopicResult("t")])],
        ApiKey.DESCRIBE_CONFIGS: [
            DescribeConfigsResponse(results=[DescribeConfigsResult(MISSING, said, TOPIC, "t")])
        ],
    }
    script[ApiKey.DELETE_TOPICS][0].responses[0].error_code = MISSING
    script[ApiKey.DELETE_TOPICS][0].responses[0].error_message = said
    async with ScriptedBroker(script, topics={}) as broker, broker.client() as client:
        admin = Admin(client)
        for refused in (
            admin.create_partitions("t", 3),
            admin.describe_configs(Resource(TOPIC, "t")),
        ):
            with pytest.raises(KafkaError) as caught:
                await refused
            assert str(caught.value) == f"UNKNOWN_TOPIC_OR_PARTITION: {told}"
        with pytest.raises(KafkaError, match=f"UNKNOWN_TOPIC_OR_PARTITION: {told}"):
            await admin.delete_topic("t")


@pytest.mark.parametrize("versions", [None, (0, 0), (0, 1)])
async def test_resources_of_older_brokers_are_listed_too(versions, monkeypatch) -> None:
    def advertised():
        answer = everything()
        listed = [each for each in answer.api_keys if each.api_key != ApiKey.LIST_CONFIG_RESOURCES]
        if versions is not None:
            listed.append(type(listed[0])(ApiKey.LIST_CONFIG_RESOURCES, *versions))
        answer.api_keys = listed
        return answer

    everything = scripted.everything
    monkeypatch.setattr(scripted, "everything", advertised)
    told = ListConfigResourcesResponse(config_resources=[ConfigResource("m")])
    script = {ApiKey.LIST_CONFIG_RESOURCES: [told]}
    async with ScriptedBroker(script, topics={"t": 1}) as broker, broker.client() as client:
        found = await Admin(client).list_config_resources()
    metrics = [Resource(CLIENT_METRICS, "m")] if versions else []
    rest = [Resource(TOPIC, "t"), Resource(BROKER, "1"), Resource(BROKER_LOGGER, "1")]
    assert found == sorted(metrics if versions == (0, 1) else metrics + rest)


async def test_a_topic_is_described_whose_partition_has_no_leader(capsys) -> None:
    def partly_led(request):
        answer = metadata({"t": 2, "u": 1})(request)
        answer.topics[0].partitions[1].leader_id = -1
        return answer

    def offsets(request):
        (topic,) = request.topics
        partitions = [
            ListOffsetsPartitionResponse(each.partition_index, offset=4)
            for each in topic.partitions
        ]
        return ListOffsetsResponse(topics=[ListOffsetsTopicResponse(topic.name, partitions)])

    def asked(request):
        names = {each.name for each in request.topics} if request.topics is not None else None
        answer = partly_led(request)
        answer.topics = [each for each in answer.topics if names is None or each.name in names]
        return answer

    script = {ApiKey.METADATA: [asked], ApiKey.LIST_OFFSETS: [offsets]}
    async with ScriptedBroker(script, topics={}) as broker, broker.client() as client:
        for names in (["t", "t"], []):
            await topics._describe(client, argparse.Namespace(names=names, json=True))
    named, unnamed = map(json.loads, capsys.readouterr().out.splitlines())
    (described,) = named
    found = [(each["leader"], each["end_offset"]) for each in described["partitions"]]
    assert found == [(1, 4), (None, None)]
    assert [each["name"] for each in unnamed] == ["t", "u"]
