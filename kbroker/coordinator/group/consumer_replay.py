"""Applies the records of groups of KIP-848.

Compaction may show records of one group in another order than they were written in; so every
record makes what it needs, and only tombstones take away.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kbroker.coordinator.group.classic_group import ClassicGroup
from kbroker.coordinator.group.consumer_group import FIRST_EPOCH, ConsumerGroup, ResolvedRegex
from kbroker.coordinator.group.consumer_member import (
    ConsumerGroupMember,
    MemberState,
)
from kbroker.coordinator.group.consumer_records import assigned_from, classic_from, state_from
from kbroker.coordinator.group.group_kinds import Group
from kbroker.protocol.internal_records.consumer_group_current_member_assignment_key import (
    ConsumerGroupCurrentMemberAssignmentKey,
)
from kbroker.protocol.internal_records.consumer_group_member_metadata_key import (
    ConsumerGroupMemberMetadataKey,
)
from kbroker.protocol.internal_records.consumer_group_metadata_key import ConsumerGroupMetadataKey
from kbroker.protocol.internal_records.consumer_group_partition_metadata_key import (
    ConsumerGroupPartitionMetadataKey,
)
from kbroker.protocol.internal_records.consumer_group_regular_expression_key import (
    ConsumerGroupRegularExpressionKey,
)
from kbroker.protocol.internal_records.consumer_group_target_assignment_member_key import (
    ConsumerGroupTargetAssignmentMemberKey,
)
from kbroker.protocol.internal_records.consumer_group_target_assignment_metadata_key import (
    ConsumerGroupTargetAssignmentMetadataKey,
)

Replay = Callable[[Any, Any | None], None]


class ConsumerReplay:
    """Replays into ``groups``; tells ``on_member_gone`` (group id, member id)."""

    def __init__(
        self, groups: dict[str, Group], on_member_gone: Callable[[str, str], None]
    ) -> None:
        self._groups = groups
        self._on_member_gone = on_member_gone
        self.topics_version = -1
        """What a group that is written now has been compared with; -1 while loading."""

    def by_key(self) -> dict[type, Replay]:
        """The function for each type of key."""
        return {
            ConsumerGroupMetadataKey: self._group,
            ConsumerGroupPartitionMetadataKey: self._partition_metadata,
            ConsumerGroupMemberMetadataKey: self._member,
            ConsumerGroupTargetAssignmentMetadataKey: self._target_epoch,
            ConsumerGroupTargetAssignmentMemberKey: self._target,
            ConsumerGroupCurrentMemberAssignmentKey: self._current,
            ConsumerGroupRegularExpressionKey: self._regex,
        }

    def _find(self, group_id: str) -> ConsumerGroup | None:
        group = self._groups.get(group_id)
        return group if isinstance(group, ConsumerGroup) else None

    def _make(self, group_id: str) -> ConsumerGroup:
        group = self._groups.get(group_id)
        if isinstance(group, ConsumerGroup):
            return group
        # A simple group that only its offsets have made may stand here.
        assert group is None or isinstance(group, ClassicGroup)
        made = self._groups[group_id] = ConsumerGroup(group_id)
        return made

    def _member_of(self, group: ConsumerGroup, member_id: str) -> ConsumerGroupMember:
        return group.members.get(member_id) or ConsumerGroupMember(
            member_id=member_id, member_epoch=-1
        )

    def _group(self, key: ConsumerGroupMetadataKey, value: Any | None) -> None:
        if value is None:
            if self._find(key.group_id) is not None:
                del self._groups[key.group_id]
            return
        group = self._make(key.group_id)
        group.group_epoch = value.epoch
        group.metadata_hash = value.metadata_hash
        group.checked_topics_version = self.topics_version

    def _partition_metadata(
        self, key: ConsumerGroupPartitionMetadataKey, value: Any | None
    ) -> None:
        """Written before 4.1, in place of the metadata hash: nothing is learned from it, and the
        group's next epoch takes it away."""
        group = self._find(key.group_id) if value is None else self._make(key.group_id)
        if group is not None:
            group.has_partition_metadata = value is not None

    def _member(self, key: ConsumerGroupMemberMetadataKey, value: Any | None) -> None:
        if value is None:
            group = self._find(key.group_id)
            if group is not None:
                group.remove(key.member_id)
                self._on_member_gone(key.group_id, key.member_id)
            return
        group = self._make(key.group_id)
        group.put(
            replace(
                self._member_of(group, key.member_id),
                instance_id=value.instance_id,
                rack_id=value.rack_id,
                rebalance_timeout_ms=value.rebalance_timeout_ms,
                client_id=value.client_id,
                client_host=value.client_host,
                subscribed_topic_names=frozenset(value.subscribed_topic_names),
                subscribed_topic_regex=value.subscribed_topic_regex or "",
                server_assignor=value.server_assignor,
                classic=classic_from(value),
            )
        )

    def _target_epoch(
        self, key: ConsumerGroupTargetAssignmentMetadataKey, value: Any | None
    ) -> None:
        if value is None:
            group = self._find(key.group_id)
            if group is not None:
                group.assignment_epoch = FIRST_EPOCH
                group.assignment_timestamp_ms = 0
            return
        group = self._make(key.group_id)
        group.assignment_epoch = value.assignment_epoch
        group.assignment_timestamp_ms = value.assignment_timestamp

    def _target(self, key: ConsumerGroupTargetAssignmentMemberKey, value: Any | None) -> None:
        if value is None:
            group = self._find(key.group_id)
            if group is not None:
                group.target.pop(key.member_id, None)
            return
        self._make(key.group_id).target[key.member_id] = {
            topic.topic_id: frozenset(topic.partitions) for topic in value.topic_partitions
        }

    def _current(self, key: ConsumerGroupCurrentMemberAssignmentKey, value: Any | None) -> None:
        if value is None:
            group = self._find(key.group_id)
            member = group.members.get(key.member_id) if group is not None else None
            if group is not None and member is not None:
                group.put(
                    replace(
                        member,
                        member_epoch=-1,
                        previous_member_epoch=-1,
                        state=MemberState.STABLE,
                        assigned={},
                        pending_revocation={},
                    )
                )
            return
        group = self._make(key.group_id)
        group.put(
            replace(
                self._member_of(group, key.member_id),
                member_epoch=value.member_epoch,
                previous_member_epoch=value.previous_member_epoch,
                state=state_from(value.state),
                assigned=assigned_from(value.assigned_partitions, value.member_epoch),
                pending_revocation=assigned_from(
                    value.partitions_pending_revocation, value.member_epoch
                ),
            )
        )

    def _regex(self, key: ConsumerGroupRegularExpressionKey, value: Any | None) -> None:
        if value is None:
            group = self._find(key.group_id)
            if group is not None:
                group.resolved.pop(key.regular_expression, None)
            return
        # Versions of topics mean nothing to another broker: what is loaded is resolved again.
        version = value.version if self.topics_version >= 0 else -1
        self._make(key.group_id).resolved[key.regular_expression] = ResolvedRegex(
            frozenset(value.topics), version, value.timestamp
        )
