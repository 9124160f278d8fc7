"""Groups that change their protocol while they live (KIP-848).

A classic group of consumers becomes a group of KIP-848 when the first such member joins, and a
classic one again when the last such member leaves. In between it holds members of both kinds.
"""

import logging
from dataclasses import replace

from kbroker.common.clock import Clock
from kbroker.config.broker_config import ConfigHolder
from kbroker.coordinator.group.classic_group import (
    CONSUMER_PROTOCOL_TYPE,
    ClassicGroup,
    ClassicGroupMember,
    ClassicGroupState,
    join_error,
)
from kbroker.coordinator.group.consumer_group import ConsumerGroup
from kbroker.coordinator.group.consumer_member import ClassicMetadata, ConsumerGroupMember
from kbroker.coordinator.group.consumer_records import (
    current_record,
    group_epoch_record,
    group_tombstones,
    member_record,
    target_epoch_record,
    target_record,
)
from kbroker.coordinator.group.embedded_protocol import (
    CutShortError,
    read_assignment,
    read_subscription,
    write_assignment,
)
from kbroker.coordinator.group.group_records import (
    group_metadata_record,
    group_metadata_tombstone,
)
from kbroker.coordinator.group.topics_view import TopicsView
from kbroker.coordinator.result import CoordinatorRecord
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.sync_group_response import SyncGroupResponse
from kbroker.protocol.wire import DecodeError


class GroupMigration:
    """Makes one kind of group of the other."""

    def __init__(
        self, *, config: ConfigHolder, clock: Clock, topics: TopicsView, log: logging.Logger
    ) -> None:
        self._config = config
        self._clock = clock
        self._topics = topics
        self._log = log

    def _allows(self, direction: str) -> bool:
        policy = self._config.current.group_consumer_migration_policy.lower()
        return policy in (direction, "bidirectional")

    # -- upgrade

    def may_upgrade(self, group: ClassicGroup) -> bool:
        """Whether a member of KIP-848 may join this group that has classic members."""
        return (
            self._allows("upgrade")
            and group.uses_consumer_protocol
            and len(group.members) <= self._config.current.group_consumer_max_size
        )

    def upgrade(self, group: ClassicGroup, records: list[CoordinatorRecord]) -> ConsumerGroup:
        """The same members as a group of KIP-848, each with what it has now.

        KafkaError: GROUP_ID_NOT_FOUND when a subscription cannot be read or an assignment is cut
        short, UNKNOWN_SERVER_ERROR when it cannot be read else, as Kafka answers.
        """
        upgraded = ConsumerGroup(group.group_id)
        upgraded.group_epoch = upgraded.assignment_epoch = group.generation_id
        members = [self._upgraded_member(group, member) for member in group.members.values()]
        taken = {
            (topic_id, partition)
            for member in members
            for topic_id, partitions in member.assigned.items()
            for partition in partitions
        }
        for converted in members:
            upgraded.put(self._with_claims(group, converted, taken))
            upgraded.target[converted.member_id] = {
                topic_id: frozenset(partitions)
                for topic_id, partitions in converted.assigned.items()
            }
        self._send_back(group)
        records.append(group_metadata_tombstone(group.group_id))
        self._write(upgraded, records)
        self._log.info("group %r becomes a consumer group", group.group_id)
        return upgraded

    def _upgraded_member(
        self, group: ClassicGroup, member: ClassicGroupMember
    ) -> ConsumerGroupMember:
        metadata = member.metadata(group.protocol_name or member.protocols[0][0])
        malformed = KafkaError(
            ErrorCode.GROUP_ID_NOT_FOUND,
            f"Cannot upgrade the classic group {group.group_id} to consumer group because "
            "the embedded consumer protocol is malformed.",
        )
        try:
            subscription = read_subscription(metadata)
        except DecodeError as error:
            raise malformed from error
        try:
            assigned = read_assignment(member.assignment, self._topics)
        except CutShortError as error:
            raise malformed from error
        except DecodeError as error:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR) from error
        epoch = group.generation_id
        return ConsumerGroupMember(
            member_id=member.member_id,
            member_epoch=epoch,
            previous_member_epoch=epoch,
            instance_id=member.group_instance_id,
            rack_id=subscription.rack_id,
            rebalance_timeout_ms=member.rebalance_timeout_ms,
            client_id=member.client_id,
            client_host=member.client_host,
            subscribed_topic_names=frozenset(subscription.topics),
            assigned={
                topic_id: dict.fromkeys(partitions, epoch)
                for topic_id, partitions in assigned.items()
            },
            classic=ClassicMetadata(member.session_timeout_ms, member.protocols),
        )

    def _with_claims(
        self, group: ClassicGroup, member: ConsumerGroupMember, taken: set[tuple[bytes, int]]
    ) -> ConsumerGroupMember:
        """The member with what it said to own when it joined and may not have let go of yet.

        A cooperative client learns by its assignment what it must give up; in between, and while
        an assignment could not be written, its partitions look free. Kafka gives them away at once,
        and they have two owners until the client has joined again.
        """
        metadata = group.members[member.member_id].metadata(
            group.protocol_name or group.members[member.member_id].protocols[0][0]
        )
        assigned = {topic_id: dict(found) for topic_id, found in member.assigned.items()}
        for entry in read_subscription(metadata).owned_partitions:
            topic_id = self._topics.topic_id(entry.topic)
            if topic_id is None:
                continue
            for partition in entry.partitions:
                if (topic_id, partition) not in taken:
                    taken.add((topic_id, partition))
                    assigned.setdefault(topic_id, {})[partition] = member.member_epoch
        return replace(member, assigned=assigned)

    @staticmethod
    def _send_back(group: ClassicGroup) -> None:
        """Who waits in JoinGroup or SyncGroup is to join the new kind of group."""
        error = ErrorCode.REBALANCE_IN_PROGRESS
        for member in list(group.members.values()):
            group.complete_join(member, join_error(error, member.member_id))
            group.complete_sync(member, SyncGroupResponse(error_code=error))

    def _write(self, group: ConsumerGroup, records: list[CoordinatorRecord]) -> None:
        group_id = group.group_id
        members = list(group.members.values())
        records.extend(member_record(group_id, member) for member in members)
        records.append(group_epoch_record(group_id, group.group_epoch, group.metadata_hash))
        records.extend(
            target_record(group_id, member_id, target) for member_id, target in group.target.items()
        )
        records.append(target_epoch_record(group_id, group.assignment_epoch, 0))
        records.extend(current_record(group_id, member) for member in members)

    # -- downgrade

    def may_downgrade(self, group: ConsumerGroup, gone: set[str], joining: int = 0) -> bool:
        """Whether only classic members are left when ``gone`` are not there any more."""
        left = [member for member in group.members.values() if member.member_id not in gone]
        count = len(left) + joining
        return (
            self._allows("downgrade")
            and count > 0
            and all(member.classic is not None for member in left)
            and any(
                member.classic is None
                for member in group.members.values()
                if member.member_id in gone
            )
            and count <= self._config.current.group_max_size
        )

    def downgrade(
        self,
        group: ConsumerGroup,
        gone: set[str],
        records: list[CoordinatorRecord],
        joining: ConsumerGroupMember | None = None,
    ) -> ClassicGroup:
        """The members that are left as a classic group, stable, with their target assignments.

        ``joining`` takes the place of a static member in ``gone`` and inherits its assignment.
        """
        members = [member for member in group.members.values() if member.member_id not in gone]
        heirs = {member.member_id: member.member_id for member in members}
        if joining is not None:
            members.append(joining)
            old = group.static_member(joining.instance_id)
            heirs[joining.member_id] = joining.member_id if old is None else old.member_id
        classic = ClassicGroup(
            group.group_id,
            state=ClassicGroupState.STABLE,
            generation_id=group.group_epoch,
            protocol_type=CONSUMER_PROTOCOL_TYPE,
            current_state_timestamp_ms=self._clock.time_ms(),
        )
        for member in members:
            assert member.classic is not None
            classic.add(
                ClassicGroupMember(
                    member_id=member.member_id,
                    group_instance_id=member.instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    rebalance_timeout_ms=member.rebalance_timeout_ms,
                    session_timeout_ms=member.classic.session_timeout_ms,
                    protocol_type=CONSUMER_PROTOCOL_TYPE,
                    protocols=member.classic.protocols,
                )
            )
        name = classic.protocol_name = classic.select_protocol()
        classic.subscribed_topics = frozenset(
            topic for member in members for topic in member.subscribed_topic_names
        )
        for converted in classic.members.values():
            target = group.target.get(heirs[converted.member_id], {})
            converted.assignment = write_assignment(target, converted.metadata(name), self._topics)
        records.extend(group_tombstones(group))
        records.append(group_metadata_record(classic))
        self._log.info("group %r becomes a classic group", group.group_id)
        return classic
