"""Clients of the classic protocol in a group of KIP-848: JoinGroup, SyncGroup, Heartbeat, Leave.

Such a client joins to be reconciled one step, learns its assignment by SyncGroup, and is told by
Heartbeat to join again when there is another step to make. Nobody of them leads.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from kbroker.coordinator.coordinator_timer import CoordinatorTimer
from kbroker.coordinator.group.assignor.assignor import Partitions
from kbroker.coordinator.group.classic_group import (
    CONSUMER_PROTOCOL_TYPE,
    Protocols,
    join_error,
)
from kbroker.coordinator.group.classic_protocol import (
    UNKNOWN_MEMBER_ID,
    ClientInfo,
    JoinDeferred,
    SyncDeferred,
)
from kbroker.coordinator.group.consumer_group import ConsumerGroup
from kbroker.coordinator.group.consumer_groups import ConsumerGroups, Step
from kbroker.coordinator.group.consumer_member import (
    ClassicMetadata,
    ConsumerGroupMember,
    MemberState,
)
from kbroker.coordinator.group.consumer_records import member_record
from kbroker.coordinator.group.embedded_protocol import read_subscription, write_assignment
from kbroker.coordinator.group.group_migration import GroupMigration
from kbroker.coordinator.group.regex_subscriptions import RegexSubscriptions
from kbroker.coordinator.group.topics_view import TopicsView
from kbroker.coordinator.result import CoordinatorResult
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.internal_records.consumer_protocol_subscription import (
    ConsumerProtocolSubscription,
)
from kbroker.protocol.messages.heartbeat_request import HeartbeatRequest
from kbroker.protocol.messages.heartbeat_response import HeartbeatResponse
from kbroker.protocol.messages.join_group_request import JoinGroupRequest
from kbroker.protocol.messages.join_group_response import JoinGroupResponse
from kbroker.protocol.messages.leave_group_request import LeaveGroupRequest, MemberIdentity
from kbroker.protocol.messages.leave_group_response import LeaveGroupResponse, MemberResponse
from kbroker.protocol.messages.sync_group_request import SyncGroupRequest
from kbroker.protocol.messages.sync_group_response import SyncGroupResponse
from kbroker.protocol.wire import DecodeError

_MEMBER_ID_REQUIRED_FROM = 4

ReplaceByClassic = Callable[
    [ConsumerGroup, ConsumerGroupMember, ConsumerGroupMember, bool], CoordinatorResult[None]
]
"""(group, static member that goes, who comes, is the assignment stale) -> the downgrade."""


class MixedGroups:
    """The classic protocol's requests on one shard's groups of KIP-848."""

    def __init__(
        self,
        *,
        groups: ConsumerGroups,
        regexes: RegexSubscriptions,
        migration: GroupMigration,
        replace_by_classic: ReplaceByClassic,
        topics: TopicsView,
        timer: CoordinatorTimer,
        log: logging.Logger,
    ) -> None:
        self._groups = groups
        self._regexes = regexes
        self._migration = migration
        self._replace_by_classic = replace_by_classic
        self._topics = topics
        self._timer = timer
        self._log = log

    # -- JoinGroup

    def join(
        self,
        client: ClientInfo,
        request: JoinGroupRequest,
        group: ConsumerGroup,
        answer: JoinDeferred,
    ) -> CoordinatorResult[None]:
        """A classic client joins, or comes back for its next step. Raises KafkaError."""
        if not self._migration.may_join_classically():
            raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        is_unknown = request.member_id == UNKNOWN_MEMBER_ID
        member_id = self._groups.new_member_id() if is_unknown else request.member_id
        self._groups.check_has_room(group, member_id)
        protocols = tuple((protocol.name, protocol.metadata) for protocol in request.protocols)
        names = frozenset(name for name, _ in protocols)
        if request.protocol_type != CONSUMER_PROTOCOL_TYPE or not _is_common(group, names):
            raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        needs_id = client.version >= _MEMBER_ID_REQUIRED_FROM and request.group_instance_id is None
        if is_unknown and needs_id:
            answer.complete(join_error(ErrorCode.MEMBER_ID_REQUIRED, member_id))
            return CoordinatorResult((), None)
        step = Step(group, [])
        member, replaced = self._member(step, request, member_id, is_unknown)
        try:
            subscription = read_subscription(protocols[0][1])
        except DecodeError as error:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR) from error
        holder = group.static_member(request.group_instance_id)
        updated = _updated(client, request, subscription, member, protocols)
        bump = self._begin_step(step, member, updated, replaced)
        if holder is not None and self._migration.may_downgrade_for(group, holder):
            is_stale = group.assignment_epoch < step.group_epoch
            moved = updated
            if not is_stale:
                moved = self._reconcile(Step(group, []), updated, subscription, bump=bump)
            downgrade = self._replace_by_classic(group, holder, moved, is_stale)
            return _answered(downgrade, answer, _joined(moved))
        target_epoch, target = self._groups.assign(
            step, updated, None if replaced is None else replaced.member_id
        )
        moved = self._reconcile(
            step, updated, subscription, bump=bump, target_epoch=target_epoch, target=target
        )
        result: CoordinatorResult[None] = CoordinatorResult(step.records, None)
        return self._answer_join(result, request, moved, answer)

    def _member(
        self, step: Step, request: JoinGroupRequest, member_id: str, is_unknown: bool
    ) -> tuple[ConsumerGroupMember, ConsumerGroupMember | None]:
        group = step.group
        if request.group_instance_id is None:
            known = group.members.get(member_id)
            return known or ConsumerGroupMember(member_id=member_id), None
        holder = group.static_member(request.group_instance_id)
        if not is_unknown:
            return _member_with_id(group, request.group_instance_id, member_id), None
        if holder is None:
            return ConsumerGroupMember(member_id=member_id), None
        return self._groups.replaced(step, holder, member_id), holder

    def _begin_step(
        self,
        step: Step,
        member: ConsumerGroupMember,
        updated: ConsumerGroupMember,
        replaced: ConsumerGroupMember | None,
    ) -> bool:
        """Subscription and group epoch, as a heartbeat's; whether the subscription has changed."""
        group = step.group
        if not updated.same_subscription(member):
            step.records.append(member_record(group.group_id, updated))
        regex = self._regexes.update(step, member, updated)
        changed = updated.subscribed_topic_names != member.subscribed_topic_names
        bump = changed or regex.has_changed
        self._groups.update_epoch(step, old=replaced, new=updated, bump=bump)
        return bump

    def _reconcile(
        self,
        step: Step,
        member: ConsumerGroupMember,
        subscription: ConsumerProtocolSubscription,
        *,
        bump: bool,
        target_epoch: int | None = None,
        target: Partitions | None = None,
    ) -> ConsumerGroupMember:
        """The member's next step towards a target, by default the one that the group has."""
        group = step.group
        if target_epoch is None or target is None:
            target_epoch = group.assignment_epoch
            target = group.target_of(member.member_id, member.instance_id)
        owned = [
            (topic_id, entry.partitions)
            for entry in subscription.owned_partitions
            if (topic_id := self._topics.topic_id(entry.topic)) is not None
        ]
        return self._groups.reconcile(
            step,
            member,
            target_epoch=target_epoch,
            target=target,
            has_subscription_changed=bump,
            owned=owned,
        )

    def _answer_join(
        self,
        result: CoordinatorResult[None],
        request: JoinGroupRequest,
        member: ConsumerGroupMember,
        answer: JoinDeferred,
    ) -> CoordinatorResult[None]:
        group_id, member_id = request.group_id, member.member_id
        response = _joined(member)

        def on_done(error: KafkaError | None) -> None:
            if error is not None:
                return
            self._timer.cancel(_join_key(group_id, member_id))
            self._groups.schedule_session(group_id, member_id, request.session_timeout_ms)
            self._expect(_sync_key(group_id, member_id), group_id, member)
            answer.complete(response)

        return result._replace(on_done=on_done)

    def _expect(
        self, key: tuple[str, str, str], group_id: str, member: ConsumerGroupMember
    ) -> None:
        """Remove the member unless it asks within its rebalance timeout."""
        member_id = member.member_id
        self._timer.schedule(
            key,
            member.rebalance_timeout_ms / 1000,
            lambda: self._groups.expire(group_id, member_id, None, "it did not join or sync"),
            retry=True,
        )

    # -- SyncGroup, Heartbeat

    def sync(
        self, request: SyncGroupRequest, group: ConsumerGroup, answer: SyncDeferred
    ) -> CoordinatorResult[None]:
        """The assignment as it is reconciled. Raises KafkaError."""
        member = self._classic_member(group, request.member_id, request.group_instance_id)
        assert member.classic is not None
        if request.generation_id != member.member_epoch:
            raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
        name = member.classic.protocols[0][0]
        if request.protocol_type not in (
            None,
            CONSUMER_PROTOCOL_TYPE,
        ) or request.protocol_name not in (None, name):
            raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        is_revoking = member.state is MemberState.UNREVOKED_PARTITIONS
        if self._is_behind(group, member) and not is_revoking:
            self._expect_join(group, member)
            raise KafkaError(ErrorCode.REBALANCE_IN_PROGRESS)
        self._timer.cancel(_sync_key(group.group_id, member.member_id))
        self._groups.schedule_session(
            group.group_id, member.member_id, member.classic.session_timeout_ms
        )
        assignment = write_assignment(member.assigned, member.classic.protocols[0][1], self._topics)
        answer.complete(
            SyncGroupResponse(
                protocol_type=request.protocol_type,
                protocol_name=request.protocol_name,
                assignment=assignment,
            )
        )
        return CoordinatorResult((), None)

    def heartbeat(self, request: HeartbeatRequest, group: ConsumerGroup) -> HeartbeatResponse:
        """REBALANCE_IN_PROGRESS when there is a step to make by JoinGroup. Raises KafkaError."""
        member = self._classic_member(group, request.member_id, request.group_instance_id)
        assert member.classic is not None
        if request.generation_id != member.member_epoch:
            raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
        self._groups.schedule_session(
            group.group_id, member.member_id, member.classic.session_timeout_ms
        )
        if not self._has_step(group, member):
            return HeartbeatResponse()
        self._expect_join(group, member)
        return HeartbeatResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS)

    def _is_behind(self, group: ConsumerGroup, member: ConsumerGroupMember) -> bool:
        """Whether joining again would bring the member to a later epoch.

        Where nobody is left whose heartbeat would compute the assignment of the group epoch, a
        classic member that joins again has to; in Kafka such a group waits for a newcomer.
        """
        if member.member_epoch < group.assignment_epoch:
            return True
        return (
            member.member_epoch < group.group_epoch
            and all(other.classic is not None for other in group.members.values())
            and self._groups.may_assign(group)
        )

    def _has_step(self, group: ConsumerGroup, member: ConsumerGroupMember) -> bool:
        if self._is_behind(group, member) or member.state is MemberState.UNREVOKED_PARTITIONS:
            return True
        if member.state is not MemberState.UNRELEASED_PARTITIONS:
            return False
        target = group.target.get(member.member_id, {})
        return not any(
            group.is_owned(topic_id, partition)
            and partition not in member.assigned.get(topic_id, {})
            for topic_id, partitions in target.items()
            for partition in partitions
        )

    def _expect_join(self, group: ConsumerGroup, member: ConsumerGroupMember) -> None:
        key = _join_key(group.group_id, member.member_id)
        if not self._timer.is_scheduled(key):
            self._expect(key, group.group_id, member)

    @staticmethod
    def _classic_member(
        group: ConsumerGroup, member_id: str, instance_id: str | None
    ) -> ConsumerGroupMember:
        """KafkaError: UNKNOWN_MEMBER_ID, also for a member of KIP-848; FENCED_INSTANCE_ID."""
        if instance_id is None:
            member = group.member(member_id)
        else:
            member = _member_with_id(group, instance_id, member_id)
        if member.classic is None:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        return member

    # -- LeaveGroup

    def leave(
        self, request: LeaveGroupRequest, group: ConsumerGroup
    ) -> CoordinatorResult[LeaveGroupResponse]:
        """Members leave, or an administrator removes static ones of either protocol."""
        responses: list[MemberResponse] = []
        leaving: dict[str, ConsumerGroupMember] = {}
        for identity in request.members:
            response = MemberResponse(identity.member_id, identity.group_instance_id)
            try:
                member = self._leaving(group, identity)
                leaving[member.member_id] = member
            except KafkaError as error:
                response.error_code = error.error_code
            responses.append(response)
        answer = LeaveGroupResponse(members=responses)
        if not leaving:
            return CoordinatorResult((), answer)
        step = self._groups.remove(group, list(leaving.values()))
        return CoordinatorResult(step.records, answer, replay=step.replay, on_done=step.on_done)

    @staticmethod
    def _leaving(group: ConsumerGroup, identity: MemberIdentity) -> ConsumerGroupMember:
        """Whichever protocol the member speaks: administrators remove by this request, too."""
        if identity.group_instance_id is None:
            return group.member(identity.member_id)
        if identity.member_id != UNKNOWN_MEMBER_ID:
            return _member_with_id(group, identity.group_instance_id, identity.member_id)
        member = group.static_member(identity.group_instance_id)
        if member is None:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        return member

    def cancel_timers(self, group_id: str, member_id: str) -> None:
        """The member is not in the group any more."""
        self._timer.cancel(_join_key(group_id, member_id))
        self._timer.cancel(_sync_key(group_id, member_id))


def _member_with_id(group: ConsumerGroup, instance_id: str, member_id: str) -> ConsumerGroupMember:
    """A static member. KafkaError: UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID."""
    holder = group.static_member(instance_id)
    if holder is None:
        raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID, f"Instance id {instance_id} is unknown.")
    if holder.member_id != member_id:
        raise KafkaError(ErrorCode.FENCED_INSTANCE_ID)
    return holder


def _is_common(group: ConsumerGroup, names: frozenset[str]) -> bool:
    """Whether the classic members of the group and the newcomer have a protocol in common."""
    common = set(names)
    for member in group.members.values():
        if member.classic is not None:
            common &= {name for name, _ in member.classic.protocols}
    return bool(common)


def _updated(
    client: ClientInfo,
    request: JoinGroupRequest,
    subscription: ConsumerProtocolSubscription,
    member: ConsumerGroupMember,
    protocols: Protocols,
) -> ConsumerGroupMember:
    """The member as the request tells it."""
    timeout_ms = request.rebalance_timeout_ms
    return replace(
        member,
        instance_id=member.instance_id
        if request.group_instance_id is None
        else request.group_instance_id,
        rack_id=subscription.rack_id if subscription.rack_id is not None else member.rack_id,
        rebalance_timeout_ms=request.session_timeout_ms if timeout_ms < 0 else timeout_ms,
        subscribed_topic_names=frozenset(subscription.topics),
        subscribed_topic_regex="",
        client_id=client.client_id,
        client_host=client.client_host,
        classic=ClassicMetadata(request.session_timeout_ms, protocols),
    )


def _joined(member: ConsumerGroupMember) -> JoinGroupResponse:
    assert member.classic is not None
    return JoinGroupResponse(
        generation_id=member.member_epoch,
        protocol_type=CONSUMER_PROTOCOL_TYPE,
        protocol_name=member.classic.protocols[0][0],
        member_id=member.member_id,
    )


def _answered(
    result: CoordinatorResult[None], answer: JoinDeferred, response: JoinGroupResponse
) -> CoordinatorResult[None]:
    """The same step, the JoinGroup answered when it is committed."""
    before = result.on_done

    def on_done(error: KafkaError | None) -> CoordinatorResult[None] | None:
        further = before(error) if before is not None else None
        if error is None:
            answer.complete(response)
        return further

    return result._replace(on_done=on_done)


def _join_key(group_id: str, member_id: str) -> tuple[str, str, str]:
    return ("mixed-join", group_id, member_id)


def _sync_key(group_id: str, member_id: str) -> tuple[str, str, str]:
    return ("mixed-sync", group_id, member_id)
