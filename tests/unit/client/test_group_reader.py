"""A reader in a group: where it begins, what a rebalance does to it, and how it ends."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from trio.testing import MockClock

from kbroker.client.group_offsets import MemberIdentity
from kbroker.client.group_reader import GroupReader
from kbroker.client.reader import EARLIEST, LATEST
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.fetch_response import (
    FetchableTopicResponse,
    FetchResponse,
    PartitionData,
)
from kbroker.protocol.messages.find_coordinator_response import (
    Coordinator,
    FindCoordinatorResponse,
)
from kbroker.protocol.messages.list_offsets_response import (
    ListOffsetsPartitionResponse,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from kbroker.protocol.messages.offset_commit_response import (
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from kbroker.protocol.messages.offset_fetch_response import (
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
)
from kbroker.record.batch import build_batch
from kbroker.record.record import Record
from tests.unit.client.scripted import NODE, ScriptedBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kbroker.client.consumer_protocol import Assignment

pytestmark = pytest.mark.anyio
FIRST_OFFSET, END_OFFSET = 2, 5
"""Of every partition; its records are ``partition:offset``."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict]:
    """Heartbeats come at once when nobody has anything else to do."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


class Member:
    """A membership whose coordinator decides what the test says."""

    heartbeat_interval_s = 3.0

    def __init__(self, *assignments: list[int], beats: tuple[Any, ...] = ()) -> None:
        self.joins = 0
        self.has_left = False
        self._assignments = list(assignments)
        self._beats = list(beats)

    @property
    def identity(self) -> MemberIdentity:
        return MemberIdentity("me", self.joins)

    async def join(self) -> Assignment:
        self.joins += 1
        partitions = self._assignments.pop(0) if self._assignments else []
        return {"t": partitions} if partitions else {}

    async def heartbeat(self) -> bool:
        beat = self._beats.pop(0) if self._beats else True
        if isinstance(beat, Exception):
            raise beat
        return bool(beat)

    async def leave(self) -> None:
        self.has_left = True


class Cluster:
    """Three partitions and what a group has committed."""

    def __init__(self, committed: dict[int, int] | None = None) -> None:
        self.committed = dict(committed or {})
        self.refusals: list[ErrorCode] = []
        found = FindCoordinatorResponse(coordinators=[Coordinator("g", NODE, "scripted", 1)])
        self.broker = ScriptedBroker(
            {
                ApiKey.FIND_COORDINATOR: [found],
                ApiKey.OFFSET_FETCH: [self._fetch_offsets],
                ApiKey.OFFSET_COMMIT: [self._commit],
                ApiKey.LIST_OFFSETS: [self._list],
                ApiKey.FETCH: [self._fetch],
            },
            topics={"t": 3},
        )

    def _fetch_offsets(self, request: Any) -> OffsetFetchResponse:
        (group,) = request.groups
        topics = [
            OffsetFetchResponseTopics(
                topic.name,
                partitions=[
                    OffsetFetchResponsePartitions(index, self.committed.get(index, -1))
                    for index in topic.partition_indexes
                ],
            )
            for topic in group.topics
        ]
        return OffsetFetchResponse(groups=[OffsetFetchResponseGroup("g", topics)])

    def _commit(self, request: Any) -> OffsetCommitResponse:
        error = self.refusals.pop(0) if self.refusals else ErrorCode.NONE
        results = []
        for each in request.topics[0].partitions:
            if not error:
                self.committed[each.partition_index] = each.committed_offset
            results.append(OffsetCommitResponsePartition(each.partition_index, error))
        return OffsetCommitResponse(topics=[OffsetCommitResponseTopic("t", partitions=results)])

    def _list(self, request: Any) -> ListOffsetsResponse:
        results = [
            ListOffsetsPartitionResponse(
                each.partition_index,
                offset=FIRST_OFFSET if each.timestamp == EARLIEST else END_OFFSET,
            )
            for each in request.topics[0].partitions
        ]
        return ListOffsetsResponse(topics=[ListOffsetsTopicResponse("t", results)])

    def _fetch(self, request: Any) -> FetchResponse:
        partitions = [self._read(each) for each in request.topics[0].partitions]
        return FetchResponse(responses=[FetchableTopicResponse("t", partitions=partitions)])

    def _read(self, asked: Any) -> PartitionData:
        offset = asked.fetch_offset
        if not FIRST_OFFSET <= offset <= END_OFFSET:
            return PartitionData(asked.partition, ErrorCode.OFFSET_OUT_OF_RANGE)
        if offset == END_OFFSET:
            return PartitionData(asked.partition, records=b"")
        values = [b"%d:%d" % (asked.partition, each) for each in range(offset, END_OFFSET)]
        records = [Record(value=value, timestamp=1) for value in values]
        batch = build_batch(records, base_offset=offset)
        return PartitionData(asked.partition, records=bytes(batch))


@asynccontextmanager
async def reading(
    cluster: Cluster, member: Member, *, start: int = EARLIEST
) -> AsyncIterator[GroupReader]:
    """A member that leaves at the end."""
    async with (
        cluster.broker as broker,
        broker.client() as client,
        GroupReader(client, "g", "t", member, start=start) as reader,
    ):
        yield reader


async def poll(reader: GroupReader) -> list[str]:
    return [(each.record.value or b"").decode() for each in await reader.poll()]


async def test_it_goes_on_where_the_group_was_and_else_where_it_is_told():
    for start, expected in ((EARLIEST, ["0:4", "1:2", "1:3", "1:4"]), (LATEST, ["0:4"])):
        cluster, member = Cluster({0: 4}), Member([0, 1])
        async with reading(cluster, member, start=start) as reader:
            assert sorted(await poll(reader)) == expected
            assert await reader.commit()
        assert cluster.committed == {0: 5, 1: 5}
        (commit,) = cluster.broker.requests(ApiKey.OFFSET_COMMIT)
        assert (commit.member_id, commit.generation_id_or_member_epoch) == ("me", 1)
        assert member.has_left


async def test_partitions_move_after_a_heartbeat_that_says_so():
    cluster, member = Cluster(), Member([0, 1], [1, 2], beats=(True, False))
    async with reading(cluster, member) as reader:
        await poll(reader)
        await reader.commit({0: 3, 1: 4})
        await anyio.sleep(2 * member.heartbeat_interval_s + 1)
        assert sorted(await poll(reader)) == ["1:4", "2:2", "2:3", "2:4"]
        assert dict(reader.positions) == {1: 5, 2: 5}
        assert member.joins == 2


@pytest.mark.parametrize(
    "error",
    [ErrorCode.ILLEGAL_GENERATION, ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.REBALANCE_IN_PROGRESS],
)
async def test_a_commit_that_comes_too_late_is_told_and_the_records_come_again(error: ErrorCode):
    cluster, member = Cluster(), Member([0], [0])
    cluster.refusals = [error]
    async with reading(cluster, member) as reader:
        first = await poll(reader)
        assert not await reader.commit()
        assert await poll(reader) == first
        assert await reader.commit()
        assert member.joins == 2
    assert cluster.committed == {0: 5}


async def test_a_commit_that_is_refused_for_good_is_raised():
    cluster, member = Cluster(), Member([0])
    cluster.refusals = [ErrorCode.OFFSET_METADATA_TOO_LARGE]
    async with reading(cluster, member) as reader:
        await poll(reader)
        with pytest.raises(KafkaError, match="OFFSET_METADATA_TOO_LARGE: group g, t-0"):
            await reader.commit()


async def test_without_partitions_it_waits_for_some():
    cluster, member = Cluster(), Member([], [2], beats=(False,))
    async with reading(cluster, member) as reader:
        began = anyio.current_time()
        assert await poll(reader) == []
        assert anyio.current_time() - began == 0.5
        while not reader.positions:
            found = await poll(reader)
        assert found == ["2:2", "2:3", "2:4"]
    assert not [key for key, _ in cluster.broker.asked if key == ApiKey.OFFSET_FETCH][1:]


async def test_an_offset_whose_records_are_gone():
    for start, position in ((EARLIEST, FIRST_OFFSET), (LATEST, END_OFFSET)):
        cluster, member = Cluster({0: 0}), Member([0])
        async with reading(cluster, member, start=start) as reader:
            assert await poll(reader) == []
            assert dict(reader.positions) == {0: position}


async def test_what_a_heartbeat_meets_is_raised_by_the_next_poll():
    fenced = KafkaError(ErrorCode.FENCED_INSTANCE_ID)
    cluster, member = Cluster(), Member([0], beats=(fenced,))
    async with reading(cluster, member) as reader:
        await poll(reader)
        await anyio.sleep(member.heartbeat_interval_s + 1)
        with pytest.raises(KafkaError, match="FENCED_INSTANCE_ID"):
            await poll(reader)


async def test_it_leaves_when_it_is_cancelled():
    cluster, member = Cluster(), Member([0])
    with anyio.move_on_after(1) as scope:
        async with reading(cluster, member) as reader:
            await poll(reader)
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert member.has_left
