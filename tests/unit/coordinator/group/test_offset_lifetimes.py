"""How long offsets live: beside open transactions, in every kind and state of a classic group."""

import pytest

from kbroker.coordinator.group.classic_group import ClassicGroupState
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.internal_records.group_metadata_key import GroupMetadataKey
from kbroker.protocol.internal_records.group_metadata_value import GroupMetadataValue
from kbroker.protocol.internal_records.offset_commit_key import OffsetCommitKey
from kbroker.protocol.internal_records.offset_commit_value import OffsetCommitValue
from kbroker.protocol.messages.offset_delete_request import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from kbroker.record.batch import CODEC_MASK, RecordBatchHeader
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, now, topic_id

TEN_MINUTES = {"offsets.retention.minutes": "10"}
UNSTABLE = ErrorCode.UNSTABLE_OFFSET_COMMIT


def pend(bench: GroupBench, record_offset: int, producer_id: int, offset: int) -> None:
    """A commit to partition 0 in a transaction that stays open."""
    bench.shard.replay(
        record_offset,
        producer_id,
        OffsetCommitKey(GROUP, "topic", 0),
        OffsetCommitValue(offset=offset),
    )


def end(bench: GroupBench, producer_id: int, *, commit: bool) -> None:
    bench.shard.replay_end_transaction_marker(producer_id, commit=commit)


def delete(bench: GroupBench, *partitions: int) -> ErrorCode:
    """Delete offsets of the topic; the group's error."""
    asked = [OffsetDeleteRequestPartition(partition) for partition in partitions]
    response = now(
        bench.coordinator.requests.delete_offsets(
            OffsetDeleteRequest(GROUP, [OffsetDeleteRequestTopic("topic", asked)])
        )
    )
    return ErrorCode(response.error_code)


class TestOpenTransactions:
    @pytest.mark.parametrize("first", [1, 2])
    def test_of_two_the_later_commit_counts_whichever_ends_first(self, first: int) -> None:
        bench = GroupBench()
        pend(bench, 10, 1, 100)
        pend(bench, 11, 2, 200)
        end(bench, first, commit=True)
        assert bench.fetch_one(0, require_stable=True)[3] is UNSTABLE
        end(bench, 3 - first, commit=True)
        assert bench.fetch_one(0, require_stable=True)[0] == 200

    def test_of_two_an_aborted_one_leaves_the_other(self) -> None:
        bench = GroupBench()
        pend(bench, 10, 1, 100)
        pend(bench, 11, 2, 200)
        end(bench, 2, commit=False)
        assert bench.fetch_one(0)[0] == -1
        end(bench, 1, commit=True)
        assert bench.fetch_one(0, require_stable=True)[0] == 100

    def test_other_partitions_are_stable_meanwhile(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 1, 1: 2}))
        pend(bench, 10, 1, 100)
        assert bench.fetch_one(0, require_stable=True)[3] is UNSTABLE
        assert bench.fetch_one(1, require_stable=True)[0] == 2
        assert bench.fetch_one(0)[0] == 1
        assert bench.committed(require_stable=True) == {("topic", 0): -1, ("topic", 1): 2}

    def test_what_was_deleted_does_not_come_back_with_the_marker(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 1}))
        pend(bench, 10, 1, 100)
        assert delete(bench, 0, 7) is NONE
        assert bench.fetch_one(0, require_stable=True)[0] == -1
        end(bench, 1, commit=True)
        assert bench.committed() == {}

    def test_a_group_of_nothing_else_stays_until_they_end(self) -> None:
        bench = GroupBench(TEN_MINUTES)
        pend(bench, 10, 1, 100)
        bench.advance(3_600)
        assert set(bench.shard.groups) == {GROUP}
        end(bench, 1, commit=False)
        bench.advance(600)
        assert bench.shard.groups == {}

    def test_deleting_the_group_takes_them_along(self) -> None:
        bench = GroupBench()
        now(bench.commit({1: 1}))
        pend(bench, 10, 1, 100)
        now(bench.coordinator.requests.delete_groups([GROUP]))
        end(bench, 1, commit=True)
        assert bench.committed() == {}
        assert bench.shard.groups == {}

    def test_a_marker_of_somebody_without_offsets_is_nothing(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 1}))
        end(bench, 77, commit=True)
        end(bench, 77, commit=False)
        assert bench.committed() == {("topic", 0): 1}


class TestExpiry:
    def test_of_members_that_are_no_consumers_nothing_expires(self) -> None:
        bench = GroupBench(TEN_MINUTES)
        (member_id,) = bench.stable_group(session_ms=1_800_000, protocol_type="connect")
        assert bench.commit_error(member_id=member_id, generation_id=1) is NONE
        bench.advance(1_750)
        assert bench.committed() == {("topic", 0): 1}
        assert delete(bench, 0) is ErrorCode.NON_EMPTY_GROUP

    def test_during_a_rebalance_nothing_expires(self) -> None:
        bench = GroupBench(TEN_MINUTES)
        options = {"session_ms": 1_800_000, "rebalance_ms": 1_800_000}
        (member_id,) = bench.stable_group(**options)
        bench.commit_error(topic="other", member_id=member_id, generation_id=1)
        bench.join_new(**options)
        bench.advance(290)
        bench.join_new(**options)
        bench.advance(290)
        bench.join_new(**options)
        bench.advance(290)
        assert bench.group().state is ClassicGroupState.PREPARING_REBALANCE
        assert bench.committed() == {("other", 0): 1}

    @pytest.mark.parametrize(("since_ms", "left"), [(-1, False), (0, True)])
    def test_an_empty_group_of_an_old_release_does_not_say_since_when(
        self, since_ms: int, left: bool
    ) -> None:
        """Then the time of the commit counts."""
        bench = GroupBench(TEN_MINUTES)
        now(bench.commit({0: 1}))
        bench.advance(590)
        key = GroupMetadataKey(group=GROUP)
        since = -1 if since_ms < 0 else bench.clock.time_ms()
        value = GroupMetadataValue(
            protocol_type="consumer", generation=3, current_state_timestamp=since, members=[]
        )
        bench.shard.replay(5, -1, key, value)
        bench.advance(20)
        assert (GROUP in bench.shard.groups) is left

    def test_an_empty_group_without_offsets_goes(self) -> None:
        bench = GroupBench(TEN_MINUTES)
        (member_id,) = bench.stable_group()
        bench.leave((member_id, None))
        bench.advance(590)
        assert set(bench.shard.groups) == {GROUP}
        bench.advance(20)
        assert bench.shard.groups == {}

    def test_a_group_with_members_stays_without_offsets(self) -> None:
        bench = GroupBench(TEN_MINUTES)
        bench.stable_group(session_ms=1_800_000)
        bench.advance(1_750)
        assert set(bench.shard.groups) == {GROUP}

    def test_a_group_somebody_was_told_to_come_back_to_stays(self) -> None:
        bench = GroupBench(TEN_MINUTES)
        bench.advance(595)
        pending = now(bench.join()).member_id
        bench.advance(8)
        answer = bench.join(pending)
        bench.settle()
        assert now(answer).error_code == NONE


class TestSimpleGroups:
    def test_an_instance_id_means_nothing_to_it(self) -> None:
        bench = GroupBench()
        assert bench.commit_error(instance_id="static") is NONE
        assert bench.commit_error(instance_id="static", member_id="m") is NONE
        assert bench.group().is_simple

    def test_members_take_it_over_with_its_offsets(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 5}))
        (member_id,) = bench.stable_group()
        assert bench.committed() == {("topic", 0): 5}
        assert bench.commit_error() is ErrorCode.UNKNOWN_MEMBER_ID
        assert bench.commit_error(instance_id="x") is ErrorCode.UNKNOWN_MEMBER_ID
        bench.leave((member_id, None))
        assert bench.commit_error() is NONE


class TestTheOffsetsTopic:
    @pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
    def test_its_records_are_compressed_as_the_setting_says(self, codec: int) -> None:
        bench = GroupBench({"offsets.topic.compression.codec": str(codec)})
        now(bench.commit({n: n for n in range(50)}))
        (batch,) = bench.log.batches[0]
        assert RecordBatchHeader(batch).attributes & CODEC_MASK == codec
        assert bench.load().committed() == bench.committed()

    def test_when_it_is_made_anew_nothing_is_left(self) -> None:
        bench = GroupBench()
        bench.set_topics(topic=1, __consumer_offsets=1)
        (member_id,) = bench.stable_group()
        assert bench.commit_error(member_id=member_id, generation_id=1) is NONE
        bench.set_topics(topic=1)
        assert bench.heartbeat(member_id, 1) is ErrorCode.NOT_COORDINATOR
        bench.log.batches.clear()
        bench.log.ends.clear()
        bench.log.high_watermarks.clear()
        bench.set_topics(topic=1, __consumer_offsets=1)
        assert bench.heartbeat(member_id, 1) is ErrorCode.UNKNOWN_MEMBER_ID
        assert bench.committed() == {}
        bench.stable_group()

    def test_what_cannot_be_deleted_with_its_topic_stays(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench = GroupBench()
        bench.set_topics(topic=1)
        now(bench.commit({0: 1}, topic_id=topic_id("topic")))
        bench.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
        bench.set_topics()
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert bench.committed() == {("topic", 0): 1}
