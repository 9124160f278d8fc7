"""Where ``kbroker consume`` begins, and how it writes records."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from kbroker.cli import consume
from kbroker.cli.cluster import UsageError
from kbroker.cli.record_output import RecordOutput
from kbroker.client.reader import EARLIEST
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.list_offsets_response import (
    ListOffsetsPartitionResponse,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from tests.unit.client.scripted import ScriptedBroker, metadata

pytestmark = pytest.mark.anyio
FIRSTS = {0: 5, 1: 0, 2: 0}
ENDS = {0: 10, 1: 3, 2: 0}


@pytest.fixture
def anyio_backend() -> tuple[str, dict]:
    """Nothing is waited for."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def offsets(request):
    (topic,) = request.topics
    partitions = [
        ListOffsetsPartitionResponse(
            each.partition_index,
            offset=(FIRSTS if each.timestamp == EARLIEST else ENDS).get(each.partition_index, 0),
        )
        for each in topic.partitions
    ]
    return ListOffsetsResponse(topics=[ListOffsetsTopicResponse(topic.name, partitions)])


async def starts(start: str, ends: dict[int, int] = ENDS) -> dict[int, int]:
    script = {ApiKey.LIST_OFFSETS: [offsets]}
    async with ScriptedBroker(script, topics={"t": 3}) as broker, broker.client() as client:
        return await consume._starts(client, "t", start, ends)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("beginning", {0: 5, 1: 0, 2: 0}),
        ("end", {0: 10, 1: 3, 2: 0}),
        ("7", {0: 7, 1: 3, 2: 0}),
        ("2", {0: 5, 1: 2, 2: 0}),
        ("-2", {0: 8, 1: 1, 2: 0}),
        ("-100", {0: 5, 1: 0, 2: 0}),
    ],
)
async def test_an_offset_that_a_partition_has_not_got_is_the_nearest(start: str, expected) -> None:
    assert await starts(start) == expected


@pytest.mark.parametrize("start", ["11", "99999999999999999999"])
async def test_an_offset_that_no_partition_has_is_refused(start: str) -> None:
    with pytest.raises(KafkaError, match=f"no offset {start}, only partition 0: 5 to 10, 1: 0 to"):
        await starts(start)
    with pytest.raises(KafkaError, match="no offset 4, only partition 0: 5 to 10"):
        await starts("4", {0: 10})


@pytest.mark.parametrize("start", ["", "noon", "--5", "-", "+5"])
async def test_what_is_no_place_to_begin(start: str) -> None:
    with pytest.raises(UsageError, match="expected beginning, end, an offset"):
        await starts(start)


async def test_partitions_that_a_topic_gets_are_read_from_their_beginning() -> None:
    script = {
        ApiKey.METADATA: [metadata({"t": 1}), metadata({"t": 3})],
        ApiKey.LIST_OFFSETS: [offsets],
    }
    async with ScriptedBroker(script, topics={}) as broker, broker.client() as client:
        known = dict.fromkeys(await client.leaders("t"), 7)
        assert known == {0: 7}
        assert await consume._new_partitions(client, "t", known) == {1: 0, 2: 0}
        assert await consume._new_partitions(client, "t", {0: 7, 1: 0, 2: 0}) == {}


def test_numbers_of_a_template_are_formatted_as_numbers() -> None:
    def output(template: str) -> RecordOutput:
        return RecordOutput("t", template=template, as_json=False, file=None, count=None)

    assert output("{offset:06d} {value:>10}")
    for wrong in ("{value:d}", "{offset.x}", "{", "{0}"):
        with pytest.raises(UsageError, match="the fields are topic, partition"):
            output(wrong)
