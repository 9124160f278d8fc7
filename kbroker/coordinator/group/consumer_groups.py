"""The protocol of KIP-848: members heartbeat, the coordinator assigns and reconciles.

Every step gives records; replaying them is what changes a group. Only timers and the memory of
what was compared last are kept beside them.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from kbroker.common.clock import Clock
from kbroker.common.entropy import Entropy
from kbroker.config.broker_config import ConfigHolder
from kbroker.coordinator.coordinator_timer import CoordinatorTimer
from kbroker.coordinator.group.assignor.assignor import (
    Assignor,
    GroupSpec,
    MemberSpec,
    Partitions,
)
from kbroker.coordinator.group.assignor.range_assignor import RangeAssignor
from kbroker.coordinator.group.assignor.uniform_assignor import UniformAssignor
from kbroker.coordinator.group.consumer_group import ConsumerGroup
from kbroker.coordinator.group.consumer_member import (
    STATIC_LEAVE_EPOCH,
    ConsumerGroupMember,
    MemberState,
)
from kbroker.coordinator.group.consumer_records import (
    current_record,
    group_epoch_record,
    member_record,
    member_tombstones,
    partition_metadata_tombstone,
    regex_tombstone,
    target_epoch_record,
    target_record,
)
from kbroker.coordinator.group.consumer_settings import ConsumerGroupSettings
from kbroker.coordinator.group.current_assignment import Owned, Reconciliation, owns_only
from kbroker.coordinator.group.group_migration import GroupMigration
from kbroker.coordinator.group.topics_view import TopicsView
from kbroker.coordinator.result import CoordinatorRecord, CoordinatorResult
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

BUILT_IN_ASSIGNORS: dict[str, Callable[[], Assignor]] = {
    "uniform": UniformAssignor,
    "range": RangeAssignor,
    "org.apache.kafka.coordinator.group.assignor.UniformAssignor": UniformAssignor,
    "org.apache.kafka.coordinator.group.assignor.RangeAssignor": RangeAssignor,
}
"""By the names that ``group.consumer.assignors`` may list."""


def session_key(group_id: str, member_id: str) -> tuple[str, str, str]:
    """Name of a member's session timer."""
    return ("consumer-session", group_id, member_id)


def revocation_key(group_id: str, member_id: str) -> tuple[str, str, str]:
    """Name of the timer that fences a member which does not give partitions up."""
    return ("consumer-revocation", group_id, member_id)


class Step:
    """What one request does to a group: records, and the epochs after them."""

    __slots__ = ("group", "group_epoch", "metadata_hash", "records")

    def __init__(self, group: ConsumerGroup, records: list[CoordinatorRecord]) -> None:
        self.group = group
        self.records = records
        self.group_epoch = group.group_epoch
        self.metadata_hash = group.metadata_hash


class ConsumerGroups:
    """Steps of the members of one shard's groups of KIP-848."""

    def __init__(
        self,
        *,
        config: ConfigHolder,
        clock: Clock,
        timer: CoordinatorTimer,
        entropy: Entropy,
        topics: TopicsView,
        find: Callable[[str], ConsumerGroup | None],
        migration: GroupMigration,
        downgrade: Callable[[ConsumerGroup, set[str]], CoordinatorResult[None]],
        log: logging.Logger,
    ) -> None:
        self._migration = migration
        self._downgrade = downgrade
        self._config = config
        self._clock = clock
        self._timer = timer
        self._entropy = entropy
        self._topics = topics
        self._find = find
        self._log = log
        self.settings = ConsumerGroupSettings(config, topics)
        self._assignors: dict[str, Assignor] = {}
        for name in config.current.group_consumer_assignors:
            make = BUILT_IN_ASSIGNORS.get(name)
            if make is not None:
                assignor = make()
                self._assignors[assignor.name] = assignor
            else:
                log.warning("group.consumer.assignors: there is no %r here", name)
        if not self._assignors:
            self._assignors["uniform"] = UniformAssignor()

    @property
    def assignor_names(self) -> list[str]:
        """The assignors members may ask for, the default first."""
        return list(self._assignors)

    # -- members

    def check_has_room(self, group: ConsumerGroup, member_id: str) -> None:
        """KafkaError: GROUP_MAX_SIZE_REACHED for somebody new."""
        limit = self._config.current.group_consumer_max_size
        if len(group.members) >= limit and member_id not in group.members:
            raise KafkaError(
                ErrorCode.GROUP_MAX_SIZE_REACHED,
                f"The consumer group has reached its maximum capacity of {limit} members.",
            )

    def new_member_id(self) -> str:
        """For clients that do not make their own."""
        return self._entropy.uuid_text()

    @staticmethod
    def check_epoch(member: ConsumerGroupMember, epoch: int, owned: Owned | None) -> None:
        """KafkaError: FENCED_MEMBER_EPOCH.

        The previous epoch passes when the member owns nothing that it should not: the answer
        with its new epoch may have been lost.
        """
        known = member.member_epoch
        if epoch == known:
            return
        if epoch > known:
            kind = "greater"
        elif epoch == member.previous_member_epoch and owns_only(owned, member.assigned):
            return
        else:
            kind = "smaller"
        raise KafkaError(
            ErrorCode.FENCED_MEMBER_EPOCH,
            f"The consumer group member has a {kind} member epoch ({epoch}) than the one known "
            f"by the group coordinator ({known}). The member must abandon all its partitions "
            "and rejoin.",
        )

    def replaced(self, step: Step, old: ConsumerGroupMember, member_id: str) -> ConsumerGroupMember:
        """A static member comes back, mostly under another member id, and takes everything over.

        Under the same one nobody is gone whose timers would have to be cancelled.
        """
        group_id = step.group.group_id
        new = replace(old, member_id=member_id, member_epoch=0, previous_member_epoch=0)
        if member_id != old.member_id:
            step.records.extend(member_tombstones(group_id, old.member_id))
        step.records.append(member_record(group_id, new))
        target = step.group.target_of(old.member_id, old.instance_id)
        step.records.append(target_record(group_id, member_id, target))
        step.records.append(current_record(group_id, new))
        return new

    # -- from a member's news to its assignment

    def update_epoch(
        self,
        step: Step,
        *,
        old: ConsumerGroupMember | None,
        new: ConsumerGroupMember | None,
        gone: Iterable[str] = (),
        bump: bool,
    ) -> None:
        """Begin a new group epoch when ``bump``, or when a subscribed topic has changed."""
        group = step.group
        if not bump and group.checked_topics_version == self._topics.version:
            return
        metadata_hash = self._topics.metadata_hash(self._subscribed(group, old, new, gone))
        if group.has_partition_metadata:
            step.records.append(partition_metadata_tombstone(group.group_id))
        if not bump and metadata_hash == group.metadata_hash:
            group.checked_topics_version = self._topics.version
            return
        step.group_epoch = group.group_epoch + 1
        step.metadata_hash = metadata_hash
        step.records.append(group_epoch_record(group.group_id, step.group_epoch, metadata_hash))
        self._log.info("group %r: epoch %d", group.group_id, step.group_epoch)

    @staticmethod
    def _subscribed(
        group: ConsumerGroup,
        old: ConsumerGroupMember | None,
        new: ConsumerGroupMember | None,
        gone: Iterable[str],
    ) -> set[str]:
        """Names of all topics subscribed to when ``new`` is in the place of ``old``."""
        left_out = set(gone)
        if old is not None:
            left_out.add(old.member_id)
        names: set[str] = set()
        for member in group.members.values():
            if member.member_id not in left_out and (
                new is None or member.member_id != new.member_id
            ):
                names |= group.topics_of(member)
        if new is not None:
            names |= group.topics_of(new)
        return names

    def assign(
        self, step: Step, member: ConsumerGroupMember, replaced_id: str | None = None
    ) -> tuple[int, Partitions]:
        """(assignment epoch, the member's target): computed anew when it is time to."""
        group = step.group
        if step.group_epoch > group.assignment_epoch and self.may_assign(group):
            target = self._compute(step, member, replaced_id)
            return step.group_epoch, target.get(member.member_id, {})
        return group.assignment_epoch, group.target_of(member.member_id, member.instance_id)

    def may_assign(self, group: ConsumerGroup) -> bool:
        """KIP-1263: members that come together are assigned together."""
        interval_ms = self.settings.assignment_interval_ms(group.group_id)
        last_ms = group.assignment_timestamp_ms
        return last_ms == 0 or interval_ms == 0 or self._clock.time_ms() >= last_ms + interval_ms

    def _compute(
        self, step: Step, changed: ConsumerGroupMember, replaced_id: str | None
    ) -> dict[str, Partitions]:
        group = step.group
        members = {
            member_id: member
            for member_id, member in group.members.items()
            if member_id != replaced_id
        }
        members[changed.member_id] = changed
        specs: dict[str, MemberSpec] = {}
        counts: dict[bytes, int] = {}
        for member_id, member in members.items():
            topic_ids = self._topics.topic_ids(group.topics_of(member))
            for topic_id in topic_ids:
                counts.setdefault(topic_id, self._topics.partition_count(topic_id))
            holder = group.static_members.get(member.instance_id or "", member_id)
            current = group.target.get(holder, {})
            specs[member_id] = MemberSpec(topic_ids, member.instance_id, current)
        assignor = self._assignors[self.preferred_assignor(members.values())]
        target = assignor.assign(GroupSpec(specs, counts))
        group_id = group.group_id
        for member_id in members:
            wanted = target.get(member_id, {})
            known = group.target.get(member_id)
            if replaced_id is not None and member_id == changed.member_id:
                known = group.target.get(replaced_id, {})  # as ``replaced`` has written it
            if known is None or dict(known) != dict(wanted):
                step.records.append(target_record(group_id, member_id, wanted))
        timestamp_ms = self._clock.time_ms()
        step.records.append(target_epoch_record(group_id, step.group_epoch, timestamp_ms))
        return target

    def preferred_assignor(self, members: Iterable[ConsumerGroupMember]) -> str:
        """What most members ask for, else the default."""
        votes = Counter(
            member.server_assignor
            for member in members
            if member.server_assignor in self._assignors
        )
        if votes:
            ((name, _),) = votes.most_common(1)
            assert name is not None
            return name
        return self.assignor_names[0]

    def reconcile(
        self,
        step: Step,
        member: ConsumerGroupMember,
        *,
        target_epoch: int,
        target: Partitions,
        has_subscription_changed: bool,
        owned: Owned | None,
    ) -> ConsumerGroupMember:
        """Let the member make its next step, and write it."""
        if not has_subscription_changed and member.is_reconciled_to(target_epoch):
            return member
        group = step.group
        moved = Reconciliation(
            member,
            target_epoch=target_epoch,
            target=target,
            subscribed_topic_ids=self._topics.topic_ids(group.topics_of(member)),
            has_subscription_changed=has_subscription_changed,
            is_owned=group.is_owned,
            owned=owned,
        ).next_member()
        if moved != member:
            step.records.append(current_record(group.group_id, moved))
            if moved.classic is None:
                self._time_revocation(group.group_id, moved)
        return moved

    # -- leaving

    def leave_for_a_while(
        self, group: ConsumerGroup, member: ConsumerGroupMember
    ) -> CoordinatorResult[None]:
        """A static member goes and means to come back: what it owns waits for it.

        Under its next member id it has had the partitions from the beginning, epoch 0.
        """
        away = replace(
            member,
            member_epoch=STATIC_LEAVE_EPOCH,
            assigned={t: dict.fromkeys(partitions, 0) for t, partitions in member.assigned.items()},
            pending_revocation={},
        )
        return CoordinatorResult([current_record(group.group_id, away)], None)

    def remove(
        self, group: ConsumerGroup, members: Sequence[ConsumerGroupMember]
    ) -> CoordinatorResult[None]:
        """Members are gone; those who are left may be a classic group from now on."""
        gone = {member.member_id for member in members}
        if self._migration.may_downgrade(group, gone):
            return self._downgrade(group, gone)
        return self.fence(group, members)

    def fence(
        self, group: ConsumerGroup, members: Sequence[ConsumerGroupMember]
    ) -> CoordinatorResult[None]:
        """Members are gone: take them out and begin a new epoch."""
        step = Step(group, [])
        gone = [member.member_id for member in members]
        for member in members:
            step.records.extend(member_tombstones(group.group_id, member.member_id))
        self._drop_regexes(step, members)
        self.update_epoch(step, old=None, new=None, gone=gone, bump=True)
        return CoordinatorResult(step.records, None)

    @staticmethod
    def _drop_regexes(step: Step, members: Sequence[ConsumerGroupMember]) -> None:
        """Forget expressions that only members of these subscribed by."""
        counts = Counter(m.subscribed_topic_regex for m in members if m.subscribed_topic_regex)
        for regex, count in counts.items():
            if step.group.regex_count(regex) <= count and regex in step.group.resolved:
                step.records.append(regex_tombstone(step.group.group_id, regex))

    # -- timers

    def schedule_session(
        self, group_id: str, member_id: str, timeout_ms: int | None = None
    ) -> None:
        """Expect the next sign of life within the session timeout."""
        if timeout_ms is None:
            timeout_ms = self.settings.session_timeout_ms(group_id)
        key = session_key(group_id, member_id)
        if not self._timer.push_back(key, timeout_ms / 1000):
            self._timer.schedule(
                key,
                timeout_ms / 1000,
                lambda: self.expire(group_id, member_id, None, "its session timed out"),
                retry=True,
            )

    def _time_revocation(self, group_id: str, member: ConsumerGroupMember) -> None:
        key = revocation_key(group_id, member.member_id)
        if member.state is not MemberState.UNREVOKED_PARTITIONS:
            self._timer.cancel(key)
            return
        member_id, epoch = member.member_id, member.member_epoch
        self._timer.schedule(
            key,
            member.rebalance_timeout_ms / 1000,
            lambda: self.expire(group_id, member_id, epoch, "it did not revoke in time"),
            retry=True,
        )

    def expire(
        self, group_id: str, member_id: str, epoch: int | None, reason: str
    ) -> CoordinatorResult[None] | None:
        group = self._find(group_id)
        member = group.members.get(member_id) if group is not None else None
        if group is None or member is None or epoch not in (None, member.member_epoch):
            return None
        self._log.info("group %r: member %r is fenced: %s", group_id, member_id, reason)
        try:
            return self.remove(group, [member])
        except KafkaError as error:
            # No classic group can be made of the others; Kafka keeps the member for ever.
            self._log.warning("group %r stays a consumer group: %s", group_id, error.message)
            return self.fence(group, [member])

    def cancel_timers(self, group_id: str, member_id: str) -> None:
        """The member is not in the group any more (as of its records: so nothing is lost when
        they cannot be written)."""
        self._timer.cancel(session_key(group_id, member_id))
        self._timer.cancel(revocation_key(group_id, member_id))

    def on_loaded(self, group: ConsumerGroup) -> None:
        """Start the timers of a group that came from the log."""
        for member in group.members.values():
            timeout_ms = member.classic.session_timeout_ms if member.classic is not None else None
            self.schedule_session(group.group_id, member.member_id, timeout_ms)
            if member.state is MemberState.UNREVOKED_PARTITIONS and member.classic is None:
                self._time_revocation(group.group_id, member)

    def forget_timers(self, group: ConsumerGroup) -> None:
        """The group is deleted."""
        for member_id in group.members:
            self.cancel_timers(group.group_id, member_id)
