"""The groups and offsets of one partition of ``__consumer_offsets``."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kbroker.common.clock import Clock
from kbroker.common.entropy import Entropy
from kbroker.config.broker_config import ConfigHolder
from kbroker.coordinator.coordinator_timer import CoordinatorTimer
from kbroker.coordinator.group.classic_group import (
    ClassicGroup,
    ClassicGroupMember,
    ClassicGroupState,
    join_error,
)
from kbroker.coordinator.group.classic_groups import NOTHING, ClassicGroups
from kbroker.coordinator.group.classic_protocol import (
    UNKNOWN_MEMBER_ID,
    ClassicProtocol,
    ClientInfo,
    JoinDeferred,
    SyncDeferred,
)
from kbroker.coordinator.group.consumer_subscription import (
    AbsurdSubscription,
    UnreadableSubscription,
    subscribed_topics,
)
from kbroker.coordinator.group.group_records import (
    empty_group_metadata_record,
    group_metadata_tombstone,
)
from kbroker.coordinator.group.offset_manager import OffsetManager
from kbroker.coordinator.group.write_errors import write_error_to_response_error
from kbroker.coordinator.result import CoordinatorRecord, CoordinatorResult
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.internal_records.group_metadata_key import GroupMetadataKey
from kbroker.protocol.internal_records.group_metadata_value import GroupMetadataValue
from kbroker.protocol.internal_records.legacy_offset_commit_key import LegacyOffsetCommitKey
from kbroker.protocol.internal_records.offset_commit_key import OffsetCommitKey
from kbroker.protocol.internal_records.offset_commit_value import OffsetCommitValue
from kbroker.protocol.messages.delete_groups_response import DeletableGroupResult
from kbroker.protocol.messages.describe_groups_response import (
    DescribedGroup,
    DescribedGroupMember,
)
from kbroker.protocol.messages.heartbeat_request import HeartbeatRequest
from kbroker.protocol.messages.heartbeat_response import HeartbeatResponse
from kbroker.protocol.messages.join_group_request import JoinGroupRequest
from kbroker.protocol.messages.leave_group_request import LeaveGroupRequest
from kbroker.protocol.messages.leave_group_response import LeaveGroupResponse
from kbroker.protocol.messages.list_groups_response import ListedGroup
from kbroker.protocol.messages.offset_commit_request import OffsetCommitRequest
from kbroker.protocol.messages.offset_commit_response import OffsetCommitResponse
from kbroker.protocol.messages.offset_delete_request import OffsetDeleteRequest
from kbroker.protocol.messages.offset_delete_response import OffsetDeleteResponse
from kbroker.protocol.messages.offset_fetch_request import OffsetFetchRequestGroup
from kbroker.protocol.messages.offset_fetch_response import OffsetFetchResponseGroup
from kbroker.protocol.messages.sync_group_request import SyncGroupRequest
from kbroker.protocol.messages.sync_group_response import SyncGroupResponse

CLASSIC_GROUP_TYPE = "classic"

_EXPIRY_KEY = "expire-offsets"
_GROUPS_A_TURN = 200
"""Groups whose offsets are looked through in one turn of the loop."""
_GROUP_NOT_FOUND_FROM = 6
_COMMIT_GROUP_NOT_FOUND_FROM = 9


class GroupCoordinatorShard:
    """Groups by id, offsets beside them; steps for every request; replay of every record."""

    def __init__(
        self,
        *,
        config: ConfigHolder,
        clock: Clock,
        timer: CoordinatorTimer,
        entropy: Entropy,
        log: logging.Logger,
    ) -> None:
        self._config = config
        self._clock = clock
        self._timer = timer
        self._log = log
        self.groups: dict[str, ClassicGroup] = {}
        self.offsets = OffsetManager(config=config, clock=clock)
        self._classic = ClassicGroups(
            config=config, clock=clock, timer=timer, find=self.groups.get, log=log
        )
        self._protocol = ClassicProtocol(
            groups=self._classic, config=config, entropy=entropy, log=log
        )
        self._to_expire: deque[str] = deque()
        self._replays: dict[type, Callable[[int, int, Any, Any], None]] = {
            OffsetCommitKey: self._replay_offset_commit,
            LegacyOffsetCommitKey: self._replay_legacy_offset_commit,
            GroupMetadataKey: self._replay_group_metadata,
        }

    # -- replay

    def replay(self, record_offset: int, producer_id: int, key: Any, value: Any | None) -> None:
        """CoordinatorShard."""
        self._replays[type(key)](record_offset, producer_id, key, value)

    def replay_end_transaction_marker(self, producer_id: int, *, commit: bool) -> None:
        """CoordinatorShard."""
        self.offsets.store.end_transaction(producer_id, commit=commit)

    def _replay_offset_commit(
        self,
        record_offset: int,
        producer_id: int,
        key: OffsetCommitKey,
        value: OffsetCommitValue | None,
    ) -> None:
        if value is not None and key.group not in self.groups:
            self._new_group(key.group)  # a simple group: nobody joined it, it stores offsets
        self.offsets.replay(record_offset, producer_id, key, value)

    def _replay_legacy_offset_commit(
        self, record_offset: int, producer_id: int, key: LegacyOffsetCommitKey, value: Any | None
    ) -> None:
        """Records of releases before 0.9, in topics that have been taken along since."""
        self._replay_offset_commit(
            record_offset,
            producer_id,
            OffsetCommitKey(key.group, key.topic, key.partition),
            None
            if value is None
            else OffsetCommitValue(
                offset=value.offset,
                metadata=value.metadata,
                commit_timestamp=value.commit_timestamp,
            ),
        )

    def _replay_group_metadata(
        self,
        record_offset: int,
        producer_id: int,
        key: GroupMetadataKey,
        value: GroupMetadataValue | None,
    ) -> None:
        group = self.groups.pop(key.group, None)
        if group is not None:
            self._classic.forget_timers(group)
        if value is None:
            return
        since = value.current_state_timestamp
        group = ClassicGroup(
            key.group,
            state=ClassicGroupState.STABLE if value.members else ClassicGroupState.EMPTY,
            generation_id=value.generation,
            protocol_type=value.protocol_type or None,
            protocol_name=value.protocol,
            leader_id=value.leader,
            current_state_timestamp_ms=None if since == -1 else since,
        )
        for member in value.members:
            timeout_ms = member.rebalance_timeout
            group.add(
                ClassicGroupMember(
                    member_id=member.member_id,
                    group_instance_id=member.group_instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    rebalance_timeout_ms=(
                        member.session_timeout if timeout_ms == -1 else timeout_ms
                    ),
                    session_timeout_ms=member.session_timeout,
                    protocol_type=value.protocol_type,
                    protocols=((value.protocol or "", member.subscription),),
                    assignment=member.assignment,
                )
            )
        group.subscribed_topics = _subscribed_topics(group)
        self.groups[key.group] = group

    def on_loaded(self) -> None:
        """CoordinatorShard."""
        for group in list(self.groups.values()):
            self._classic.on_loaded(group)
        self._schedule_expiry()

    def on_unloaded(self) -> None:
        """CoordinatorShard."""
        for group in self.groups.values():
            self._classic.on_unloaded(group)

    def _new_group(self, group_id: str) -> ClassicGroup:
        group = ClassicGroup(group_id, current_state_timestamp_ms=self._clock.time_ms())
        self.groups[group_id] = group
        return group

    # -- the classic protocol

    def join(
        self, client: ClientInfo, request: JoinGroupRequest, answer: JoinDeferred
    ) -> CoordinatorResult[None]:
        """JoinGroup. A group comes into being with the first one who asks without a member id."""
        group = self.groups.get(request.group_id)
        if group is not None:
            return self._protocol.join(client, request, group, answer)
        if request.member_id != UNKNOWN_MEMBER_ID:
            answer.complete(join_error(ErrorCode.UNKNOWN_MEMBER_ID, request.member_id))
            return NOTHING
        new_group = self._new_group(request.group_id)
        step = self._protocol.join(client, request, new_group, answer)
        assert not step.records, "the first rebalance of a group waits its delay"

        def on_done(error: KafkaError | None) -> None:
            if error is None or self.groups.get(request.group_id) is not new_group:
                return
            self._log.warning("cannot write the new group %s: %s", request.group_id, error)
            del self.groups[request.group_id]
            self._classic.forget_timers(new_group)
            code = write_error_to_response_error(error.error_code)
            for member in list(new_group.members.values()):
                new_group.complete_join(member, join_error(code, UNKNOWN_MEMBER_ID))

        return CoordinatorResult(
            [empty_group_metadata_record(new_group)], None, replay=False, on_done=on_done
        )

    def sync(self, request: SyncGroupRequest, answer: SyncDeferred) -> CoordinatorResult[None]:
        """SyncGroup."""
        group = self.groups.get(request.group_id)
        if group is None or group.is_empty:
            answer.complete(SyncGroupResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID))
            return NOTHING
        return self._protocol.sync(request, group, answer)

    def heartbeat(self, request: HeartbeatRequest) -> HeartbeatResponse:
        """Heartbeat. Raises KafkaError."""
        group = self.groups.get(request.group_id)
        if group is None:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        return self._protocol.heartbeat(request, group)

    def leave(self, request: LeaveGroupRequest) -> CoordinatorResult[LeaveGroupResponse]:
        """LeaveGroup. Raises KafkaError."""
        group = self.groups.get(request.group_id)
        if group is None:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        return self._protocol.leave(request, group)

    # -- offsets

    def commit_offsets(
        self, request: OffsetCommitRequest, version: int
    ) -> CoordinatorResult[OffsetCommitResponse]:
        """OffsetCommit. Raises KafkaError for the whole request."""
        group = self.groups.get(request.group_id)
        generation_id = request.generation_id_or_member_epoch
        if group is None:
            if generation_id >= 0:
                raise KafkaError(
                    ErrorCode.GROUP_ID_NOT_FOUND
                    if version >= _COMMIT_GROUP_NOT_FOUND_FROM
                    else ErrorCode.ILLEGAL_GENERATION
                )
        else:
            group.validate_offset_commit(
                request.member_id, request.group_instance_id, generation_id, transactional=False
            )
            if group.is_in(ClassicGroupState.STABLE, ClassicGroupState.PREPARING_REBALANCE):
                # A commit is a sign of life.
                self._classic.schedule_heartbeat(group, group.members[request.member_id])
        return self.offsets.commit(request)

    def fetch_offsets(
        self, request: OffsetFetchRequestGroup, *, require_stable: bool
    ) -> OffsetFetchResponseGroup:
        """OffsetFetch of one group; all its offsets when ``request.topics`` is None."""
        exists = request.group_id in self.groups
        if request.topics is not None:
            return self.offsets.fetch(request, require_stable=require_stable, group_exists=exists)
        if not exists:
            return OffsetFetchResponseGroup(group_id=request.group_id)
        return self.offsets.fetch_all(request.group_id, require_stable=require_stable)

    def delete_offsets(
        self, request: OffsetDeleteRequest
    ) -> CoordinatorResult[OffsetDeleteResponse]:
        """OffsetDelete. Raises KafkaError."""
        group = self.groups.get(request.group_id)
        if group is None:
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND)
        group.validate_offset_delete()
        return self.offsets.delete(request, group.is_subscribed_to)

    def on_topics_deleted(self, topics: Sequence[tuple[str, bytes]]) -> CoordinatorResult[None]:
        """Offsets of topics that are no more go with them."""
        return CoordinatorResult(self.offsets.on_topics_deleted(topics), None, atomic=False)

    # -- groups

    def delete_groups(
        self, group_ids: Iterable[str]
    ) -> CoordinatorResult[list[DeletableGroupResult]]:
        """DeleteGroups: empty groups go, with their offsets."""
        records: list[CoordinatorRecord] = []
        results: list[DeletableGroupResult] = []
        for group_id in group_ids:
            group = self.groups.get(group_id)
            error = ErrorCode.NONE
            if group is None:
                error = ErrorCode.GROUP_ID_NOT_FOUND
            else:
                try:
                    group.validate_delete()
                except KafkaError as refused:
                    error = refused.error_code
            if error is ErrorCode.NONE:
                records.extend(self.offsets.tombstones(group_id))
                records.append(group_metadata_tombstone(group_id))
            results.append(DeletableGroupResult(group_id, error))
        return CoordinatorResult(records, results, atomic=False)

    def describe_group(self, group_id: str, version: int) -> DescribedGroup:
        """DescribeGroups of one group; what is not there is called Dead."""
        group = self.groups.get(group_id)
        if group is None:
            dead = DescribedGroup(
                group_id=group_id, group_state=ClassicGroupState.DEAD.value, protocol_type=""
            )
            if version >= _GROUP_NOT_FOUND_FROM:
                dead.error_code = ErrorCode.GROUP_ID_NOT_FOUND
                dead.error_message = f"Group {group_id} not found."
            return dead
        name = group.protocol_name if group.state is ClassicGroupState.STABLE else None
        return DescribedGroup(
            group_id=group_id,
            group_state=group.state.value,
            protocol_type=group.protocol_type or "",
            protocol_data=name or "",
            members=[
                DescribedGroupMember(
                    member_id=member.member_id,
                    group_instance_id=member.group_instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    member_metadata=b"" if name is None else member.metadata(name),
                    member_assignment=member.assignment,
                )
                for member in group.members.values()
            ],
        )

    @staticmethod
    def list_group(
        group: ClassicGroup, states: frozenset[str], types: frozenset[str]
    ) -> ListedGroup | None:
        """A row of ListGroups, None when a filter (lower case, empty for all) leaves it out."""
        if states and group.state.value.lower() not in states:
            return None
        if types and CLASSIC_GROUP_TYPE not in types:
            return None
        return ListedGroup(
            group_id=group.group_id,
            protocol_type=group.protocol_type or "",
            group_state=group.state.value,
            group_type=CLASSIC_GROUP_TYPE,
        )

    # -- expiry

    def _schedule_expiry(self) -> None:
        delay_s = self._config.current.offsets_retention_check_interval_ms / 1000
        self._timer.schedule(_EXPIRY_KEY, delay_s, self._begin_expiry)

    def _begin_expiry(self) -> CoordinatorResult[None]:
        self._to_expire = deque(self.groups)
        return self._expire_some()

    def _expire_some(self) -> CoordinatorResult[None]:
        """Look through the next groups; empty ones that have no offset left are deleted."""
        records: list[CoordinatorRecord] = []
        for _ in range(min(_GROUPS_A_TURN, len(self._to_expire))):
            group = self.groups.get(self._to_expire.popleft())
            if group is None:
                continue
            nothing_left = self.offsets.expire(group, records)
            if nothing_left and group.is_empty and not group.pending_join_members:
                records.append(group_metadata_tombstone(group.group_id))
        if self._to_expire:
            self._timer.schedule(_EXPIRY_KEY, 0.0, self._expire_some)
        else:
            self._schedule_expiry()
        return CoordinatorResult(records, None, atomic=False)


def _subscribed_topics(group: ClassicGroup) -> frozenset[str] | None:
    """The topics of all members of a loaded group, None when they cannot be known."""
    if not group.uses_consumer_protocol:
        return None
    topics: set[str] = set()
    try:
        for member in group.members.values():
            topics.update(subscribed_topics(member.protocols[0][1]))
    except (UnreadableSubscription, AbsurdSubscription):
        return None
    return frozenset(topics)
