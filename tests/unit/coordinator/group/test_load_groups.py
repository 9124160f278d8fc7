"""Groups and offsets after a restart or a fail-over."""

import logging

import pytest

from kbroker.coordinator.group.classic_group import ClassicGroupState
from kbroker.coordinator.group.offset_and_metadata import OffsetAndMetadata
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.internal_records.legacy_offset_commit_key import LegacyOffsetCommitKey
from kbroker.protocol.internal_records.legacy_offset_commit_value import LegacyOffsetCommitValue
from kbroker.record.batch import build_batch
from kbroker.record.record import Record
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, now, waits


def test_members_go_on_as_if_nothing_had_happened() -> None:
    bench = GroupBench({"group.initial.rebalance.delay.ms": "1000"})
    members = bench.stable_group(2)
    assert bench.commit_error(member_id=members[0], generation_id=1) is NONE
    other = bench.load()
    assert other.group().state is ClassicGroupState.STABLE
    assert other.group().leader_id == members[0]
    assert other.group().subscribed_topics == {"topic"}
    for member_id in members:
        assert other.heartbeat(member_id, 1) is NONE
        assert now(other.sync(member_id, 1)).assignment == b"for " + member_id.encode()
    assert other.committed() == {("topic", 0): 1}
    assert other.commit_error(member_id=members[1], generation_id=1) is NONE


def test_sessions_are_timed_again() -> None:
    bench = GroupBench()
    bench.stable_group(session_ms=6_000)
    other = bench.load()
    other.advance(6.1)
    assert other.group().state is ClassicGroupState.EMPTY
    assert other.group().generation_id == 2


def test_a_rebalance_that_was_under_way_is_the_generation_before_it() -> None:
    bench = GroupBench()
    (member_id,) = bench.stable_group()
    bench.join_new()
    other = bench.load()
    assert other.group().state is ClassicGroupState.STABLE
    assert other.heartbeat(member_id, 1) is NONE
    assert waits(other.join_new()[1])


def test_the_generation_of_an_emptied_group_goes_on() -> None:
    bench = GroupBench()
    (member_id,) = bench.stable_group()
    bench.leave((member_id, None))
    other = bench.load()
    assert other.group().state is ClassicGroupState.EMPTY
    assert other.group().generation_id == 2
    _, answer = other.join_new()
    other.settle()
    assert now(answer).generation_id == 3


def test_simple_groups_are_there_by_their_offsets() -> None:
    bench = GroupBench()
    now(bench.commit({0: 5}))
    other = bench.load()
    assert other.group().is_simple
    assert other.committed() == {("topic", 0): 5}


def test_deleted_ones_are_not() -> None:
    bench = GroupBench()
    now(bench.commit({0: 5}))
    now(bench.coordinator.requests.delete_groups([GROUP]))
    assert bench.load().shard.groups == {}


def test_offsets_committed_often_are_the_last_ones() -> None:
    bench = GroupBench()
    for offset in range(200):
        now(bench.commit({0: offset, 1: 1_000 - offset}))
    other = bench.load()
    assert other.committed() == {("topic", 0): 199, ("topic", 1): 801}
    stored = other.shard.offsets.store.committed.get(GROUP, "topic", 0)
    assert isinstance(stored, OffsetAndMetadata)
    assert stored.record_offset == 398


def test_records_of_other_releases_are_skipped(caplog: pytest.LogCaptureFixture) -> None:
    bench = GroupBench()
    now(bench.commit({0: 5}))
    for key in (b"\0\x63future", b"\0\2\0\1x"):
        bench.log.append("", 0, build_batch([Record(key=key, value=b"\0\x63", timestamp=1)]))
    with caplog.at_level(logging.WARNING):
        other = bench.load()
    assert other.committed() == {("topic", 0): 5}
    assert len([record for record in caplog.records if "skipped" in record.message]) == 2


def test_commits_of_the_oldest_releases_count() -> None:
    bench = GroupBench()
    key = LegacyOffsetCommitKey("old", "topic", 3)
    bench.shard.replay(0, -1, key, LegacyOffsetCommitValue(7, "meta", 1))
    assert bench.committed("old") == {("topic", 3): 7}
    bench.shard.replay(1, -1, key, None)
    assert bench.committed("old") == {}


def test_a_write_at_the_moment_of_the_fail_over_is_refused() -> None:
    bench = GroupBench()
    bench.log.replicated = False
    answer = bench.commit({0: 5})
    bench.coordinator.on_resigned(0)
    assert now(answer).topics[0].partitions[0].error_code == ErrorCode.NOT_COORDINATOR
