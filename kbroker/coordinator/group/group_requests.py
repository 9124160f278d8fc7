"""The requests of groups and offsets, sent to their shards.

Every verb takes and gives protocol messages. It answers in the call where it can; a ``Deferred``
stands for an answer that must wait (a rebalance, or records that are not committed yet).
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from anyio.lowlevel import checkpoint

from kbroker.config.broker_config import ConfigHolder
from kbroker.coordinator.deferred import Answer, Deferred, all_of
from kbroker.coordinator.group.classic_group import join_error
from kbroker.coordinator.group.classic_protocol import ClientInfo, JoinDeferred, SyncDeferred
from kbroker.coordinator.group.group_shard import GroupCoordinatorShard
from kbroker.coordinator.group.offset_store import GroupOffsets
from kbroker.coordinator.group.repeated_commit import CommitTemplate, RepeatedCommit
from kbroker.coordinator.group.write_errors import write_error_to_response_error
from kbroker.coordinator.result import CoordinatorResult
from kbroker.coordinator.runtime import CoordinatorRuntime
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.consumer_group_describe_response import (
    DescribedGroup as DescribedConsumerGroup,
)
from kbroker.protocol.messages.consumer_group_heartbeat_request import (
    ConsumerGroupHeartbeatRequest,
)
from kbroker.protocol.messages.consumer_group_heartbeat_response import (
    ConsumerGroupHeartbeatResponse,
)
from kbroker.protocol.messages.delete_groups_response import (
    DeletableGroupResult,
    DeleteGroupsResponse,
)
from kbroker.protocol.messages.describe_groups_response import DescribedGroup
from kbroker.protocol.messages.heartbeat_request import HeartbeatRequest
from kbroker.protocol.messages.heartbeat_response import HeartbeatResponse
from kbroker.protocol.messages.join_group_request import JoinGroupRequest
from kbroker.protocol.messages.join_group_response import JoinGroupResponse
from kbroker.protocol.messages.leave_group_request import LeaveGroupRequest
from kbroker.protocol.messages.leave_group_response import LeaveGroupResponse, MemberResponse
from kbroker.protocol.messages.list_groups_request import ListGroupsRequest
from kbroker.protocol.messages.list_groups_response import ListedGroup, ListGroupsResponse
from kbroker.protocol.messages.offset_commit_request import OffsetCommitRequest
from kbroker.protocol.messages.offset_commit_response import (
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from kbroker.protocol.messages.offset_delete_request import OffsetDeleteRequest
from kbroker.protocol.messages.offset_delete_response import OffsetDeleteResponse
from kbroker.protocol.messages.offset_fetch_request import OffsetFetchRequestGroup
from kbroker.protocol.messages.offset_fetch_response import OffsetFetchResponseGroup
from kbroker.protocol.messages.sync_group_request import SyncGroupRequest
from kbroker.protocol.messages.sync_group_response import SyncGroupResponse
from kbroker.protocol.messages.txn_offset_commit_request import TxnOffsetCommitRequest
from kbroker.protocol.messages.txn_offset_commit_response import (
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)

_GROUPS_A_TURN = 1000
"""Groups listed before other tasks get their turn."""

R = TypeVar("R")


class GroupRequests:
    """What handlers call; made at the first request of a group."""

    def __init__(
        self,
        *,
        config: ConfigHolder,
        runtime: CoordinatorRuntime[GroupCoordinatorShard],
        partition_for: Callable[[str], int],
    ) -> None:
        self._config = config
        self._runtime = runtime
        self.partition_for = partition_for

    # -- the classic protocol

    def join_group(
        self, client: ClientInfo, request: JoinGroupRequest
    ) -> Answer[JoinGroupResponse]:
        """Waits until the rebalance that it causes has gathered the members."""
        if not request.group_id:
            return join_error(ErrorCode.INVALID_GROUP_ID, request.member_id)
        config = self._config.current
        if not (
            config.group_min_session_timeout_ms
            <= request.session_timeout_ms
            <= config.group_max_session_timeout_ms
        ):
            return join_error(ErrorCode.INVALID_SESSION_TIMEOUT, request.member_id)
        answer: JoinDeferred = Deferred()
        self._write_for(
            request.group_id,
            lambda shard: shard.join(client, request, answer),
            answer,
            lambda error: join_error(error, ""),
        )
        return answer.result() if answer.done else answer

    def sync_group(self, request: SyncGroupRequest) -> Answer[SyncGroupResponse]:
        """Waits until the leader has brought the assignments and they are written."""
        if not request.group_id:
            return SyncGroupResponse(error_code=ErrorCode.INVALID_GROUP_ID)
        answer: SyncDeferred = Deferred()
        self._write_for(
            request.group_id,
            lambda shard: shard.sync(request, answer),
            answer,
            lambda error: SyncGroupResponse(error_code=error),
        )
        return answer.result() if answer.done else answer

    def _write_for(
        self,
        group_id: str,
        step: Callable[[GroupCoordinatorShard], CoordinatorResult[None]],
        answer: Deferred[R],
        refused: Callable[[ErrorCode], R],
    ) -> None:
        """Run a step that completes ``answer`` itself, now or later, unless it fails."""

        def fail(error: KafkaError) -> None:
            answer.complete(refused(write_error_to_response_error(error.error_code)))

        try:
            outcome = self._runtime.write(self.partition_for(group_id), step)
        except KafkaError as error:
            fail(error)
            return
        if isinstance(outcome, Deferred):

            def on_done(written: Deferred[None]) -> None:
                try:
                    written.result()
                except KafkaError as error:
                    fail(error)

            outcome.on_done(on_done)

    def heartbeat(self, request: HeartbeatRequest) -> Answer[HeartbeatResponse]:
        """Keeps a member's session; while the group is loading all is well."""
        if not request.group_id:
            return HeartbeatResponse(error_code=ErrorCode.INVALID_GROUP_ID)
        try:
            return self._runtime.read(
                self.partition_for(request.group_id), lambda shard: shard.heartbeat(request)
            )
        except KafkaError as error:
            if error.error_code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
                return HeartbeatResponse()
            return HeartbeatResponse(error_code=error.error_code)

    def leave_group(self, request: LeaveGroupRequest) -> Answer[LeaveGroupResponse]:
        """Members leave; versions below 3 have been made to look like version 3."""
        if not request.group_id:
            return LeaveGroupResponse(error_code=ErrorCode.INVALID_GROUP_ID)

        def refused(error: ErrorCode) -> LeaveGroupResponse:
            if error is not ErrorCode.UNKNOWN_MEMBER_ID:
                return LeaveGroupResponse(error_code=error)
            return LeaveGroupResponse(
                members=[
                    MemberResponse(
                        member_id=member.member_id,
                        group_instance_id=member.group_instance_id,
                        error_code=error,
                    )
                    for member in request.members
                ]
            )

        return self._write(request.group_id, lambda shard: shard.leave(request), refused)

    def _write(
        self,
        group_id: str,
        step: Callable[[GroupCoordinatorShard], CoordinatorResult[R]],
        refused: Callable[[ErrorCode], R],
    ) -> Answer[R]:
        try:
            outcome = self._runtime.write(self.partition_for(group_id), step)
        except KafkaError as error:
            return refused(write_error_to_response_error(error.error_code))
        return _translated(outcome, refused) if isinstance(outcome, Deferred) else outcome

    def _read(
        self,
        group_id: str,
        step: Callable[[GroupCoordinatorShard], R],
        refused: Callable[[ErrorCode], R],
    ) -> Answer[R]:
        try:
            outcome = self._runtime.read(self.partition_for(group_id), step)
        except KafkaError as error:
            return refused(write_error_to_response_error(error.error_code))
        return _translated(outcome, refused) if isinstance(outcome, Deferred) else outcome

    # -- KIP-848

    def consumer_group_heartbeat(
        self, client: ClientInfo, request: ConsumerGroupHeartbeatRequest
    ) -> Answer[ConsumerGroupHeartbeatResponse]:
        """A member of KIP-848 joins, lives or leaves."""
        if "consumer" not in self._config.current.group_coordinator_rebalance_protocols:
            return ConsumerGroupHeartbeatResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
        try:
            outcome = self._runtime.write(
                self.partition_for(request.group_id),
                lambda shard: shard.consumer_heartbeat(client, request),
            )
        except KafkaError as error:
            return ConsumerGroupHeartbeatResponse(
                error_code=write_error_to_response_error(error.error_code),
                error_message=error.message,
            )
        if not isinstance(outcome, Deferred):
            return outcome
        return _translated(outcome, lambda error: ConsumerGroupHeartbeatResponse(error_code=error))

    def consumer_group_describe(
        self, group_ids: Sequence[str]
    ) -> Answer[list[DescribedConsumerGroup]]:
        """One description for each id, in order."""

        def one(group_id: str) -> Answer[DescribedConsumerGroup]:
            if not group_id:
                return DescribedConsumerGroup(error_code=ErrorCode.INVALID_GROUP_ID)
            return self._read(
                group_id,
                lambda shard: shard.describe_consumer_group(group_id),
                lambda error: DescribedConsumerGroup(error_code=error, group_id=group_id),
            )

        return all_of([one(group_id) for group_id in group_ids])

    # -- groups

    def describe_groups(
        self, group_ids: Sequence[str], version: int
    ) -> Answer[list[DescribedGroup]]:
        """One description for each id, in order."""

        def one(group_id: str) -> Answer[DescribedGroup]:
            return self._read(
                group_id,
                lambda shard: shard.describe_group(group_id, version),
                lambda error: DescribedGroup(group_id=group_id, error_code=error),
            )

        return all_of([one(group_id) for group_id in group_ids])

    def list_groups(
        self, request: ListGroupsRequest
    ) -> ListGroupsResponse | Coroutine[Any, Any, ListGroupsResponse]:
        """Groups of all partitions led here. Coordinators that are loading are an error."""
        if any(self._runtime.is_loading(index) for index in self._runtime.indexes()):
            return ListGroupsResponse(error_code=ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
        states = frozenset(state.lower().strip() for state in request.states_filter)
        types = frozenset(name.lower() for name in request.types_filter)
        shards = list(self._runtime.active_shards())
        if sum(len(shard.groups) for _, shard in shards) > _GROUPS_A_TURN:
            return self._list_many(shards, states, types)
        groups: list[ListedGroup] = []
        for _, shard in shards:
            for group in shard.groups.values():
                row = shard.list_group(group, states, types)
                if row is not None:
                    groups.append(row)
        return ListGroupsResponse(groups=groups)

    async def _list_many(
        self,
        shards: Sequence[tuple[int, GroupCoordinatorShard]],
        states: frozenset[str],
        types: frozenset[str],
    ) -> ListGroupsResponse:
        groups: list[ListedGroup] = []
        count = 0
        for _, shard in shards:
            for group in list(shard.groups.values()):
                row = shard.list_group(group, states, types)
                if row is not None:
                    groups.append(row)
                count += 1
                if count % _GROUPS_A_TURN == 0:
                    await checkpoint()
        return ListGroupsResponse(groups=groups)

    def delete_groups(self, group_ids: Sequence[str]) -> Answer[DeleteGroupsResponse]:
        """Delete empty groups and their offsets; one result for each id, however often named."""
        by_partition: dict[int, list[str]] = {}
        for group_id in dict.fromkeys(group_ids):
            by_partition.setdefault(self.partition_for(group_id), []).append(group_id)

        def some(ids: list[str]) -> Answer[list[DeletableGroupResult]]:
            return self._write(
                ids[0],
                lambda shard: shard.delete_groups(ids),
                lambda error: [DeletableGroupResult(group_id, error) for group_id in ids],
            )

        outcome = all_of([some(ids) for ids in by_partition.values()])

        def response(parts: list[list[DeletableGroupResult]]) -> DeleteGroupsResponse:
            return DeleteGroupsResponse(results=[result for part in parts for result in part])

        if not isinstance(outcome, Deferred):
            return response(outcome)
        answer: Deferred[DeleteGroupsResponse] = Deferred()
        outcome.on_done(lambda done: answer.complete(response(done.result())))
        return answer

    # -- offsets

    def commit_offsets(
        self, request: OffsetCommitRequest, version: int
    ) -> Answer[OffsetCommitResponse]:
        """Commit to topics that exist; ``topic.name`` and ``topic.topic_id`` are both set."""
        return self._write(
            request.group_id,
            lambda shard: shard.commit_offsets(request, version),
            lambda error: offset_commit_error(request, error),
        )

    def commit_again(
        self, template: CommitTemplate, offsets: Sequence[int], epochs: Sequence[int]
    ) -> Answer[OffsetCommitResponse] | None:
        """``commit_offsets`` for what ``template`` describes; answers ``template.response`` when
        all goes well. None: nothing has happened, it has to go the ordinary way."""
        if self._config.current.offsets_topic_compression_codec:
            return None
        step = RepeatedCommit(template, offsets, epochs)
        request = template.request
        try:
            outcome = self._runtime.write_encoded(self.partition_for(request.group_id), step)
        except KafkaError as error:
            return offset_commit_error(request, write_error_to_response_error(error.error_code))
        if not isinstance(outcome, Deferred):
            return outcome
        return _translated(outcome, lambda error: offset_commit_error(request, error))

    def commit_transactional_offsets(
        self, request: TxnOffsetCommitRequest
    ) -> Answer[TxnOffsetCommitResponse]:
        """Commit to topics that exist, as part of a transaction that has been verified."""
        if not request.group_id:
            return txn_offset_commit_error(request, ErrorCode.INVALID_GROUP_ID)
        return self._write(
            request.group_id,
            lambda shard: shard.commit_transactional_offsets(request),
            lambda error: txn_offset_commit_error(request, error),
        )

    def end_transaction(
        self,
        partition: int,
        *,
        producer_id: int,
        producer_epoch: int,
        coordinator_epoch: int,
        commit: bool,
    ) -> Answer[None]:
        """Write a transaction's marker to a partition of the offsets topic, and apply it.

        Raises, or the Deferred gives, KafkaError.
        """
        return self._runtime.end_transaction(
            partition,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            coordinator_epoch=coordinator_epoch,
            commit=commit,
        )

    def fetch_offsets(
        self, request: OffsetFetchRequestGroup, *, require_stable: bool
    ) -> Answer[OffsetFetchResponseGroup]:
        """Committed offsets of one group; ``topics`` None asks for all."""
        return self._read(
            request.group_id,
            lambda shard: shard.fetch_offsets(request, require_stable=require_stable),
            lambda error: OffsetFetchResponseGroup(group_id=request.group_id, error_code=error),
        )

    def committed_offsets(self, group_id: str) -> Answer[GroupOffsets]:
        """A copy of what a group committed, as it is held: quick, however much it is.

        Empty when there is no such group, or nobody here who knows it.
        """

        def copy(shard: GroupCoordinatorShard) -> GroupOffsets:
            held = shard.offsets.store.committed.of_group(group_id)
            return {topic: dict(offsets) for topic, offsets in held.items()}

        return self._read(group_id, copy, lambda error: {})

    def delete_offsets(self, request: OffsetDeleteRequest) -> Answer[OffsetDeleteResponse]:
        """Delete committed offsets of topics that nobody in the group subscribes to."""
        if not request.group_id:
            return OffsetDeleteResponse(error_code=ErrorCode.INVALID_GROUP_ID)
        return self._write(
            request.group_id,
            lambda shard: shard.delete_offsets(request),
            lambda error: OffsetDeleteResponse(error_code=error),
        )


def offset_commit_error(request: OffsetCommitRequest, error: ErrorCode) -> OffsetCommitResponse:
    """The same error for every partition of a request."""
    return OffsetCommitResponse(
        topics=[
            OffsetCommitResponseTopic(
                topic.name,
                topic.topic_id,
                [
                    OffsetCommitResponsePartition(partition.partition_index, error)
                    for partition in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def txn_offset_commit_error(
    request: TxnOffsetCommitRequest, error: ErrorCode
) -> TxnOffsetCommitResponse:
    """The same error for every partition of a request."""
    return TxnOffsetCommitResponse(
        topics=[
            TxnOffsetCommitResponseTopic(
                topic.name,
                [
                    TxnOffsetCommitResponsePartition(partition.partition_index, error)
                    for partition in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _translated(outcome: Deferred[R], refused: Callable[[ErrorCode], R]) -> Deferred[R]:
    """The same answer, errors made into responses."""
    answer: Deferred[R] = Deferred()

    def on_done(done: Deferred[R]) -> None:
        try:
            answer.complete(done.result())
        except KafkaError as error:
            answer.complete(refused(write_error_to_response_error(error.error_code)))

    outcome.on_done(on_done)
    return answer
