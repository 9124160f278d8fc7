"""Applies every record of ``__consumer_offsets`` to the groups and offsets of a shard."""

from collections.abc import Callable
from typing import Any

from kbroker.common.clock import Clock
from kbroker.coordinator.group.classic_group import (
    ClassicGroup,
    ClassicGroupMember,
    ClassicGroupState,
)
from kbroker.coordinator.group.consumer_replay import ConsumerReplay
from kbroker.coordinator.group.consumer_subscription import (
    AbsurdSubscription,
    UnreadableSubscription,
    subscribed_topics,
)
from kbroker.coordinator.group.group_kinds import Group
from kbroker.coordinator.group.offset_manager import OffsetManager
from kbroker.protocol.internal_records.group_metadata_key import GroupMetadataKey
from kbroker.protocol.internal_records.group_metadata_value import GroupMetadataValue
from kbroker.protocol.internal_records.legacy_offset_commit_key import LegacyOffsetCommitKey
from kbroker.protocol.internal_records.offset_commit_key import OffsetCommitKey
from kbroker.protocol.internal_records.offset_commit_value import OffsetCommitValue


class GroupReplay:
    """Replays into ``groups`` and ``offsets``; ``on_classic_gone`` is told of groups taken out."""

    def __init__(
        self,
        *,
        groups: dict[str, Group],
        offsets: OffsetManager,
        consumer: ConsumerReplay,
        on_classic_gone: Callable[[ClassicGroup], None],
        clock: Clock,
    ) -> None:
        self._groups = groups
        self._offsets = offsets
        self._on_classic_gone = on_classic_gone
        self._clock = clock
        self._consumer = consumer.by_key()

    def replay(self, record_offset: int, producer_id: int, key: Any, value: Any | None) -> None:
        """One record."""
        key_class = key.__class__
        if key_class is OffsetCommitKey:
            self._offset_commit(record_offset, producer_id, key, value)
        elif key_class is GroupMetadataKey:
            self._group_metadata(key, value)
        elif key_class is LegacyOffsetCommitKey:
            self._legacy_offset_commit(record_offset, producer_id, key, value)
        else:
            self._consumer[key_class](key, value)

    def _offset_commit(
        self,
        record_offset: int,
        producer_id: int,
        key: OffsetCommitKey,
        value: OffsetCommitValue | None,
    ) -> None:
        if value is not None:
            self.make_simple_group(key.group)
        self._offsets.replay(record_offset, producer_id, key, value)

    def make_simple_group(self, group_id: str) -> None:
        """A group that nobody joined, for its offsets, unless there is one."""
        if group_id not in self._groups:
            self._groups[group_id] = ClassicGroup(
                group_id, current_state_timestamp_ms=self._clock.time_ms()
            )

    def _legacy_offset_commit(
        self, record_offset: int, producer_id: int, key: LegacyOffsetCommitKey, value: Any | None
    ) -> None:
        """Records of releases before 0.9, in topics that have been taken along since."""
        commit = None
        if value is not None:
            commit = OffsetCommitValue(
                offset=value.offset,
                metadata=value.metadata,
                commit_timestamp=value.commit_timestamp,
            )
        commit_key = OffsetCommitKey(key.group, key.topic, key.partition)
        self._offset_commit(record_offset, producer_id, commit_key, commit)

    def _group_metadata(self, key: GroupMetadataKey, value: GroupMetadataValue | None) -> None:
        group = self._groups.get(key.group)
        if isinstance(group, ClassicGroup):
            self._on_classic_gone(group)
            del self._groups[key.group]
        if value is not None:
            self._groups[key.group] = _loaded(key.group, value)


def _loaded(group_id: str, value: GroupMetadataValue) -> ClassicGroup:
    """A classic group as a record describes it: stable, or empty without members."""
    since = value.current_state_timestamp
    group = ClassicGroup(
        group_id,
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
                rebalance_timeout_ms=member.session_timeout if timeout_ms == -1 else timeout_ms,
                session_timeout_ms=member.session_timeout,
                protocol_type=value.protocol_type,
                protocols=((value.protocol or "", member.subscription),),
                assignment=member.assignment,
            )
        )
    group.subscribed_topics = _subscribed_topics(group)
    return group


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
