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
from kbroker.coordinator.group.consumer_describe import describe_consumer_group
from kbroker.coordinator.group.consumer_group import CommitCheck, ConsumerGroup
from kbroker.coordinator.group.consumer_groups import ConsumerGroups
from kbroker.coordinator.group.consumer_member import ConsumerGroupMember
from kbroker.coordinator.group.consumer_protocol import ConsumerProtocol
from kbroker.coordinator.group.consumer_records import group_tombstones
from kbroker.coordinator.group.consumer_replay import ConsumerReplay
from kbroker.coordinator.group.consumer_validation import validate_heartbeat
from kbroker.coordinator.group.group_kinds import (
    Group,
    protocol_type_of,
    state_of,
    type_of,
)
from kbroker.coordinator.group.group_migration import GroupMigration
from kbroker.coordinator.group.group_records import (
    empty_group_metadata_record,
    group_metadata_tombstone,
)
from kbroker.coordinator.group.group_replay import GroupReplay
from kbroker.coordinator.group.mixed_groups import MixedGroups
from kbroker.coordinator.group.offset_loading import OffsetLoading
from kbroker.coordinator.group.offset_manager import OffsetManager
from kbroker.coordinator.group.regex_subscriptions import RegexSubscriptions
from kbroker.coordinator.group.topics_view import TopicsView
from kbroker.coordinator.group.write_errors import write_error_to_response_error
from kbroker.coordinator.result import CoordinatorRecord, CoordinatorResult
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
from kbroker.protocol.messages.txn_offset_commit_request import TxnOffsetCommitRequest
from kbroker.protocol.messages.txn_offset_commit_response import TxnOffsetCommitResponse

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
        topics: TopicsView,
        log: logging.Logger,
    ) -> None:
        self._config = config
        self._clock = clock
        self._timer = timer
        self._log = log
        self._topics = topics
        self._is_loaded = False
        self.groups: dict[str, Group] = {}
        self.offsets = OffsetManager(config=config, clock=clock)
        self._classic = ClassicGroups(
            config=config, clock=clock, timer=timer, find=self._find_classic, log=log
        )
        self._classic_protocol = ClassicProtocol(
            groups=self._classic, config=config, entropy=entropy, log=log
        )
        self._migration = GroupMigration(config=config, clock=clock, topics=topics, log=log)
        self._consumer = ConsumerGroups(
            config=config,
            clock=clock,
            timer=timer,
            entropy=entropy,
            topics=topics,
            find=self._find_consumer,
            migration=self._migration,
            downgrade=self._downgrade,
            log=log,
        )
        regexes = RegexSubscriptions(
            config=config,
            clock=clock,
            timer=timer,
            topics=topics,
            find=self._find_consumer,
            log=log,
        )
        self._consumer_protocol = ConsumerProtocol(
            groups=self._consumer,
            regexes=regexes,
            find_or_create=self._consumer_group_for_heartbeat,
            existing=self._existing_consumer_group,
            log=log,
        )
        self._mixed = MixedGroups(
            groups=self._consumer,
            regexes=regexes,
            migration=self._migration,
            replace_by_classic=self._replace_by_classic,
            topics=topics,
            timer=timer,
            log=log,
        )
        self._to_expire: deque[str] = deque()
        self._consumer_replay = ConsumerReplay(self.groups, self._on_member_gone)
        self._replay = GroupReplay(
            groups=self.groups,
            offsets=self.offsets,
            consumer=self._consumer_replay,
            on_classic_gone=self._classic.forget_timers,
            clock=clock,
        )

    def _find_classic(self, group_id: str) -> ClassicGroup | None:
        group = self.groups.get(group_id)
        return group if isinstance(group, ClassicGroup) else None

    def _find_consumer(self, group_id: str) -> ConsumerGroup | None:
        group = self.groups.get(group_id)
        return group if isinstance(group, ConsumerGroup) else None

    def _on_member_gone(self, group_id: str, member_id: str) -> None:
        self._consumer.cancel_timers(group_id, member_id)
        self._mixed.cancel_timers(group_id, member_id)

    # -- replay

    def replay(self, record_offset: int, producer_id: int, key: Any, value: Any | None) -> None:
        """CoordinatorShard."""
        self._replay.replay(record_offset, producer_id, key, value)

    def replay_end_transaction_marker(self, producer_id: int, *, commit: bool) -> None:
        """CoordinatorShard."""
        self.offsets.store.end_transaction(producer_id, commit=commit)

    def encoded_replay(self) -> OffsetLoading:
        """The short way of commits into ``offsets``, for one load."""
        return OffsetLoading(self.offsets.store.committed, self._replay.make_simple_group)

    def on_loaded(self) -> None:
        """CoordinatorShard."""
        for group in list(self.groups.values()):
            if isinstance(group, ClassicGroup):
                self._classic.on_loaded(group)
            else:
                self._consumer.on_loaded(group)
        self._is_loaded = True
        self.on_topics_changed()
        self._schedule_expiry()

    def on_unloaded(self) -> None:
        """CoordinatorShard."""
        for group in self.groups.values():
            if isinstance(group, ClassicGroup):
                self._classic.on_unloaded(group)

    def on_topics_changed(self) -> None:
        """Groups compare their topics with the new ones at the next heartbeat."""
        if self._is_loaded:
            self._consumer_replay.topics_version = self._topics.version

    def make_simple_group(self, group_id: str) -> None:
        """A group that nobody joined, for its offsets, unless there is one."""
        self._replay.make_simple_group(group_id)

    def time_ms(self) -> int:
        """Now, as records tell it."""
        return self._clock.time_ms()

    def _new_classic_group(self, group_id: str) -> ClassicGroup:
        group = ClassicGroup(group_id, current_state_timestamp_ms=self._clock.time_ms())
        self.groups[group_id] = group
        return group

    # -- the classic protocol

    def join(
        self, client: ClientInfo, request: JoinGroupRequest, answer: JoinDeferred
    ) -> CoordinatorResult[None]:
        """JoinGroup. A group comes into being with the first one who asks without a member id.

        Raises KafkaError for a group of KIP-848.
        """
        group = self.groups.get(request.group_id)
        if isinstance(group, ClassicGroup):
            return self._classic_protocol.join(client, request, group, answer)
        if group is not None and not group.is_empty:
            return self._mixed.join(client, request, group, answer)
        if request.member_id != UNKNOWN_MEMBER_ID:
            answer.complete(join_error(ErrorCode.UNKNOWN_MEMBER_ID, request.member_id))
            return NOTHING
        records = [] if group is None else list(group_tombstones(group))
        new_group = self._new_classic_group(request.group_id)
        step = self._classic_protocol.join(client, request, new_group, answer)
        assert not step.records, "the first rebalance of a group waits its delay"

        def on_done(error: KafkaError | None) -> None:
            if error is None or self.groups.get(request.group_id) is not new_group:
                return
            self._log.warning("cannot write the new group %r: %s", request.group_id, error)
            self._classic.forget_timers(new_group)
            self._put_back(request.group_id, group)
            code = write_error_to_response_error(error.error_code)
            for member in list(new_group.members.values()):
                new_group.complete_join(member, join_error(code, UNKNOWN_MEMBER_ID))

        records.append(empty_group_metadata_record(new_group))
        return CoordinatorResult(records, None, replay=False, on_done=on_done)

    def _put_back(self, group_id: str, group: Group | None) -> None:
        """A conversion could not be written: all is as it was."""
        if group is None:
            del self.groups[group_id]
        else:
            self.groups[group_id] = group

    def sync(self, request: SyncGroupRequest, answer: SyncDeferred) -> CoordinatorResult[None]:
        """SyncGroup. Raises KafkaError for a group of KIP-848."""
        group = self.groups.get(request.group_id)
        if group is None or group.is_empty:
            answer.complete(SyncGroupResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID))
            return NOTHING
        if isinstance(group, ConsumerGroup):
            return self._mixed.sync(request, group, answer)
        return self._classic_protocol.sync(request, group, answer)

    def heartbeat(self, request: HeartbeatRequest) -> HeartbeatResponse:
        """Heartbeat. Raises KafkaError."""
        group = self.groups.get(request.group_id)
        if group is None:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        if isinstance(group, ConsumerGroup):
            return self._mixed.heartbeat(request, group)
        return self._classic_protocol.heartbeat(request, group)

    def leave(self, request: LeaveGroupRequest) -> CoordinatorResult[LeaveGroupResponse]:
        """LeaveGroup. Raises KafkaError."""
        group = self.groups.get(request.group_id)
        if group is None:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        if isinstance(group, ConsumerGroup):
            return self._mixed.leave(request, group)
        return self._classic_protocol.leave(request, group)

    # -- KIP-848

    def consumer_heartbeat(
        self, client: ClientInfo, request: ConsumerGroupHeartbeatRequest
    ) -> CoordinatorResult[ConsumerGroupHeartbeatResponse]:
        """ConsumerGroupHeartbeat. Raises KafkaError."""
        validate_heartbeat(request, client.version, self._consumer.assignor_names)
        return self._consumer_protocol.heartbeat(client, request)

    def _consumer_group_for_heartbeat(
        self, group_id: str, may_create: bool, records: list[CoordinatorRecord]
    ) -> ConsumerGroup:
        """The group, made or converted when a member joins. KafkaError GROUP_ID_NOT_FOUND."""
        group = self.groups.get(group_id)
        if isinstance(group, ConsumerGroup):
            return group
        if may_create:
            if group is None:
                return ConsumerGroup(group_id)
            if group.is_empty:
                records.append(group_metadata_tombstone(group_id))
                return ConsumerGroup(group_id)
            upgraded = self._migration.upgrade(group, records)
            self._consumer.on_loaded(upgraded)
            return upgraded
        if group is None:
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"Consumer group {group_id} not found.")
        raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group_id} is not a consumer group.")

    def _existing_consumer_group(self, group_id: str) -> ConsumerGroup:
        """KafkaError: GROUP_ID_NOT_FOUND."""
        group = self.groups.get(group_id)
        if isinstance(group, ConsumerGroup):
            return group
        problem = "not found" if group is None else "is not a consumer group"
        raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group_id} {problem}.")

    def _downgrade(self, group: ConsumerGroup, gone: set[str]) -> CoordinatorResult[None]:
        """The members that are left speak the classic protocol: so does the group."""
        records: list[CoordinatorRecord] = []
        classic = self._migration.downgrade(group, gone, records)
        self._convert(group, classic)
        self._classic.prepare_rebalance(classic, "the last member of KIP-848 has left")
        return CoordinatorResult(
            records, None, replay=False, on_done=self._undo_conversion(group, classic)
        )

    def _replace_by_classic(
        self,
        group: ConsumerGroup,
        old: ConsumerGroupMember,
        joining: ConsumerGroupMember,
        is_stale: bool,
    ) -> CoordinatorResult[None]:
        """The last member of KIP-848, a static one, comes back as a classic client."""
        records: list[CoordinatorRecord] = []
        classic = self._migration.downgrade(group, {old.member_id}, records, joining)
        self._convert(group, classic)
        if is_stale:
            self._classic.prepare_rebalance(classic, "the assignment it came with is stale")
        return CoordinatorResult(
            records, None, replay=False, on_done=self._undo_conversion(group, classic)
        )

    def _convert(self, group: ConsumerGroup, classic: ClassicGroup) -> None:
        self.groups[group.group_id] = classic
        for member in classic.members.values():
            self._classic.schedule_heartbeat(classic, member)

    def _undo_conversion(
        self, group: ConsumerGroup, classic: ClassicGroup
    ) -> Callable[[KafkaError | None], None]:
        def on_done(error: KafkaError | None) -> None:
            if self.groups.get(group.group_id) is not classic:
                return
            if error is None:
                for member_id in group.members:
                    self._on_member_gone(group.group_id, member_id)
                return
            self._log.warning("cannot write the converted group %r: %s", group.group_id, error)
            self._classic.forget_timers(classic)
            code = write_error_to_response_error(error.error_code)
            for member in list(classic.members.values()):
                classic.complete_join(member, join_error(code, UNKNOWN_MEMBER_ID))
            self.groups[group.group_id] = group

        return on_done

    def describe_consumer_group(self, group_id: str) -> DescribedConsumerGroup:
        """ConsumerGroupDescribe of one group."""
        try:
            group = self._existing_consumer_group(group_id)
        except KafkaError as error:
            return DescribedConsumerGroup(
                error_code=error.error_code, error_message=error.message, group_id=group_id
            )
        assignor = self._consumer.preferred_assignor(group.members.values())
        return describe_consumer_group(group, assignor, self._topics)

    # -- offsets

    def commit_offsets(
        self, request: OffsetCommitRequest, version: int
    ) -> CoordinatorResult[OffsetCommitResponse]:
        """OffsetCommit. Raises KafkaError for the whole request."""
        return self.offsets.commit(request, self.check_offset_commit(request, version))

    def check_offset_commit(self, request: OffsetCommitRequest, version: int) -> CommitCheck | None:
        """What gives the error of a partition (topic id, index), None where all may be committed.

        Raises KafkaError for the whole request.
        """
        group = self.groups.get(request.group_id)
        generation_id = request.generation_id_or_member_epoch
        if group is None:
            if generation_id >= 0:
                raise KafkaError(
                    ErrorCode.GROUP_ID_NOT_FOUND
                    if version >= _COMMIT_GROUP_NOT_FOUND_FROM
                    else ErrorCode.ILLEGAL_GENERATION
                )
        elif isinstance(group, ConsumerGroup):
            return group.check_offset_commit(request.member_id, generation_id, version)
        else:
            group.validate_offset_commit(
                request.member_id, request.group_instance_id, generation_id, transactional=False
            )
            if group.is_in(ClassicGroupState.STABLE, ClassicGroupState.PREPARING_REBALANCE):
                # A commit is a sign of life.
                self._classic.schedule_heartbeat(group, group.members[request.member_id])
        return None

    def commit_transactional_offsets(
        self, request: TxnOffsetCommitRequest
    ) -> CoordinatorResult[TxnOffsetCommitResponse]:
        """TxnOffsetCommit. Raises KafkaError for the whole request."""
        group = self.groups.get(request.group_id)
        check = None
        if group is None:
            if request.generation_id >= 0:
                raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        elif isinstance(group, ClassicGroup):
            group.validate_offset_commit(
                request.member_id,
                request.group_instance_id,
                request.generation_id,
                transactional=True,
            )
        else:
            check = group.check_transactional_commit(
                request.member_id, request.group_instance_id, request.generation_id
            )
        return self.offsets.commit_in_transaction(request, self._topics, check)

    def fetch_offsets(
        self, request: OffsetFetchRequestGroup, *, require_stable: bool
    ) -> OffsetFetchResponseGroup:
        """OffsetFetch of one group; all its offsets when ``request.topics`` is None.

        Raises KafkaError for a member of KIP-848 that is not at its epoch.
        """
        group = self.groups.get(request.group_id)
        if isinstance(group, ConsumerGroup):
            group.validate_offset_fetch(request.member_id, request.member_epoch)
        exists = group is not None
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
                assert group is not None
                records.extend(self._tombstones(group))
            results.append(DeletableGroupResult(group_id, error))
        return CoordinatorResult(records, results, atomic=False)

    @staticmethod
    def _tombstones(group: Group) -> Iterable[CoordinatorRecord]:
        if isinstance(group, ClassicGroup):
            return (group_metadata_tombstone(group.group_id),)
        return group_tombstones(group)

    def describe_group(self, group_id: str, version: int) -> DescribedGroup:
        """DescribeGroups of one group; what is not there is called Dead."""
        group = self.groups.get(group_id)
        if not isinstance(group, ClassicGroup):
            dead = DescribedGroup(
                group_id=group_id, group_state=ClassicGroupState.DEAD.value, protocol_type=""
            )
            if version >= _GROUP_NOT_FOUND_FROM:
                dead.error_code = ErrorCode.GROUP_ID_NOT_FOUND
                dead.error_message = (
                    f"Group {group_id} not found."
                    if group is None
                    else f"Group {group_id} is not a classic group."
                )
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
        group: Group, states: frozenset[str], types: frozenset[str]
    ) -> ListedGroup | None:
        """A row of ListGroups, None when a filter (lower case, empty for all) leaves it out."""
        group_type = type_of(group)
        if types and group_type not in types:
            return None
        state = state_of(group)
        if states and state.lower() not in states:
            return None
        return ListedGroup(
            group_id=group.group_id,
            protocol_type=protocol_type_of(group),
            group_state=state,
            group_type=group_type,
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
            if nothing_left and group.is_empty and not self._is_awaited(group):
                records.extend(self._tombstones(group))
        if self._to_expire:
            self._timer.schedule(_EXPIRY_KEY, 0.0, self._expire_some)
        else:
            self._schedule_expiry()
        return CoordinatorResult(records, None, atomic=False)

    @staticmethod
    def _is_awaited(group: Group) -> bool:
        """Whether somebody was told to come back with a member id."""
        return isinstance(group, ClassicGroup) and bool(group.pending_join_members)
