"""What clients are told when the offsets topic cannot be written, is loading or is elsewhere."""

from collections.abc import Callable
from typing import Any

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.list_groups_request import ListGroupsRequest
from kbroker.protocol.messages.offset_delete_request import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from kbroker.protocol.messages.offset_fetch_request import OffsetFetchRequestGroup
from kbroker.protocol.messages.txn_offset_commit_request import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, now

NOT_AVAILABLE = ErrorCode.COORDINATOR_NOT_AVAILABLE

ERRORS = [
    (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, NOT_AVAILABLE),
    (ErrorCode.NOT_ENOUGH_REPLICAS, NOT_AVAILABLE),
    (ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND, NOT_AVAILABLE),
    (ErrorCode.REQUEST_TIMED_OUT, NOT_AVAILABLE),
    (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR),
    (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_COORDINATOR),
    (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.UNKNOWN_SERVER_ERROR),
    (ErrorCode.RECORD_LIST_TOO_LARGE, ErrorCode.UNKNOWN_SERVER_ERROR),
    (ErrorCode.INVALID_FETCH_SIZE, ErrorCode.UNKNOWN_SERVER_ERROR),
    (ErrorCode.INVALID_REQUIRED_ACKS, ErrorCode.INVALID_REQUIRED_ACKS),
]


def _txn_commit(bench: GroupBench) -> int:
    request = TxnOffsetCommitRequest(
        transactional_id="t",
        group_id=GROUP,
        producer_id=5,
        producer_epoch=0,
        topics=[TxnOffsetCommitRequestTopic("topic", [TxnOffsetCommitRequestPartition(0, 1)])],
    )
    response = now(bench.coordinator.requests.commit_transactional_offsets(request))
    return response.topics[0].partitions[0].error_code


def _delete_offsets(bench: GroupBench) -> int:
    topic = OffsetDeleteRequestTopic("topic", [OffsetDeleteRequestPartition(0)])
    response = now(bench.coordinator.requests.delete_offsets(OffsetDeleteRequest(GROUP, [topic])))
    return response.error_code


def _delete_group(bench: GroupBench) -> int:
    (result,) = now(bench.coordinator.requests.delete_groups([GROUP])).results
    return result.error_code


def _fetch(bench: GroupBench) -> int:
    request = OffsetFetchRequestGroup(group_id=GROUP, topics=None)
    return now(bench.coordinator.requests.fetch_offsets(request, require_stable=False)).error_code


def _describe(bench: GroupBench) -> int:
    (described,) = now(bench.coordinator.requests.describe_groups([GROUP], 6))
    return described.error_code


def _describe_consumer(bench: GroupBench) -> int:
    (described,) = now(bench.coordinator.requests.consumer_group_describe([GROUP]))
    return described.error_code


WRITES: dict[str, Callable[[GroupBench], Any]] = {
    "commit": lambda bench: bench.commit_error(),
    "transactional commit": _txn_commit,
    "delete offsets": _delete_offsets,
    "delete the group": _delete_group,
    "join a new group": lambda bench: (
        now(bench.join(group_id="new", instance_id="static")).error_code
    ),
    "consumer heartbeat": lambda bench: bench.consumer(group_id="new", topics=["t"]).error_code,
}

READS: dict[str, Callable[[GroupBench], Any]] = {
    "fetch": _fetch,
    "describe": _describe,
    "describe consumer": _describe_consumer,
    "leave": lambda bench: bench.leave(("m", None)).error_code,
    "sync": lambda bench: now(bench.sync("m", 1)).error_code,
    "join": lambda bench: now(bench.join("m")).error_code,
}


@pytest.mark.parametrize(("error", "told"), ERRORS, ids=lambda code: code.name)
@pytest.mark.parametrize("write", WRITES)
def test_an_error_of_the_log(write: str, error: ErrorCode, told: ErrorCode) -> None:
    bench = GroupBench()
    bench.commit({0: 1})
    bench.log.fail(KafkaError(error))
    assert WRITES[write](bench) == told
    bench.log.failure = None
    assert set(bench.shard.groups) == {GROUP}
    assert bench.committed() == {("topic", 0): 1}


@pytest.mark.parametrize("request_name", [*WRITES, *READS])
def test_while_it_is_loaded(request_name: str) -> None:
    bench = GroupBench()
    bench.commit({0: 1})
    loading = GroupBench(log=bench.log)  # nobody runs its loader
    ask = {**WRITES, **READS}[request_name]
    assert ask(loading) == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS


@pytest.mark.parametrize("request_name", [*WRITES, *READS])
def test_where_another_broker_coordinates(request_name: str) -> None:
    bench = GroupBench()
    bench.commit({0: 1})
    bench.coordinator.on_resigned(0)
    ask = {**WRITES, **READS}[request_name]
    assert ask(bench) == ErrorCode.NOT_COORDINATOR
    response = bench.coordinator.requests.list_groups(ListGroupsRequest())
    assert (response.error_code, response.groups) == (NONE, [])  # type: ignore[union-attr]
