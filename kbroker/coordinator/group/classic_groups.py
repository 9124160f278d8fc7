"""The classic group protocol: JoinGroup, SyncGroup, Heartbeat, LeaveGroup and their timers.

Most of a classic group's state is never written: only the outcome of a rebalance is. So its steps
change the group themselves (``replay=False``) and undo what a failed write must undo.

State machine: Empty -> PreparingRebalance (members are joining) -> CompletingRebalance (the leader
assigns) -> Stable, and back to PreparingRebalance whenever a member comes, goes or changes.
"""

import logging
from collections.abc import Callable

from kbroker.common.clock import Clock
from kbroker.config.broker_config import ConfigHolder
from kbroker.coordinator.coordinator_timer import CoordinatorTimer
from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.group.classic_group import (
    ClassicGroup,
    ClassicGroupMember,
    ClassicGroupState,
    join_error,
)
from kbroker.coordinator.group.consumer_subscription import (
    AbsurdSubscription,
    UnreadableSubscription,
    subscribed_topics,
)
from kbroker.coordinator.group.group_records import group_metadata_record
from kbroker.coordinator.group.write_errors import write_error_to_response_error
from kbroker.coordinator.result import CoordinatorResult
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.join_group_response import (
    JoinGroupResponse,
    JoinGroupResponseMember,
)
from kbroker.protocol.messages.sync_group_response import SyncGroupResponse

EMPTY = ClassicGroupState.EMPTY
PREPARING_REBALANCE = ClassicGroupState.PREPARING_REBALANCE
COMPLETING_REBALANCE = ClassicGroupState.COMPLETING_REBALANCE
STABLE = ClassicGroupState.STABLE
DEAD = ClassicGroupState.DEAD

NEW_MEMBER_JOIN_TIMEOUT_S = 300.0
"""How long a new member may wait in JoinGroup: it cannot heartbeat, and may be gone."""

NOTHING: CoordinatorResult[None] = CoordinatorResult((), None)


def heartbeat_key(group_id: str, member_id: str) -> tuple[str, str, str]:
    """Name of a member's session timer."""
    return ("heartbeat", group_id, member_id)


def join_key(group_id: str) -> tuple[str, str]:
    """Name of the timer that ends the joining phase."""
    return ("join", group_id)


def sync_key(group_id: str) -> tuple[str, str]:
    """Name of the timer that ends the wait for SyncGroup."""
    return ("sync", group_id)


class ClassicGroups:
    """What rebalances the classic groups of one shard and times their members out."""

    def __init__(
        self,
        *,
        config: ConfigHolder,
        clock: Clock,
        timer: CoordinatorTimer,
        find: Callable[[str], ClassicGroup | None],
        log: logging.Logger,
    ) -> None:
        self._config = config
        self._clock = clock
        self._timer = timer
        self._find = find
        self._log = log

    # -- load and unload

    def on_loaded(self, group: ClassicGroup) -> None:
        """Start the session timers of a group that came from the log."""
        for member in group.members.values():
            self.schedule_heartbeat(group, member)
        if len(group.members) > self._config.current.group_max_size:
            self.prepare_rebalance(group, "it is loaded and over group.max.size")

    def on_unloaded(self, group: ClassicGroup) -> None:
        """Another broker coordinates the group: send everybody who waits there."""
        group.transition_to(DEAD, self._clock.time_ms())
        for member in list(group.members.values()):
            group.complete_join(member, join_error(ErrorCode.NOT_COORDINATOR, member.member_id))
            group.complete_sync(member, SyncGroupResponse(error_code=ErrorCode.NOT_COORDINATOR))

    def forget_timers(self, group: ClassicGroup) -> None:
        """The group is deleted."""
        self._timer.cancel(join_key(group.group_id))
        self._timer.cancel(sync_key(group.group_id))
        for member_id in (*group.members, *group.pending_join_members):
            self._timer.cancel(heartbeat_key(group.group_id, member_id))

    # -- sessions

    def schedule_heartbeat(
        self, group: ClassicGroup, member: ClassicGroupMember, timeout_s: float | None = None
    ) -> None:
        """Expect the next sign of life within the session timeout from now."""
        if timeout_s is None:
            timeout_s = member.session_timeout_ms / 1000
        key = heartbeat_key(group.group_id, member.member_id)
        if not self._timer.push_back(key, timeout_s):
            group_id, member_id = group.group_id, member.member_id
            self._timer.schedule(key, timeout_s, lambda: self.expire_heartbeat(group_id, member_id))

    def schedule_pending_member(
        self, group: ClassicGroup, member_id: str, session_timeout_ms: int
    ) -> None:
        """Expect a member that was told its id to come back with it."""
        group_id = group.group_id
        self._timer.schedule(
            heartbeat_key(group_id, member_id),
            session_timeout_ms / 1000,
            lambda: self.expire_heartbeat(group_id, member_id),
        )

    def cancel_heartbeat(self, group: ClassicGroup, member_id: str) -> None:
        """The member is not there any more."""
        self._timer.cancel(heartbeat_key(group.group_id, member_id))

    def expire_heartbeat(self, group_id: str, member_id: str) -> CoordinatorResult[None] | None:
        """A session timer ran out: remove the member, unless a request of its waits here."""
        group = self._find(group_id)
        if group is None or group.state is DEAD:
            return None
        if member_id in group.pending_join_members:
            self._log.info("group %r: pending member %r did not come back", group_id, member_id)
            group.remove(member_id)
            if group.state is PREPARING_REBALANCE and group.has_all_members_joined:
                return self.complete_join_phase(group)
            return None
        member = group.members.get(member_id)
        if member is None or member.has_satisfied_heartbeat:
            return None
        self._log.info("group %r: session of member %r timed out", group_id, member_id)
        return self.remove_member(group, member, "a session timed out")

    def remove_member(
        self, group: ClassicGroup, member: ClassicGroupMember, reason: str
    ) -> CoordinatorResult[None]:
        """Remove a member that failed and let the others rebalance."""
        group.complete_join(member, join_error(ErrorCode.UNKNOWN_MEMBER_ID, ""))
        self._drop(group, member)
        if group.is_in(STABLE, COMPLETING_REBALANCE):
            return self.prepare_rebalance_or_complete_join(group, reason)
        if group.state is PREPARING_REBALANCE and group.has_all_members_joined:
            return self.complete_join_phase(group)
        return NOTHING

    def _drop(self, group: ClassicGroup, member: ClassicGroupMember) -> None:
        """Take a member out; a SyncGroup of its that waits is told so."""
        group.remove(member.member_id)
        group.complete_sync(member, SyncGroupResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID))
        self.cancel_heartbeat(group, member.member_id)

    def leave(self, group: ClassicGroup, member_id: str) -> None:
        """Remove a member that says goodbye; the caller rebalances once for all who do."""
        member = group.members[member_id]
        group.complete_join(member, join_error(ErrorCode.UNKNOWN_MEMBER_ID, ""))
        self._drop(group, member)

    # -- the joining phase

    def add_member(
        self,
        group: ClassicGroup,
        member: ClassicGroupMember,
        awaiting_join: Deferred[JoinGroupResponse],
    ) -> None:
        """A member joins for the first time and waits for the rebalance."""
        member.is_new = True
        if group.state is PREPARING_REBALANCE and group.previous_state is EMPTY:
            group.new_member_added = True
        group.add(member, awaiting_join)
        self.schedule_heartbeat(group, member, NEW_MEMBER_JOIN_TIMEOUT_S)

    def prepare_rebalance_or_complete_join(
        self, group: ClassicGroup, reason: str
    ) -> CoordinatorResult[None]:
        """Begin a rebalance, or, when one has begun, end its joining phase if all are there."""
        if group.can_rebalance():
            return self.prepare_rebalance(group, reason)
        return self.maybe_complete_join_phase(group)

    def maybe_complete_join_phase(self, group: ClassicGroup) -> CoordinatorResult[None]:
        """End the joining phase when all have joined; the first one always waits its delay."""
        if (
            group.state is PREPARING_REBALANCE
            and group.previous_state is not EMPTY
            and group.has_all_members_joined
        ):
            return self.complete_join_phase(group)
        return NOTHING

    def prepare_rebalance(self, group: ClassicGroup, reason: str) -> CoordinatorResult[None]:
        """Ask all members to join again."""
        if group.state is COMPLETING_REBALANCE:
            self.reset_assignments(group, ErrorCode.REBALANCE_IN_PROGRESS)
        group.pending_sync_members.clear()
        self._timer.cancel(sync_key(group.group_id))
        is_initial = group.state is EMPTY
        group.transition_to(PREPARING_REBALANCE, self._clock.time_ms())
        self._log.info(
            "group %r: rebalance after generation %d: %s",
            group.group_id,
            group.generation_id,
            reason,
        )
        if is_initial:
            delay_ms = self._config.current.group_initial_rebalance_delay_ms
            remaining_ms = max(group.rebalance_timeout_ms - delay_ms, 0)
            self._schedule_initial_rebalance(group.group_id, delay_ms, remaining_ms)
            return NOTHING
        if group.has_all_members_joined:
            return self.complete_join_phase(group)
        self._schedule_join_phase_end(group)
        return NOTHING

    def _schedule_join_phase_end(self, group: ClassicGroup) -> None:
        group_id = group.group_id
        self._timer.schedule(
            join_key(group_id),
            group.rebalance_timeout_ms / 1000,
            lambda: self._on_join_phase_end(group_id),
        )

    def _on_join_phase_end(self, group_id: str) -> CoordinatorResult[None] | None:
        group = self._find(group_id)
        return None if group is None else self.complete_join_phase(group)

    def _schedule_initial_rebalance(self, group_id: str, delay_ms: int, remaining_ms: int) -> None:
        """A first rebalance waits a little, as most of the members come at about one time."""

        def on_end() -> CoordinatorResult[None] | None:
            group = self._find(group_id)
            if group is None:
                return None
            if not group.new_member_added or remaining_ms == 0:
                return self.complete_join_phase(group)
            group.new_member_added = False
            next_ms = min(self._config.current.group_initial_rebalance_delay_ms, remaining_ms)
            left_ms = max(remaining_ms - delay_ms, 0)
            self._schedule_initial_rebalance(group_id, next_ms, left_ms)
            return None

        self._timer.schedule(join_key(group_id), delay_ms / 1000, on_end)

    def complete_join_phase(self, group: ClassicGroup) -> CoordinatorResult[None]:
        """Begin the next generation with those who have joined (and static members).

        Answers their JoinGroup requests. A group that nobody joined is empty from now on, which
        is written; when only static members are left that did not join, the phase goes on.
        """
        self._timer.cancel(join_key(group.group_id))
        if group.state is not PREPARING_REBALANCE:
            return NOTHING
        for member in group.not_yet_rejoined():
            if not member.is_static:
                self._log.info("group %r: member %r did not join", group.group_id, member.member_id)
                self._drop(group, member)
        if not group.maybe_elect_joined_leader() and group.members:
            self._schedule_join_phase_end(group)
            return NOTHING
        self._remove_absurd_subscriptions(group)
        group.init_next_generation(self._clock.time_ms())
        group.new_member_added = False
        if group.state is EMPTY:
            self._log.info("group %r is empty", group.group_id)
            return CoordinatorResult(
                [group_metadata_record(group)], None, replay=False, on_done=self._warn(group)
            )
        self._log.info(
            "group %r: generation %d has %d members",
            group.group_id,
            group.generation_id,
            len(group.members),
        )
        self._answer_joins(group)
        return NOTHING

    def _warn(
        self, group: ClassicGroup
    ) -> Callable[[KafkaError | None], CoordinatorResult[None] | None]:
        """An emptied group that is not written comes back after a fail-over and times out."""

        def on_done(error: KafkaError | None) -> None:
            if error is not None:
                self._log.warning(
                    "group %r: cannot write that it is empty: %s", group.group_id, error
                )

        return on_done

    def _answer_joins(self, group: ClassicGroup) -> None:
        for member in list(group.members.values()):
            group.complete_join(member, self.join_response(group, member))
            self.schedule_heartbeat(group, member)
            member.is_new = False
            group.pending_sync_members.add(member.member_id)
        group_id, generation_id = group.group_id, group.generation_id
        self._timer.schedule(
            sync_key(group_id),
            group.rebalance_timeout_ms / 1000,
            lambda: self._expire_pending_sync(group_id, generation_id),
        )

    def _remove_absurd_subscriptions(self, group: ClassicGroup) -> None:
        """Learn the members' topics; who claims nonsense for the selected protocol must go."""
        group.subscribed_topics = None
        if not group.uses_consumer_protocol:
            return
        while group.members:
            name = group.select_protocol()
            topics: set[str] = set()
            readable = True
            absurd: list[ClassicGroupMember] = []
            for member in group.members.values():
                try:
                    topics.update(subscribed_topics(member.metadata(name)))
                except UnreadableSubscription:
                    readable = False
                except AbsurdSubscription as error:
                    self._log.warning(
                        "group %r: member %r: %s", group.group_id, member.member_id, error
                    )
                    absurd.append(member)
            if not absurd:
                group.subscribed_topics = frozenset(topics) if readable else None
                return
            for member in absurd:
                group.complete_join(
                    member,
                    join_error(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, member.member_id),
                )
                self._drop(group, member)

    def join_response(
        self,
        group: ClassicGroup,
        member: ClassicGroupMember,
        *,
        leader: str | None = None,
        skip_assignment: bool = False,
    ) -> JoinGroupResponse:
        """The current generation as this member sees it: the leader gets all members."""
        is_leader = group.leader_id == member.member_id
        show_members = is_leader and leader is None
        return JoinGroupResponse(
            error_code=ErrorCode.NONE,
            generation_id=group.generation_id,
            protocol_type=group.protocol_type,
            protocol_name=group.protocol_name,
            leader=(group.leader_id or "") if leader is None else leader,
            skip_assignment=skip_assignment and is_leader,
            member_id=member.member_id,
            members=self._listed_members(group) if show_members else [],
        )

    @staticmethod
    def _listed_members(group: ClassicGroup) -> list[JoinGroupResponseMember]:
        name = group.protocol_name
        assert name is not None
        return [
            JoinGroupResponseMember(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                metadata=member.metadata(name),
            )
            for member in group.members.values()
        ]

    # -- the syncing phase

    def remove_pending_sync(self, group: ClassicGroup, member_id: str) -> None:
        """The member has asked for its assignment; the wait ends with the last one."""
        group.pending_sync_members.discard(member_id)
        if not group.pending_sync_members:
            self._timer.cancel(sync_key(group.group_id))

    def _expire_pending_sync(
        self, group_id: str, generation_id: int
    ) -> CoordinatorResult[None] | None:
        """Members that joined but never asked for their assignment hold up nobody any longer."""
        group = self._find(group_id)
        if (
            group is None
            or group.generation_id != generation_id
            or not group.is_in(COMPLETING_REBALANCE, STABLE)
            or not group.pending_sync_members
        ):
            return None
        missing = sorted(group.pending_sync_members)
        for member_id in missing:
            member = group.members.get(member_id)
            if member is not None:  # a static one may have come back under another id
                self._drop(group, member)
        return self.prepare_rebalance(group, f"no SyncGroup came from {missing}")

    def store_assignment(
        self, group: ClassicGroup, assignment: dict[str, bytes]
    ) -> CoordinatorResult[None]:
        """Write what the leader has assigned; all members get their part when it is committed."""
        for member_id in group.members:
            assignment.setdefault(member_id, b"")
        generation_id = group.generation_id

        def on_done(error: KafkaError | None) -> CoordinatorResult[None] | None:
            # Meanwhile another member may have joined; then this generation is over.
            if group.state is not COMPLETING_REBALANCE or group.generation_id != generation_id:
                return None
            if error is not None:
                code = write_error_to_response_error(error.error_code)
                self.reset_assignments(group, code)
                return self.prepare_rebalance_or_complete_join(
                    group, f"the assignment cannot be written: {code.name}"
                )
            for member in group.members.values():
                member.assignment = assignment.get(member.member_id, b"")
            self._propagate_assignment(group, ErrorCode.NONE)
            group.transition_to(STABLE, self._clock.time_ms())
            return None

        return CoordinatorResult(
            [group_metadata_record(group, assignment)], None, replay=False, on_done=on_done
        )

    def reset_assignments(self, group: ClassicGroup, error: ErrorCode) -> None:
        """Nobody has an assignment any more, and those who wait for one get ``error``."""
        for member in group.members.values():
            member.assignment = b""
        self._propagate_assignment(group, error)

    def _propagate_assignment(self, group: ClassicGroup, error: ErrorCode) -> None:
        known = error is ErrorCode.NONE
        for member in list(group.members.values()):
            answered = group.complete_sync(
                member,
                SyncGroupResponse(
                    error_code=error,
                    protocol_type=group.protocol_type if known else None,
                    protocol_name=group.protocol_name if known else None,
                    assignment=member.assignment,
                ),
            )
            if answered:
                # Its session may have run out while it waited; that was forgiven.
                self.schedule_heartbeat(group, member)
