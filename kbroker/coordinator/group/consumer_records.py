"""Records of groups of KIP-848 (types 3 and 5 to 8 and 16 of ``__consumer_offsets``)."""

from collections.abc import Iterable

from kbroker.coordinator.group.assignor.assignor import Partitions
from kbroker.coordinator.group.consumer_group import ConsumerGroup, ResolvedRegex
from kbroker.coordinator.group.consumer_member import (
    AssignedPartitions,
    ClassicMetadata,
    ConsumerGroupMember,
    MemberState,
)
from kbroker.coordinator.result import CoordinatorRecord
from kbroker.protocol.internal_records import (
    consumer_group_current_member_assignment_value as current_value,
)
from kbroker.protocol.internal_records import consumer_group_member_metadata_value as member_value
from kbroker.protocol.internal_records import (
    consumer_group_target_assignment_member_value as target_value,
)
from kbroker.protocol.internal_records.consumer_group_current_member_assignment_key import (
    ConsumerGroupCurrentMemberAssignmentKey,
)
from kbroker.protocol.internal_records.consumer_group_member_metadata_key import (
    ConsumerGroupMemberMetadataKey,
)
from kbroker.protocol.internal_records.consumer_group_metadata_key import ConsumerGroupMetadataKey
from kbroker.protocol.internal_records.consumer_group_metadata_value import (
    ConsumerGroupMetadataValue,
)
from kbroker.protocol.internal_records.consumer_group_partition_metadata_key import (
    ConsumerGroupPartitionMetadataKey,
)
from kbroker.protocol.internal_records.consumer_group_regular_expression_key import (
    ConsumerGroupRegularExpressionKey,
)
from kbroker.protocol.internal_records.consumer_group_regular_expression_value import (
    ConsumerGroupRegularExpressionValue,
)
from kbroker.protocol.internal_records.consumer_group_target_assignment_member_key import (
    ConsumerGroupTargetAssignmentMemberKey,
)
from kbroker.protocol.internal_records.consumer_group_target_assignment_metadata_key import (
    ConsumerGroupTargetAssignmentMetadataKey,
)
from kbroker.protocol.internal_records.consumer_group_target_assignment_metadata_value import (
    ConsumerGroupTargetAssignmentMetadataValue,
)


def group_epoch_record(group_id: str, epoch: int, metadata_hash: int) -> CoordinatorRecord:
    """A new group epoch."""
    return CoordinatorRecord(
        ConsumerGroupMetadataKey(group_id), ConsumerGroupMetadataValue(epoch, metadata_hash)
    )


def member_record(group_id: str, member: ConsumerGroupMember) -> CoordinatorRecord:
    """A member's subscription."""
    value = member_value.ConsumerGroupMemberMetadataValue(
        instance_id=member.instance_id,
        rack_id=member.rack_id,
        client_id=member.client_id,
        client_host=member.client_host,
        subscribed_topic_names=sorted(member.subscribed_topic_names),
        subscribed_topic_regex=member.subscribed_topic_regex,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        server_assignor=member.server_assignor,
        classic_member_metadata=None,  # written as such, as Kafka does; the default is not null
    )
    if member.classic is not None:
        value.classic_member_metadata = member_value.ClassicMemberMetadata(
            member.classic.session_timeout_ms,
            [
                member_value.ClassicProtocol(name, metadata)
                for name, metadata in member.classic.protocols
            ],
        )
    return CoordinatorRecord(ConsumerGroupMemberMetadataKey(group_id, member.member_id), value)


def target_epoch_record(group_id: str, epoch: int, timestamp_ms: int) -> CoordinatorRecord:
    """The target assignment is complete for a group epoch."""
    return CoordinatorRecord(
        ConsumerGroupTargetAssignmentMetadataKey(group_id),
        ConsumerGroupTargetAssignmentMetadataValue(epoch, timestamp_ms),
    )


def target_record(group_id: str, member_id: str, partitions: Partitions) -> CoordinatorRecord:
    """What a member is meant to have."""
    return CoordinatorRecord(
        ConsumerGroupTargetAssignmentMemberKey(group_id, member_id),
        target_value.ConsumerGroupTargetAssignmentMemberValue(
            [
                target_value.TopicPartition(topic_id, sorted(partitions[topic_id]))
                for topic_id in sorted(partitions)
            ]
        ),
    )


def current_record(group_id: str, member: ConsumerGroupMember) -> CoordinatorRecord:
    """What a member has, and its epoch."""
    return CoordinatorRecord(
        ConsumerGroupCurrentMemberAssignmentKey(group_id, member.member_id),
        current_value.ConsumerGroupCurrentMemberAssignmentValue(
            member_epoch=member.member_epoch,
            previous_member_epoch=member.previous_member_epoch,
            state=member.state,
            assigned_partitions=_with_epochs(member.assigned),
            partitions_pending_revocation=_with_epochs(member.pending_revocation),
        ),
    )


def _with_epochs(assigned: AssignedPartitions) -> list[current_value.TopicPartitions]:
    return [
        current_value.TopicPartitions(
            topic_id=topic_id,
            partitions=sorted(assigned[topic_id]),
            assignment_epochs=[epoch for _, epoch in sorted(assigned[topic_id].items())],
        )
        for topic_id in sorted(assigned)
    ]


def partition_metadata_tombstone(group_id: str) -> CoordinatorRecord:
    """What releases before 4.1 wrote about subscribed topics is superseded by the hash."""
    return CoordinatorRecord(ConsumerGroupPartitionMetadataKey(group_id), None)


def regex_record(group_id: str, regex: str, resolved: ResolvedRegex) -> CoordinatorRecord:
    """The topics an expression matches."""
    return CoordinatorRecord(
        ConsumerGroupRegularExpressionKey(group_id, regex),
        ConsumerGroupRegularExpressionValue(
            sorted(resolved.topics), resolved.version, resolved.timestamp_ms
        ),
    )


def regex_tombstone(group_id: str, regex: str) -> CoordinatorRecord:
    """Nobody subscribes by the expression any more."""
    return CoordinatorRecord(ConsumerGroupRegularExpressionKey(group_id, regex), None)


def member_tombstones(group_id: str, member_id: str) -> Iterable[CoordinatorRecord]:
    """A member is gone."""
    yield CoordinatorRecord(ConsumerGroupCurrentMemberAssignmentKey(group_id, member_id), None)
    yield CoordinatorRecord(ConsumerGroupTargetAssignmentMemberKey(group_id, member_id), None)
    yield CoordinatorRecord(ConsumerGroupMemberMetadataKey(group_id, member_id), None)


def group_tombstones(group: ConsumerGroup) -> Iterable[CoordinatorRecord]:
    """A group is gone, with whoever is still in it."""
    group_id = group.group_id
    for member_id in group.members:
        yield CoordinatorRecord(ConsumerGroupCurrentMemberAssignmentKey(group_id, member_id), None)
    for member_id in group.members:
        yield CoordinatorRecord(ConsumerGroupTargetAssignmentMemberKey(group_id, member_id), None)
    yield CoordinatorRecord(ConsumerGroupTargetAssignmentMetadataKey(group_id), None)
    for member_id in group.members:
        yield CoordinatorRecord(ConsumerGroupMemberMetadataKey(group_id, member_id), None)
    for regex in group.resolved:
        yield regex_tombstone(group_id, regex)
    yield partition_metadata_tombstone(group_id)
    yield CoordinatorRecord(ConsumerGroupMetadataKey(group_id), None)


# -- what a record says


def assigned_from(
    topics: list[current_value.TopicPartitions], member_epoch: int
) -> AssignedPartitions:
    """Partitions with their epochs; records before 4.3 have none, the member's stands for them."""
    assigned: dict[bytes, dict[int, int]] = {}
    for topic in topics:
        epochs = topic.assignment_epochs
        if not epochs or len(epochs) != len(topic.partitions):
            epochs = [member_epoch] * len(topic.partitions)
        assigned[topic.topic_id] = dict(zip(topic.partitions, epochs, strict=True))
    return assigned


def state_from(number: int) -> MemberState:
    """The member state with this number; one of a later release is UNKNOWN."""
    try:
        return MemberState(number)
    except ValueError:
        return MemberState.UNKNOWN


def classic_from(
    value: member_value.ConsumerGroupMemberMetadataValue,
) -> ClassicMetadata | None:
    """The classic part of a member, None for one that speaks KIP-848."""
    classic = value.classic_member_metadata
    if classic is None or not classic.supported_protocols:
        return None
    return ClassicMetadata(
        classic.session_timeout_ms,
        tuple((protocol.name, protocol.metadata) for protocol in classic.supported_protocols),
    )
