"""The requests of the classic group protocol against classic groups.

What each refuses and in which order follows Kafka's GroupMetadataManager; what a rebalance is, is
in ``classic_groups``. A step gets the Deferred that the request's answer goes to, as it may be
given long after the step.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from kbroker.common.entropy import Entropy
from kbroker.config.broker_config import ConfigHolder
from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.group.classic_group import (
    ClassicGroup,
    ClassicGroupMember,
    Protocols,
    join_error,
)
from kbroker.coordinator.group.classic_groups import (
    COMPLETING_REBALANCE,
    DEAD,
    EMPTY,
    NOTHING,
    PREPARING_REBALANCE,
    STABLE,
    ClassicGroups,
)
from kbroker.coordinator.group.group_records import group_metadata_record
from kbroker.coordinator.group.write_errors import write_error_to_response_error
from kbroker.coordinator.result import CoordinatorResult
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.heartbeat_request import HeartbeatRequest
from kbroker.protocol.messages.heartbeat_response import HeartbeatResponse
from kbroker.protocol.messages.join_group_request import JoinGroupRequest
from kbroker.protocol.messages.join_group_response import JoinGroupResponse
from kbroker.protocol.messages.leave_group_request import LeaveGroupRequest, MemberIdentity
from kbroker.protocol.messages.leave_group_response import LeaveGroupResponse, MemberResponse
from kbroker.protocol.messages.sync_group_request import SyncGroupRequest
from kbroker.protocol.messages.sync_group_response import SyncGroupResponse

JoinDeferred = Deferred[JoinGroupResponse]
SyncDeferred = Deferred[SyncGroupResponse]

UNKNOWN_MEMBER_ID = ""
"""What a member calls itself before it knows its id."""

_MEMBER_ID_REQUIRED_FROM = 4
_SKIP_ASSIGNMENT_FROM = 9


@dataclass(slots=True, frozen=True)
class ClientInfo:
    """Who sends a request."""

    client_id: str
    client_host: str
    """As Java prints an address: a slash before it."""
    version: int
    """The request's version."""


@dataclass(slots=True)
class _Joining:
    """One JoinGroup on its way."""

    client: ClientInfo
    request: JoinGroupRequest
    protocols: Protocols
    answer: JoinDeferred

    def refuse(self, error: ErrorCode, member_id: str) -> CoordinatorResult[None]:
        """Answer with an error."""
        self.answer.complete(join_error(error, member_id))
        return NOTHING

    @property
    def reason(self) -> str:
        """The client's own words (KIP-800)."""
        return self.request.reason or "not provided"


class ClassicProtocol:
    """JoinGroup, SyncGroup, Heartbeat and LeaveGroup on the classic groups of one shard."""

    def __init__(
        self,
        *,
        groups: ClassicGroups,
        config: ConfigHolder,
        entropy: Entropy,
        log: logging.Logger,
    ) -> None:
        self._groups = groups
        self._config = config
        self._entropy = entropy
        self._log = log

    # -- JoinGroup

    def join(
        self,
        client: ClientInfo,
        request: JoinGroupRequest,
        group: ClassicGroup,
        answer: JoinDeferred,
    ) -> CoordinatorResult[None]:
        """A member joins ``group``, which was made for it if it is the first."""
        protocols = tuple((protocol.name, protocol.metadata) for protocol in request.protocols)
        joining = _Joining(client, request, protocols, answer)
        member_id = request.member_id
        if not self._has_room_for(group, member_id):
            group.remove(member_id)
            return joining.refuse(ErrorCode.GROUP_MAX_SIZE_REACHED, UNKNOWN_MEMBER_ID)
        if group.state is DEAD:
            return joining.refuse(ErrorCode.COORDINATOR_NOT_AVAILABLE, member_id)
        names = [name for name, _ in protocols]
        if not group.supports_protocols(request.protocol_type, names):
            return joining.refuse(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, member_id)
        if member_id == UNKNOWN_MEMBER_ID:
            return self._join_new_member(group, joining)
        return self._join_known_member(group, joining)

    def _has_room_for(self, group: ClassicGroup, member_id: str) -> bool:
        """Members that are in stay in; among those who join at once the first ones get in."""
        limit = self._config.current.group_max_size
        if group.state is PREPARING_REBALANCE:
            member = group.members.get(member_id)
            is_awaiting = member is not None and member.awaiting_join is not None
            return is_awaiting or group.awaiting_join_count < limit
        if group.is_in(COMPLETING_REBALANCE, STABLE):
            return member_id in group.members or len(group.members) < limit
        return True

    def _join_new_member(self, group: ClassicGroup, joining: _Joining) -> CoordinatorResult[None]:
        request = joining.request
        instance_id = request.group_instance_id
        prefix = joining.client.client_id if instance_id is None else instance_id
        member_id = f"{prefix}-{self._entropy.uuid_text()}"
        if instance_id is not None:
            known = group.static_members.get(instance_id)
            if known is not None:
                return self._replace_static_member(group, joining, known, member_id)
            return self._add_member(group, joining, member_id)
        if joining.client.version < _MEMBER_ID_REQUIRED_FROM:
            return self._add_member(group, joining, member_id)
        # KIP-394: whoever comes back with the id is really there.
        group.pending_join_members.add(member_id)
        self._groups.schedule_pending_member(group, member_id, request.session_timeout_ms)
        return joining.refuse(ErrorCode.MEMBER_ID_REQUIRED, member_id)

    def _add_member(
        self, group: ClassicGroup, joining: _Joining, member_id: str
    ) -> CoordinatorResult[None]:
        request = joining.request
        member = ClassicGroupMember(
            member_id=member_id,
            group_instance_id=request.group_instance_id,
            client_id=joining.client.client_id,
            client_host=joining.client.client_host,
            rebalance_timeout_ms=_rebalance_timeout_ms(request),
            session_timeout_ms=request.session_timeout_ms,
            protocol_type=request.protocol_type,
            protocols=joining.protocols,
        )
        self._groups.add_member(group, member, joining.answer)
        return self._groups.prepare_rebalance_or_complete_join(
            group, f"member {member_id!r} joins; its reason: {joining.reason!r}"
        )

    def _join_known_member(self, group: ClassicGroup, joining: _Joining) -> CoordinatorResult[None]:
        request = joining.request
        member_id = request.member_id
        if member_id in group.pending_join_members:
            if request.group_instance_id is not None:
                # A pending member is dynamic; Kafka fails here with an internal error.
                return joining.refuse(ErrorCode.UNKNOWN_SERVER_ERROR, UNKNOWN_MEMBER_ID)
            return self._add_member(group, joining, member_id)
        try:
            group.validate_member(member_id, request.group_instance_id)
        except KafkaError as error:
            return joining.refuse(error.error_code, member_id)
        member = group.members[member_id]
        if group.state is EMPTY:
            return joining.refuse(ErrorCode.UNKNOWN_MEMBER_ID, member_id)
        unchanged = member.protocols == joining.protocols
        if group.state is COMPLETING_REBALANCE and unchanged:
            # It has missed the answer of this very generation.
            joining.answer.complete(self._groups.join_response(group, member))
            return NOTHING
        if group.state is STABLE and unchanged and group.leader_id != member_id:
            joining.answer.complete(self._groups.join_response(group, member))
            return NOTHING
        # The leader may always ask for a rebalance: it knows of new partitions.
        self._update_member(group, member, joining)
        return self._groups.prepare_rebalance_or_complete_join(
            group,
            f"member {member_id!r} joins again in {group.state.value}; "
            f"its reason: {joining.reason!r}",
        )

    @staticmethod
    def _update_member(group: ClassicGroup, member: ClassicGroupMember, joining: _Joining) -> None:
        group.update_member(
            member,
            joining.protocols,
            _rebalance_timeout_ms(joining.request),
            joining.request.session_timeout_ms,
            joining.answer,
        )

    # -- static members (KIP-345, KIP-814)

    def _replace_static_member(
        self, group: ClassicGroup, joining: _Joining, old_member_id: str, new_member_id: str
    ) -> CoordinatorResult[None]:
        """A static member has restarted: it takes its old place under a new member id."""
        instance_id = joining.request.group_instance_id
        assert instance_id is not None
        old_leader = group.leader_id
        self._groups.cancel_heartbeat(group, old_member_id)
        member = group.replace_static_member(instance_id, old_member_id, new_member_id)
        self._groups.schedule_heartbeat(group, member)
        before = (member.protocols, member.rebalance_timeout_ms, member.session_timeout_ms)
        self._update_member(group, member, joining)
        reason = f"static member {instance_id!r} joins again; its reason: {joining.reason!r}"
        if group.state is STABLE:
            if group.select_protocol() != group.protocol_name:
                return self._groups.prepare_rebalance_or_complete_join(group, reason)

            def undo() -> None:
                group.update_member(member, *before, None)
                old = group.replace_static_member(instance_id, new_member_id, old_member_id)
                self._groups.cancel_heartbeat(group, new_member_id)
                self._groups.schedule_heartbeat(group, old)

            return self._store_static_member(group, member, joining, old_leader, undo)
        if group.state is COMPLETING_REBALANCE:
            # The leader may be assigning to the old member id just now.
            return self._groups.prepare_rebalance(group, reason)
        return self._groups.maybe_complete_join_phase(group)

    def _store_static_member(
        self,
        group: ClassicGroup,
        member: ClassicGroupMember,
        joining: _Joining,
        old_leader: str | None,
        undo: Callable[[], None],
    ) -> CoordinatorResult[None]:
        """Write the new member id; the generation and its assignment stay."""

        def on_done(error: KafkaError | None) -> None:
            if error is not None:
                code = write_error_to_response_error(error.error_code)
                self._log.warning(
                    "group %r: cannot write static member %r: %s",
                    group.group_id,
                    member.member_id,
                    error,
                )
                response = self._groups.join_response(group, member, leader=old_leader or "")
                response.error_code = code
                response.member_id = UNKNOWN_MEMBER_ID
                joining.answer.complete(response)
                undo()
            elif joining.client.version >= _SKIP_ASSIGNMENT_FROM:
                response = self._groups.join_response(group, member, skip_assignment=True)
                group.complete_join(member, response)
            else:
                # An old client that is told of itself as leader would assign; it is told of its
                # former self.
                response = self._groups.join_response(group, member, leader=old_leader or "")
                group.complete_join(member, response)

        return CoordinatorResult(
            [group_metadata_record(group)], None, replay=False, on_done=on_done
        )

    # -- SyncGroup

    def sync(
        self, request: SyncGroupRequest, group: ClassicGroup, answer: SyncDeferred
    ) -> CoordinatorResult[None]:
        """A member asks for its assignment; the leader brings all of them."""
        error = self._sync_error(request, group)
        if error is not ErrorCode.NONE:
            answer.complete(SyncGroupResponse(error_code=error))
            return NOTHING
        member = group.members[request.member_id]
        if group.state is STABLE:
            self._groups.remove_pending_sync(group, member.member_id)
            answer.complete(
                SyncGroupResponse(
                    protocol_type=group.protocol_type,
                    protocol_name=group.protocol_name,
                    assignment=member.assignment,
                )
            )
            return NOTHING
        group.set_awaiting_sync(member, answer)
        self._groups.remove_pending_sync(group, member.member_id)
        if group.leader_id != member.member_id:
            return NOTHING
        self._log.info(
            "group %r: the leader has assigned generation %d", group.group_id, group.generation_id
        )
        assignment = {entry.member_id: entry.assignment for entry in request.assignments}
        return self._groups.store_assignment(group, assignment)

    @staticmethod
    def _sync_error(request: SyncGroupRequest, group: ClassicGroup) -> ErrorCode:
        if group.state is DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        try:
            group.validate_member(request.member_id, request.group_instance_id)
        except KafkaError as error:
            return error.error_code
        if request.generation_id != group.generation_id:
            return ErrorCode.ILLEGAL_GENERATION
        if _differs(request.protocol_type, group.protocol_type) or _differs(
            request.protocol_name, group.protocol_name
        ):
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if group.state is PREPARING_REBALANCE:
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    # -- Heartbeat

    def heartbeat(self, request: HeartbeatRequest, group: ClassicGroup) -> HeartbeatResponse:
        """A member is alive. Raises KafkaError for one that does not belong to the generation."""
        if group.state is DEAD:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        group.validate_member(request.member_id, request.group_instance_id)
        if request.generation_id != group.generation_id:
            raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
        if group.state is EMPTY:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        self._groups.schedule_heartbeat(group, group.members[request.member_id])
        if group.state is PREPARING_REBALANCE:
            return HeartbeatResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS)
        return HeartbeatResponse()

    # -- LeaveGroup

    def leave(
        self, request: LeaveGroupRequest, group: ClassicGroup
    ) -> CoordinatorResult[LeaveGroupResponse]:
        """Members leave, or an administrator removes static ones by their instance id."""
        if group.state is DEAD:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        responses = [
            MemberResponse(
                member_id=identity.member_id,
                group_instance_id=identity.group_instance_id,
                error_code=self._leave_one(group, identity),
            )
            for identity in request.members
        ]
        step = NOTHING
        if any(response.error_code == ErrorCode.NONE for response in responses):
            if group.is_in(STABLE, COMPLETING_REBALANCE):
                step = self._groups.prepare_rebalance_or_complete_join(group, "members leave")
            elif group.state is PREPARING_REBALANCE:
                step = self._groups.maybe_complete_join_phase(group)
        return CoordinatorResult(
            step.records,
            LeaveGroupResponse(members=responses),
            replay=step.replay,
            on_done=step.on_done,
        )

    def _leave_one(self, group: ClassicGroup, identity: MemberIdentity) -> ErrorCode:
        member_id = identity.member_id
        instance_id = identity.group_instance_id
        if member_id == UNKNOWN_MEMBER_ID:
            known = group.static_members.get(instance_id) if instance_id is not None else None
            if known is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            member_id = known
        elif member_id in group.pending_join_members:
            group.remove(member_id)
            self._groups.cancel_heartbeat(group, member_id)
            return ErrorCode.NONE
        else:
            try:
                group.validate_member(member_id, instance_id)
            except KafkaError as error:
                return error.error_code
        self._log.info(
            "group %r: member %r leaves: %r",
            group.group_id,
            member_id,
            identity.reason or "not provided",
        )
        self._groups.leave(group, member_id)
        return ErrorCode.NONE


def _rebalance_timeout_ms(request: JoinGroupRequest) -> int:
    """Version 0 has none: the session timeout stands for it."""
    timeout_ms = request.rebalance_timeout_ms
    return request.session_timeout_ms if timeout_ms < 0 else timeout_ms


def _differs(given: str | None, own: str | None) -> bool:
    """KIP-559: what is not given, or not known, differs from nothing."""
    return given is not None and own is not None and given != own
