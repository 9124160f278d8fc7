"""ConsumerGroupDescribe: groups of KIP-848 with their members and assignments."""

from collections.abc import Mapping

from kbroker.coordinator.group.consumer_group import ConsumerGroup
from kbroker.coordinator.group.consumer_member import ConsumerGroupMember
from kbroker.coordinator.group.topics_view import TopicsView
from kbroker.protocol.messages.consumer_group_describe_response import (
    Assignment,
    DescribedGroup,
    Member,
    TopicPartitions,
)

_CLASSIC_MEMBER = 0
_CONSUMER_MEMBER = 1


def describe_consumer_group(
    group: ConsumerGroup, assignor_name: str, topics: TopicsView
) -> DescribedGroup:
    """The group as it is now."""
    return DescribedGroup(
        group_id=group.group_id,
        group_state=group.state_name,
        group_epoch=group.group_epoch,
        assignment_epoch=group.assignment_epoch,
        assignor_name=assignor_name,
        members=[_member(group, member, topics) for member in group.members.values()],
    )


def _member(group: ConsumerGroup, member: ConsumerGroupMember, topics: TopicsView) -> Member:
    return Member(
        member_id=member.member_id,
        instance_id=member.instance_id,
        rack_id=member.rack_id,
        member_epoch=member.member_epoch,
        client_id=member.client_id,
        client_host=member.client_host,
        subscribed_topic_names=sorted(member.subscribed_topic_names),
        subscribed_topic_regex=member.subscribed_topic_regex,
        assignment=_assignment(_held(member), topics),
        target_assignment=_assignment(group.target.get(member.member_id, {}), topics),
        member_type=_CONSUMER_MEMBER if member.classic is None else _CLASSIC_MEMBER,
    )


def _held(member: ConsumerGroupMember) -> dict[bytes, frozenset[int]]:
    """All that it owns: what it is to give up included, until it has."""
    held = {topic_id: frozenset(partitions) for topic_id, partitions in member.assigned.items()}
    for topic_id, partitions in member.pending_revocation.items():
        held[topic_id] = held.get(topic_id, frozenset()) | frozenset(partitions)
    return held


def _assignment(partitions: Mapping[bytes, frozenset[int]], topics: TopicsView) -> Assignment:
    found = []
    for topic_id, indexes in partitions.items():
        name = topics.name(topic_id)
        if name is not None:
            found.append(TopicPartitions(topic_id, name, sorted(indexes)))
    return Assignment(found)
