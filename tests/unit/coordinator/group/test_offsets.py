"""OffsetCommit, OffsetFetch, OffsetDelete, DeleteGroups and the expiry of offsets."""

import pytest

from kbroker.coordinator.group.classic_group import ClassicGroupState
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.internal_records.offset_commit_key import OffsetCommitKey
from kbroker.protocol.internal_records.offset_commit_value import OffsetCommitValue
from kbroker.protocol.messages.offset_delete_request import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from kbroker.protocol.messages.offset_delete_response import OffsetDeleteResponse
from kbroker.protocol.wire import ZERO_UUID
from tests.unit.coordinator.group.bench import (
    GROUP,
    NONE,
    TOPIC_ID,
    GroupBench,
    now,
    subscription,
    waits,
)

WEEK_S = 7 * 24 * 3600.0


def delete_offsets(
    bench: GroupBench, *indexes: int, topic: str = "topic", group: str = GROUP
) -> OffsetDeleteResponse:
    partitions = [OffsetDeleteRequestPartition(index) for index in indexes]
    request = OffsetDeleteRequest(group, [OffsetDeleteRequestTopic(topic, partitions)])
    return now(bench.coordinator.requests.delete_offsets(request))


class TestCommit:
    def test_without_a_generation_it_makes_a_simple_group(self) -> None:
        bench = GroupBench()
        assert bench.commit_error() is NONE
        assert bench.group().is_simple
        assert bench.committed() == {("topic", 0): 1}

    def test_also_with_a_member_id(self) -> None:
        assert GroupBench().commit_error(member_id="whoever") is NONE

    def test_also_for_the_empty_group_id(self) -> None:
        bench = GroupBench()
        assert bench.commit_error(group_id="") is NONE
        assert bench.committed("") == {("topic", 0): 1}

    @pytest.mark.parametrize("offset", [-1, -5, 0, (1 << 63) - 1])
    def test_any_offset_is_accepted(self, offset: int) -> None:
        bench = GroupBench()
        now(bench.commit({0: offset}))
        assert bench.committed() == {("topic", 0): offset}

    @pytest.mark.parametrize(
        ("version", "error"),
        [(8, ErrorCode.ILLEGAL_GENERATION), (9, ErrorCode.GROUP_ID_NOT_FOUND)],
    )
    def test_with_a_generation_the_group_must_be_there(
        self, version: int, error: ErrorCode
    ) -> None:
        assert GroupBench().commit_error(generation_id=1, version=version) is error

    def test_of_a_member(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group()
        assert bench.commit_error(member_id=member_id, generation_id=1) is NONE
        illegal = ErrorCode.ILLEGAL_GENERATION
        assert bench.commit_error(member_id=member_id, generation_id=2) is illegal
        assert bench.commit_error(member_id=member_id) is illegal
        unknown = ErrorCode.UNKNOWN_MEMBER_ID
        assert bench.commit_error(member_id="x", generation_id=1) is unknown
        assert bench.commit_error() is unknown

    def test_while_members_join_it_is_accepted(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group()
        bench.join_new()
        assert bench.commit_error(member_id=member_id, generation_id=1) is NONE

    def test_while_the_leader_assigns_it_is_a_rebalance(self) -> None:
        bench = GroupBench()
        member_id, answer = bench.join_new()
        bench.settle()
        now(answer)
        error = bench.commit_error(member_id=member_id, generation_id=1)
        assert error is ErrorCode.REBALANCE_IN_PROGRESS

    def test_it_keeps_the_session(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group(session_ms=6_000)
        for _ in range(4):
            bench.advance(5)
            assert bench.commit_error(member_id=member_id, generation_id=1) is NONE

    def test_metadata_is_limited_in_utf_16_units(self) -> None:
        bench = GroupBench({"offset.metadata.max.bytes": "4"})
        too_large = ErrorCode.OFFSET_METADATA_TOO_LARGE
        assert bench.commit_error(metadata="xxxx") is NONE
        assert bench.commit_error(metadata="xxxxx") is too_large
        assert bench.commit_error(metadata="😀😀") is NONE
        assert bench.commit_error(metadata="😀😀x") is too_large
        assert bench.commit_error(metadata="äääö") is NONE

    def test_what_is_too_large_does_not_hinder_the_rest(self) -> None:
        bench = GroupBench()
        now(bench.commit({1: 5}))
        assert bench.commit_error(metadata="x" * 4097) is ErrorCode.OFFSET_METADATA_TOO_LARGE
        assert bench.committed() == {("topic", 1): 5}

    def test_epoch_and_metadata_come_back(self) -> None:
        bench = GroupBench()
        now(bench.commit({3: 9}, leader_epoch=4, metadata="note"))
        assert bench.fetch_one(3) == (9, 4, "note", NONE)
        now(bench.commit({3: 10}, leader_epoch=-1, metadata=None))
        assert bench.fetch_one(3) == (10, -1, "", NONE)

    def test_the_records_are_kafka_s(self) -> None:
        bench = GroupBench()
        now(bench.commit({3: 9}, leader_epoch=4, metadata="m"))
        (record,) = bench.log.records(0)
        assert record.key == b"\0\1\0\5group\0\5topic\0\0\0\3"
        assert record.value is not None
        assert record.value[:2] == b"\0\4"
        key, value = bench.written()[0]
        assert key == OffsetCommitKey(GROUP, "topic", 3)
        assert value == OffsetCommitValue(
            offset=9,
            leader_epoch=4,
            metadata="m",
            commit_timestamp=bench.clock.time_ms(),
            topic_id=TOPIC_ID,
        )

    def test_a_retention_time_of_its_own_is_written_in_version_1(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 9}, retention_ms=5_000))
        (record,) = bench.log.records(0)
        assert record.value is not None
        assert record.value[:2] == b"\0\1"
        assert bench.written()[0][1].expire_timestamp == bench.clock.time_ms() + 5_000

    def test_a_failed_write_changes_nothing(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 1}))
        bench.log.fail(KafkaError(ErrorCode.KAFKA_STORAGE_ERROR))
        response = now(bench.commit({0: 2}))
        assert response.topics[0].partitions[0].error_code == ErrorCode.NOT_COORDINATOR
        bench.log.failure = None
        assert bench.committed() == {("topic", 0): 1}

    def test_more_than_a_batch_holds_is_refused_whole(self) -> None:
        bench = GroupBench()
        bench.log.size_limit = 500
        response = now(bench.commit(dict.fromkeys(range(50), 1)))
        errors = {p.error_code for p in response.topics[0].partitions}
        assert errors == {ErrorCode.UNKNOWN_SERVER_ERROR}
        assert bench.log.records(0) == []

    def test_it_waits_for_the_high_watermark_and_so_do_readers(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 1}))
        bench.log.replicated = False
        commit = bench.commit({0: 2})
        assert waits(commit)
        reader = bench.coordinator.requests.describe_groups([GROUP], 5)
        assert waits(reader)
        bench.log.commit("", 0)
        assert now(commit).topics[0].partitions[0].error_code == NONE
        assert bench.committed() == {("topic", 0): 2}

    def test_what_is_not_replicated_in_time_is_not_available(self) -> None:
        bench = GroupBench()
        bench.log.replicated = False
        commit = bench.commit({0: 2})
        bench.advance(5.1)
        error = now(commit).topics[0].partitions[0].error_code
        assert error == ErrorCode.COORDINATOR_NOT_AVAILABLE


class TestFetch:
    def test_what_is_not_there_is_no_error(self) -> None:
        bench = GroupBench()
        assert bench.fetch_one(0) == (-1, -1, "", NONE)
        assert bench.committed() == {}
        now(bench.commit({0: 1}))
        assert bench.fetch_one(1) == (-1, -1, "", NONE)
        assert bench.fetch_one(0, topic="other") == (-1, -1, "", NONE)

    def test_an_offset_of_an_earlier_topic_of_the_name_is_not_shown(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 7}))
        assert bench.fetch_one(0, topic_id=TOPIC_ID)[0] == 7
        assert bench.fetch_one(0, topic_id=bytes(15) + b"x")[0] == -1
        assert bench.fetch_one(0, topic_id=ZERO_UUID)[0] == 7

    def test_offsets_of_open_transactions_are_unstable(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 1, 1: 1}))
        key = OffsetCommitKey(GROUP, "topic", 0)
        bench.shard.replay(9, 77, key, OffsetCommitValue(offset=5))
        unstable = ErrorCode.UNSTABLE_OFFSET_COMMIT
        assert bench.fetch_one(0, require_stable=True) == (-1, -1, "", unstable)
        assert bench.fetch_one(1, require_stable=True)[0] == 1
        assert bench.fetch_one(0)[0] == 1
        bench.shard.replay_end_transaction_marker(77, commit=True)
        assert bench.fetch_one(0, require_stable=True)[0] == 5

    def test_an_aborted_transaction_changes_nothing(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 1}))
        key = OffsetCommitKey(GROUP, "topic", 0)
        bench.shard.replay(9, 77, key, OffsetCommitValue(offset=5))
        bench.shard.replay_end_transaction_marker(77, commit=False)
        assert bench.fetch_one(0, require_stable=True)[0] == 1

    def test_the_later_record_counts_when_a_transaction_commits(self) -> None:
        bench = GroupBench()
        key = OffsetCommitKey(GROUP, "topic", 0)
        bench.shard.replay(3, 77, key, OffsetCommitValue(offset=5))
        bench.shard.replay(4, -1, key, OffsetCommitValue(offset=6))
        bench.shard.replay_end_transaction_marker(77, commit=True)
        assert bench.fetch_one(0)[0] == 6


class TestDelete:
    def test_offsets_of_an_empty_group(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 1, 1: 2}))
        response = delete_offsets(bench, 0, 9)
        assert response.error_code == NONE
        assert [p.error_code for p in response.topics[0].partitions] == [NONE, NONE]
        assert bench.committed() == {("topic", 1): 2}
        assert bench.written()[-1] == (OffsetCommitKey(GROUP, "topic", 0), None)

    def test_group_errors(self) -> None:
        bench = GroupBench()
        assert delete_offsets(bench, 0).error_code == ErrorCode.GROUP_ID_NOT_FOUND
        assert delete_offsets(bench, 0, group="").error_code == ErrorCode.INVALID_GROUP_ID
        bench.stable_group(protocol_type="connect")
        assert delete_offsets(bench, 0).error_code == ErrorCode.NON_EMPTY_GROUP

    def test_topics_that_members_subscribe_to_are_kept(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group()
        for topic in ("topic", "other"):
            error = bench.commit_error(topic=topic, member_id=member_id, generation_id=1)
            assert error is NONE
        subscribed = delete_offsets(bench, 0).topics[0].partitions[0]
        assert subscribed.error_code == ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
        assert delete_offsets(bench, 0, topic="other").topics[0].partitions[0].error_code == NONE
        assert bench.committed() == {("topic", 0): 1}

    def test_pending_offsets_of_transactions_go_too(self) -> None:
        bench = GroupBench()
        key = OffsetCommitKey(GROUP, "topic", 0)
        bench.shard.replay(1, 77, key, OffsetCommitValue(offset=5))
        delete_offsets(bench, 0)
        bench.shard.replay_end_transaction_marker(77, commit=True)
        assert bench.committed() == {}

    def test_groups_go_with_their_offsets(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 1, 1: 2}))
        response = now(bench.coordinator.requests.delete_groups([GROUP, "nobody"]))
        assert {(r.group_id, r.error_code) for r in response.results} == {
            (GROUP, NONE),
            ("nobody", ErrorCode.GROUP_ID_NOT_FOUND),
        }
        assert bench.shard.groups == {}
        assert bench.shard.offsets.store.committed.count == 0
        assert bench.load().shard.groups == {}

    def test_groups_with_members_stay(self) -> None:
        bench = GroupBench()
        bench.stable_group()
        response = now(bench.coordinator.requests.delete_groups([GROUP]))
        assert response.results[0].error_code == ErrorCode.NON_EMPTY_GROUP

    def test_a_group_of_many_offsets_goes_in_several_batches(self) -> None:
        bench = GroupBench()
        for first in range(0, 400, 10):
            now(bench.commit(dict.fromkeys(range(first, first + 10), 1)))
        bench.log.size_limit = 1_000
        before = len(bench.log.batches[0])
        response = now(bench.coordinator.requests.delete_groups([GROUP]))
        assert response.results[0].error_code == NONE
        assert len(bench.log.batches[0]) > before + 5
        assert bench.shard.groups == {}

    def test_offsets_of_deleted_topics_go(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 1}))
        now(bench.commit({0: 1}, topic="other"))
        now(bench.commit({0: 1}, topic="legacy", topic_id=ZERO_UUID))
        newer = bytes(15) + b"n"
        bench.coordinator.on_topics_deleted([("topic", newer), ("other", TOPIC_ID)])
        assert set(bench.committed()) == {("topic", 0), ("legacy", 0)}
        bench.coordinator.on_topics_deleted([("topic", TOPIC_ID), ("legacy", newer)])
        assert bench.committed() == {}


class TestExpiry:
    def test_of_a_simple_group_since_the_commit(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 1}))
        bench.advance(WEEK_S - 1200)
        now(bench.commit({1: 1}))
        bench.advance(2400)
        assert set(bench.committed()) == {("topic", 1)}
        bench.advance(WEEK_S)
        assert bench.shard.groups == {}

    def test_of_an_empty_group_since_it_is_empty(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group(session_ms=1_800_000)
        assert bench.commit_error(member_id=member_id, generation_id=1) is NONE
        for _ in range(24 * 8):
            bench.advance(3600)
            if bench.group().state is ClassicGroupState.EMPTY:
                break
            bench.heartbeat(member_id, 1)
        assert bench.group().state is ClassicGroupState.EMPTY
        bench.advance(WEEK_S - 3600)
        assert set(bench.committed()) == {("topic", 0)}
        bench.advance(2 * 3600)
        assert bench.shard.groups == {}

    def test_topics_of_live_consumers_do_not_expire_others_do(self) -> None:
        bench = GroupBench({"offsets.retention.minutes": "10"})
        (member_id,) = bench.stable_group(session_ms=1_800_000)
        for topic in ("topic", "other"):
            bench.commit_error(topic=topic, member_id=member_id, generation_id=1)
        for _ in range(3):
            bench.advance(600)
            assert bench.heartbeat(member_id, 1) is NONE
        assert set(bench.committed()) == {("topic", 0)}

    def test_nothing_expires_in_a_group_whose_subscription_is_unreadable(self) -> None:
        bench = GroupBench({"offsets.retention.minutes": "10"})
        (member_id,) = bench.stable_group(session_ms=1_800_000, protocols={"range": b"?"})
        bench.commit_error(member_id=member_id, generation_id=1)
        bench.advance(1_750)
        assert set(bench.committed()) == {("topic", 0)}

    def test_a_retention_time_of_its_own_counts(self) -> None:
        bench = GroupBench()
        now(bench.commit({0: 1}, retention_ms=60_000))
        now(bench.commit({1: 1}, retention_ms=7_200_000))
        bench.advance(1_300)
        assert set(bench.committed()) == {("topic", 1)}

    def test_open_transactions_hold_it_up(self) -> None:
        bench = GroupBench({"offsets.retention.minutes": "10"})
        now(bench.commit({0: 1}))
        bench.shard.replay(9, 7, OffsetCommitKey(GROUP, "topic", 0), OffsetCommitValue(offset=5))
        bench.advance(3_600)
        assert set(bench.committed()) == {("topic", 0)}

    def test_many_groups_are_looked_through_in_turns(self) -> None:
        bench = GroupBench({"offsets.retention.minutes": "10"})
        for number in range(1_000):
            now(bench.commit({0: 1}, group_id=f"g{number}"))
        bench.advance(599)
        assert len(bench.shard.groups) == 1_000
        bench.advance(2)
        assert bench.shard.groups == {}

    def test_the_tombstones_are_written(self) -> None:
        bench = GroupBench({"offsets.retention.minutes": "10"})
        now(bench.commit({0: 1}))
        bench.advance(1_300)
        assert [value for _, value in bench.written()[-2:]] == [None, None]
        assert bench.load().shard.groups == {}


class TestListAndDescribe:
    def test_describe_a_stable_group(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group(client_id="me")
        (group,) = now(bench.coordinator.requests.describe_groups([GROUP], 5))
        assert (group.group_state, group.protocol_type, group.protocol_data) == (
            "Stable",
            "consumer",
            "range",
        )
        (member,) = group.members
        assert (member.member_id, member.client_id, member.client_host) == (
            member_id,
            "me",
            "/127.0.0.1",
        )
        assert member.member_metadata == subscription("topic")
        assert member.member_assignment == b"for " + member_id.encode()

    def test_while_rebalancing_there_is_no_metadata(self) -> None:
        bench = GroupBench()
        bench.stable_group()
        bench.join_new()
        (group,) = now(bench.coordinator.requests.describe_groups([GROUP], 5))
        assert (group.group_state, group.protocol_data) == ("PreparingRebalance", "")
        assert {member.member_metadata for member in group.members} == {b""}

    @pytest.mark.parametrize(("version", "error"), [(5, 0), (6, ErrorCode.GROUP_ID_NOT_FOUND)])
    def test_what_is_not_there_is_dead(self, version: int, error: int) -> None:
        (group,) = now(GroupBench().coordinator.requests.describe_groups(["x"], version))
        assert (group.group_id, group.group_state, group.error_code) == ("x", "Dead", error)
