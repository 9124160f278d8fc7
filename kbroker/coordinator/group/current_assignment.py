"""One step of a member towards its target assignment.

A member first gives up what it must (it stays at its epoch until it no longer reports those
partitions), then takes the target's epoch and those of its new partitions that nobody else owns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from kbroker.coordinator.group.assignor.assignor import Partitions
from kbroker.coordinator.group.consumer_member import (
    AssignedPartitions,
    ConsumerGroupMember,
    MemberState,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

Owned = Sequence[tuple[bytes, Sequence[int]]]
"""What a member reports to own: (topic id, partitions)."""


class Reconciliation:
    """The inputs of one step; ``next_member`` makes it."""

    def __init__(
        self,
        member: ConsumerGroupMember,
        *,
        target_epoch: int,
        target: Partitions,
        subscribed_topic_ids: frozenset[bytes],
        has_subscription_changed: bool,
        is_owned: Callable[[bytes, int], bool],
        owned: Owned | None,
    ) -> None:
        self._member = member
        self._target_epoch = target_epoch
        self._target = target
        self._subscribed = subscribed_topic_ids
        self._has_subscription_changed = has_subscription_changed
        self._is_owned = is_owned
        self._owned = owned

    def next_member(self) -> ConsumerGroupMember:
        """The member after the step; the same one when it cannot move."""
        member = self._member
        if member.state is MemberState.STABLE:
            if member.member_epoch != self._target_epoch:
                return self._towards_target(member.member_epoch)
            return self._consistent() if self._has_subscription_changed else member
        if member.state is MemberState.UNREVOKED_PARTITIONS:
            if self._reports(member.pending_revocation):
                return self._consistent() if self._has_subscription_changed else member
            return self._towards_target(member.member_epoch)
        if member.state is MemberState.UNRELEASED_PARTITIONS:
            return self._towards_target(member.member_epoch)
        # A state of a later release: begin anew, with nothing.
        if self._owned is None or self._owned:
            raise KafkaError(
                ErrorCode.FENCED_MEMBER_EPOCH,
                "The consumer group member is in a unknown state. "
                "The member must abandon all its partitions and rejoin.",
            )
        return self._towards_target(self._target_epoch)

    def _reports(self, partitions: AssignedPartitions) -> bool:
        """Whether the member still owns one of them; it is believed to when it does not say."""
        if self._owned is None:
            return True
        return any(
            partition in partitions.get(topic_id, ())
            for topic_id, reported in self._owned
            for partition in reported
        )

    def _consistent(self) -> ConsumerGroupMember:
        """Take away topics that the member does not subscribe to any more, without delay."""
        member = self._member
        dropped = {t: p for t, p in member.assigned.items() if t not in self._subscribed}
        if not dropped:
            return member
        assigned = {t: p for t, p in member.assigned.items() if t in self._subscribed}
        pending = {t: dict(p) for t, p in member.pending_revocation.items()}
        for topic_id, partitions in dropped.items():
            pending.setdefault(topic_id, {}).update(partitions)
        moved = replace(member.with_epoch(member.member_epoch), assigned=assigned)
        if self._reports(pending):
            return replace(
                moved, state=MemberState.UNREVOKED_PARTITIONS, pending_revocation=pending
            )
        return moved

    def _towards_target(self, epoch: int) -> ConsumerGroupMember:
        member = self._member
        kept: dict[bytes, dict[int, int]] = {}
        revoked: dict[bytes, dict[int, int]] = {}
        free: dict[bytes, list[int]] = {}
        waits_for_others = False
        for topic_id in {*self._target, *member.assigned}:
            current = member.assigned.get(topic_id, {})
            wanted = self._target.get(topic_id, frozenset())
            if topic_id not in self._subscribed:
                wanted = frozenset()
            stays = {p: e for p, e in current.items() if p in wanted}
            goes = {p: e for p, e in current.items() if p not in wanted}
            own_pending = member.pending_revocation.get(topic_id, {})
            takes: list[int] = []
            for partition in sorted(wanted - stays.keys()):
                if self._is_owned(topic_id, partition) and partition not in own_pending:
                    waits_for_others = True
                else:
                    takes.append(partition)
            if stays:
                kept[topic_id] = stays
            if goes:
                revoked[topic_id] = goes
            if takes:
                free[topic_id] = takes
        if revoked and self._reports(revoked):
            return replace(
                member.with_epoch(epoch),
                state=MemberState.UNREVOKED_PARTITIONS,
                assigned=kept,
                pending_revocation=revoked,
            )
        for topic_id, partitions in free.items():
            kept.setdefault(topic_id, {}).update(dict.fromkeys(partitions, self._target_epoch))
        return replace(
            member.with_epoch(self._target_epoch),
            state=MemberState.UNRELEASED_PARTITIONS if waits_for_others else MemberState.STABLE,
            assigned=kept,
            pending_revocation={},
        )


def owns_only(owned: Owned | None, assigned: Mapping[bytes, Mapping[int, int]]) -> bool:
    """Whether all that a member reports is assigned to it; False when it reports nothing at all."""
    if owned is None:
        return False
    return all(
        partition in assigned.get(topic_id, ())
        for topic_id, reported in owned
        for partition in reported
    )
