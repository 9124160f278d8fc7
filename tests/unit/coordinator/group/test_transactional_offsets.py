"""Offsets that are committed as part of a transaction."""

from typing import Any

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.txn_offset_commit_request import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from kbroker.record.batch import RecordBatchHeader
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, now, topic_id, waits

PRODUCER = 77


def commit(bench: GroupBench, offset: int, *, producer_id: int = PRODUCER, **options: Any) -> Any:
    partition = TxnOffsetCommitRequestPartition(0, offset)
    request = TxnOffsetCommitRequest(
        transactional_id="t",
        group_id=options.pop("group_id", GROUP),
        producer_id=producer_id,
        producer_epoch=3,
        topics=[TxnOffsetCommitRequestTopic("topic", [partition])],
        **options,
    )
    return bench.coordinator.requests.commit_transactional_offsets(request)


def error(bench: GroupBench, **options: Any) -> ErrorCode:
    return ErrorCode(now(commit(bench, 1, **options)).topics[0].partitions[0].error_code)


def end(bench: GroupBench, *, is_commit: bool, producer_id: int = PRODUCER) -> Any:
    return bench.coordinator.requests.end_transaction(
        0, producer_id=producer_id, producer_epoch=3, coordinator_epoch=0, commit=is_commit
    )


def test_they_count_when_the_transaction_commits() -> None:
    bench = GroupBench()
    assert error(bench) is NONE
    assert bench.fetch_one(0)[0] == -1
    unstable = ErrorCode.UNSTABLE_OFFSET_COMMIT
    assert bench.fetch_one(0, require_stable=True)[3] is unstable
    assert now(end(bench, is_commit=True)) is None
    assert bench.fetch_one(0, require_stable=True)[0] == 1
    assert bench.load().committed() == {("topic", 0): 1}


def test_not_when_it_aborts() -> None:
    bench = GroupBench()
    now(bench.commit({0: 5}))
    now(commit(bench, 9))
    now(end(bench, is_commit=False))
    assert bench.committed() == {("topic", 0): 5}
    assert bench.load().committed() == {("topic", 0): 5}


def test_an_open_one_is_open_after_a_restart() -> None:
    bench = GroupBench()
    now(commit(bench, 9))
    other = bench.load()
    assert other.fetch_one(0, require_stable=True)[3] is ErrorCode.UNSTABLE_OFFSET_COMMIT
    now(end(other, is_commit=True))
    assert other.committed() == {("topic", 0): 9}


def test_the_batches_are_the_producer_s() -> None:
    bench = GroupBench()
    now(commit(bench, 9))
    now(end(bench, is_commit=True))
    offsets, marker = (RecordBatchHeader(batch) for batch in bench.log.batches[0])
    assert (offsets.producer_id, offsets.producer_epoch) == (PRODUCER, 3)
    assert offsets.is_transactional
    assert not offsets.is_control
    assert (marker.producer_id, marker.is_control) == (PRODUCER, True)


def test_the_marker_waits_for_the_high_watermark() -> None:
    bench = GroupBench()
    now(commit(bench, 9))
    bench.log.replicated = False
    answer = end(bench, is_commit=True)
    assert waits(answer)
    bench.log.commit("", 0)
    assert now(answer) is None


def test_who_may_commit() -> None:
    bench = GroupBench()
    unknown, illegal = ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION
    assert error(bench, group_id="") is ErrorCode.INVALID_GROUP_ID
    assert error(bench, generation_id=1) is unknown
    (member_id,) = bench.stable_group()
    assert error(bench) is NONE
    assert error(bench, generation_id=1, member_id=member_id) is NONE
    assert error(bench, generation_id=2, member_id=member_id) is illegal
    assert error(bench, generation_id=1, member_id="x") is unknown


def test_members_of_kip_848() -> None:
    bench = GroupBench()
    bench.set_topics(topic=1)
    bench.consumer("a", topics=["topic"])
    assert error(bench) is NONE
    assert error(bench, generation_id=2, member_id="a") is NONE
    assert error(bench, generation_id=1, member_id="a") is ErrorCode.ILLEGAL_GENERATION
    assert error(bench, generation_id=2, member_id="b") is ErrorCode.UNKNOWN_MEMBER_ID


def test_the_topic_s_id_is_remembered() -> None:
    """By a commit that names the topic only: an offset of an earlier topic of the name is none."""
    bench = GroupBench()
    bench.set_topics(topic=1)
    now(commit(bench, 9))
    now(end(bench, is_commit=True))
    assert bench.fetch_one(0, topic_id=topic_id("topic"))[0] == 9
    assert bench.fetch_one(0, topic_id=topic_id("another"))[0] == -1


def test_metadata_that_is_too_large_does_not_hinder_the_rest() -> None:
    bench = GroupBench()
    request = TxnOffsetCommitRequest(
        transactional_id="t",
        group_id=GROUP,
        producer_id=PRODUCER,
        producer_epoch=3,
        topics=[
            TxnOffsetCommitRequestTopic(
                "topic",
                [
                    TxnOffsetCommitRequestPartition(0, 5, -1, "m" * 4097),
                    TxnOffsetCommitRequestPartition(1, 6, 2, "m" * 4096),
                ],
            )
        ],
    )
    response = now(bench.coordinator.requests.commit_transactional_offsets(request))
    errors = [partition.error_code for partition in response.topics[0].partitions]
    assert errors == [ErrorCode.OFFSET_METADATA_TOO_LARGE, NONE]
    now(end(bench, is_commit=True))
    assert bench.fetch_one(1)[:3] == (6, 2, "m" * 4096)
    assert bench.committed() == {("topic", 1): 6}
