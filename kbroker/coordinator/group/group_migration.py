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
    UserDataError,
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

    def _check_may_upgrade(self, group: ClassicGroup) -> None:
        """KafkaError GROUP_ID_NOT_FOUND when no member of KIP-848 may join these classic ones."""
        if not self._allows("upgrade"):
            raise _not_upgraded(group, "online upgrade is disabled")
        if not group.uses_consumer_protocol:
            raise _not_upgraded(group, "the group does not use the consumer embedded protocol")
        if len(group.members) > self._config.current.group_consumer_max_size:
            raise _not_upgraded(group, "the group size exceeds the consumer group maximum size")

    def upgrade(self, group: ClassicGroup, records: list[CoordinatorRecord]) -> ConsumerGroup:
        """The same members as a group of KIP-848, each with what it has now.

        KafkaError: GROUP_ID_NOT_FOUND when the group may not be one of KIP-848, a subscription
        cannot be read, an assignment is cut short or holds what only its own assignor understands;
        UNKNOWN_SERVER_ERROR when it cannot be read else, as Kafka answers.
        """
        self._check_may_upgrade(group)
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
        upgraded.metadata_hash = self._topics.metadata_hash(upgraded.subscribed_names())
        self._send_back(group)
        records.append(group_metadata_tombstone(group.group_id))
        self._write(upgraded, records)
        self._log.info("group %r becomes a consumer group", group.group_id)
        return upgraded

    def _upgraded_member(
        self, group: ClassicGroup, member: ClassicGroupMember
    ) -> ConsumerGroupMember:
        metadata = member.metadata(group.protocol_name or member.protocols[0][0])
        malformed = _not_upgraded(group, "the embedded consumer protocol is malformed")
        try:
            subscription = read_subscription(metadata)
        except DecodeError as error:
            raise malformed from error
        try:
            assigned = read_assignment(member.assignment, self._topics)
        except UserDataError as error:
            raise _not_upgraded(
                group,
                "an unsupported custom assignor is in use. Please refer to the documentation or "
                "switch to a default assignor before re-attempting the upgrade",
            ) from error
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

    def may_join_classically(self) -> bool:
        """Whether clients of the classic protocol may join a group of KIP-848 at all."""
        return self._config.current.group_consumer_migration_policy.lower() != "disabled"

    def may_downgrade(self, group: ConsumerGroup, gone: set[str]) -> bool:
        """Whether only classic members are left when ``gone`` are not there any more."""
        left = [member for member in group.members.values() if member.member_id not in gone]
        return bool(left) and self._may_be_classic(left, len(left))

    def may_downgrade_for(self, group: ConsumerGroup, old: ConsumerGroupMember) -> bool:
        """Whether all members are classic when a classic client takes the place of ``old``."""
        left = [member for member in group.members.values() if member.member_id != old.member_id]
        return old.classic is None and self._may_be_classic(left, len(group.members))

    def _may_be_classic(self, members: list[ConsumerGroupMember], size: int) -> bool:
        return (
            all(member.classic is not None for member in members)
            and self._allows("downgrade")
            and size <= self._config.current.group_max_size
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
            try:
                converted.assignment = write_assignment(
                    target, converted.metadata(name), self._topics
                )
            except DecodeError as error:
                raise KafkaError(
                    ErrorCode.GROUP_ID_NOT_FOUND,
                    f"Cannot downgrade the classic group {group.group_id}: {error}.",
                ) from error
        records.extend(group_tombstones(group))
        records.append(group_metadata_record(classic))
        self._log.info("group %r becomes a classic group", group.group_id)
        return classic


def _not_upgraded(group: ClassicGroup, reason: str) -> KafkaError:
    return KafkaError(
        ErrorCode.GROUP_ID_NOT_FOUND,
        f"Cannot upgrade classic group {group.group_id} to consumer group because {reason}.",
    )
