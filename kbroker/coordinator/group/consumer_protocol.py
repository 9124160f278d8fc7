"""ConsumerGroupHeartbeat: join, live, leave (KIP-848)."""

import logging
from collections.abc import Callable
from dataclasses import replace

from kbroker.coordinator.group.classic_protocol import ClientInfo
from kbroker.coordinator.group.consumer_group import ConsumerGroup
from kbroker.coordinator.group.consumer_groups import ConsumerGroups, Step
from kbroker.coordinator.group.consumer_member import (
    STATIC_LEAVE_EPOCH,
    ConsumerGroupMember,
    partition_sets,
)
from kbroker.coordinator.group.consumer_records import member_record
from kbroker.coordinator.group.current_assignment import Owned
from kbroker.coordinator.group.regex_subscriptions import RegexSubscriptions
from kbroker.coordinator.result import CoordinatorRecord, CoordinatorResult
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.consumer_group_heartbeat_request import (
    ConsumerGroupHeartbeatRequest,
)
from kbroker.protocol.messages.consumer_group_heartbeat_response import (
    Assignment,
    ConsumerGroupHeartbeatResponse,
    TopicPartitions,
)

FindOrCreate = Callable[[str, bool, list[CoordinatorRecord]], ConsumerGroup]
"""(group id, may it be created, records) -> the group; records of a conversion are added."""


class ConsumerProtocol:
    """Heartbeats of one shard's groups of KIP-848."""

    def __init__(
        self,
        *,
        groups: ConsumerGroups,
        regexes: RegexSubscriptions,
        find_or_create: FindOrCreate,
        existing: Callable[[str], ConsumerGroup],
        log: logging.Logger,
    ) -> None:
        self._groups = groups
        self._regexes = regexes
        self._find_or_create = find_or_create
        self._existing = existing
        self._log = log

    def heartbeat(
        self, client: ClientInfo, request: ConsumerGroupHeartbeatRequest
    ) -> CoordinatorResult[ConsumerGroupHeartbeatResponse]:
        """One heartbeat of a request that is well formed. Raises KafkaError."""
        if request.member_epoch < 0:
            return self._leave(request)
        records: list[CoordinatorRecord] = []
        joins = request.member_epoch == 0
        group = self._find_or_create(request.group_id, joins, records)
        self._groups.check_has_room(group, request.member_id)
        step = Step(group, records)
        owned: Owned | None = None
        if request.topic_partitions is not None:
            owned = [(topic.topic_id, topic.partitions) for topic in request.topic_partitions]
        member, replaced = self._member(step, request, owned)
        updated = self._updated(member, client, request)
        names_changed = updated.subscribed_topic_names != member.subscribed_topic_names
        if not updated.same_subscription(member):
            step.records.append(member_record(group.group_id, updated))
        regex = self._regexes.update(step, member, updated)
        self._groups.update_epoch(
            step,
            old=replaced,
            new=updated,
            bump=names_changed or regex.is_resolved,
        )
        target_epoch, target = self._groups.assign(
            step, updated, None if replaced is None else replaced.member_id
        )
        moved = self._groups.reconcile(
            step,
            updated,
            target_epoch=target_epoch,
            target=target,
            has_subscription_changed=names_changed or regex.has_changed,
            owned=owned,
        )
        self._groups.schedule_session(group.group_id, moved.member_id)
        response = ConsumerGroupHeartbeatResponse(
            member_id=moved.member_id,
            member_epoch=moved.member_epoch,
            heartbeat_interval_ms=self._groups.settings.heartbeat_interval_ms(group.group_id),
        )
        if (
            joins
            or _is_full(request)
            or partition_sets(moved.assigned) != partition_sets(member.assigned)
        ):
            response.assignment = _assignment(moved)
        return CoordinatorResult(step.records, response)

    # -- who it is

    def _member(
        self, step: Step, request: ConsumerGroupHeartbeatRequest, owned: Owned | None
    ) -> tuple[ConsumerGroupMember, ConsumerGroupMember | None]:
        """(the member as it is known, the static member in whose place it comes)."""
        group = step.group
        member_id = request.member_id or self._groups.new_member_id()
        epoch = request.member_epoch
        if request.instance_id is None:
            known = group.members.get(member_id)
            if known is None:
                if epoch != 0:
                    group.member(member_id)  # raises
                self._log.info("group %r: member %r joins", group.group_id, member_id)
                return ConsumerGroupMember(member_id=member_id), None
            if epoch != 0:
                self._groups.check_epoch(known, epoch, owned)
            return known, None
        holder = group.static_member(request.instance_id)
        if epoch != 0:
            known = self._static_member(group, request)
            self._groups.check_epoch(known, epoch, owned)
            return known, None
        if holder is None:
            self._log.info("group %r: static member %r joins", group.group_id, member_id)
            known = group.members.get(member_id)
            return known or ConsumerGroupMember(member_id=member_id), None
        if holder.classic is None and holder.member_epoch != STATIC_LEAVE_EPOCH:
            raise KafkaError(
                ErrorCode.UNRELEASED_INSTANCE_ID,
                f"Static member {member_id} with instance id {request.instance_id} cannot join "
                f"the group because the instance id is owned by {holder.member_id} member.",
            )
        return self._groups.replaced(step, holder, member_id), holder

    @staticmethod
    def _static_member(
        group: ConsumerGroup, request: ConsumerGroupHeartbeatRequest
    ) -> ConsumerGroupMember:
        """KafkaError: UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID."""
        member = group.static_member(request.instance_id)
        if member is None:
            raise KafkaError(
                ErrorCode.UNKNOWN_MEMBER_ID, f"Instance id {request.instance_id} is unknown."
            )
        if member.member_id != request.member_id:
            raise KafkaError(
                ErrorCode.FENCED_INSTANCE_ID,
                f"Static member {request.member_id} with instance id {request.instance_id} "
                f"was fenced by member {member.member_id}.",
            )
        return member

    @staticmethod
    def _updated(
        member: ConsumerGroupMember, client: ClientInfo, request: ConsumerGroupHeartbeatRequest
    ) -> ConsumerGroupMember:
        """The member with what the request tells; null and -1 tell nothing."""
        names = request.subscribed_topic_names
        regex = request.subscribed_topic_regex
        timeout_ms = request.rebalance_timeout_ms
        return replace(
            member,
            instance_id=member.instance_id if request.instance_id is None else request.instance_id,
            rack_id=member.rack_id if request.rack_id is None else request.rack_id,
            rebalance_timeout_ms=member.rebalance_timeout_ms if timeout_ms == -1 else timeout_ms,
            server_assignor=request.server_assignor or member.server_assignor,
            subscribed_topic_names=(
                member.subscribed_topic_names if names is None else frozenset(names)
            ),
            subscribed_topic_regex=member.subscribed_topic_regex if regex is None else regex,
            client_id=client.client_id,
            client_host=client.client_host,
            classic=None,
        )

    # -- leaving

    def _leave(
        self, request: ConsumerGroupHeartbeatRequest
    ) -> CoordinatorResult[ConsumerGroupHeartbeatResponse]:
        group = self._existing(request.group_id)
        if request.instance_id is None:
            member = group.member(request.member_id)
        else:
            member = self._static_member(group, request)
        self._log.info("group %r: member %r leaves", group.group_id, member.member_id)
        if request.member_epoch == STATIC_LEAVE_EPOCH and request.instance_id is not None:
            step = self._groups.leave_for_a_while(group, member)
        else:
            step = self._groups.remove(group, [member])
        response = ConsumerGroupHeartbeatResponse(
            member_id=request.member_id, member_epoch=request.member_epoch
        )
        return CoordinatorResult(step.records, response, replay=step.replay, on_done=step.on_done)


def _is_full(request: ConsumerGroupHeartbeatRequest) -> bool:
    """Whether the member tells everything, as it does after an error: then it is told as much."""
    return (
        request.rebalance_timeout_ms != -1
        and (
            request.subscribed_topic_names is not None or request.subscribed_topic_regex is not None
        )
        and request.topic_partitions is not None
    )


def _assignment(member: ConsumerGroupMember) -> Assignment:
    return Assignment(
        [
            TopicPartitions(topic_id, sorted(partitions))
            for topic_id, partitions in member.assigned.items()
        ]
    )
