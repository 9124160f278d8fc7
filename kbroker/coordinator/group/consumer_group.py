"""The state of one group of KIP-848, which is what its records add up to.

Three epochs follow each other: the group epoch grows with every change of subscriptions or topics,
the assignment epoch is the group epoch that the target assignment was computed for, and each
member's epoch follows the assignment's as the member is reconciled.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kbroker.coordinator.group.assignor.assignor import Partitions
from kbroker.coordinator.group.consumer_member import ConsumerGroupMember
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

_COMMIT_WITH_EPOCH_FROM = 9
"""The version of OffsetCommit from which members of KIP-848 may commit."""

FIRST_EPOCH = 1
"""Epochs of a group before its first member has joined; that one gets epoch 2."""


@dataclass(slots=True, frozen=True)
class ResolvedRegex:
    """The topics that a regular expression matched, and at which state of the topics."""

    topics: frozenset[str]
    version: int = -1
    timestamp_ms: int = -1


CommitCheck = Callable[[bytes, int], ErrorCode]
"""(topic id, partition) -> whether an offset of it may be committed."""


class ConsumerGroup:
    """Members, target assignment, resolved expressions; indexes over them are kept up to date."""

    __slots__ = (
        "_owners",
        "_regexes",
        "_subscribed_names",
        "assignment_epoch",
        "assignment_timestamp_ms",
        "checked_topics_version",
        "group_epoch",
        "group_id",
        "has_partition_metadata",
        "members",
        "metadata_hash",
        "resolved",
        "static_members",
        "target",
    )

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.group_epoch = FIRST_EPOCH
        self.assignment_epoch = FIRST_EPOCH
        self.assignment_timestamp_ms = 0
        self.metadata_hash = 0
        self.has_partition_metadata = False
        """Whether the log has a record that releases before 4.1 kept in place of the hash."""
        self.checked_topics_version = -1
        """The version of the cluster's topics that the hash was last compared with; not written."""
        self.members: dict[str, ConsumerGroupMember] = {}
        self.static_members: dict[str, str] = {}
        self.target: dict[str, Partitions] = {}
        self.resolved: dict[str, ResolvedRegex] = {}
        self._owners: dict[tuple[bytes, int], str] = {}
        self._subscribed_names: Counter[str] = Counter()
        self._regexes: Counter[str] = Counter()

    # -- what it is

    @property
    def is_empty(self) -> bool:
        """Nobody is in the group."""
        return not self.members

    @property
    def state_name(self) -> str:
        """The state as ListGroups and ConsumerGroupDescribe show it."""
        if not self.members:
            return "Empty"
        if self.group_epoch > self.assignment_epoch:
            return "Assigning"
        for member in self.members.values():
            if not member.is_reconciled_to(self.assignment_epoch):
                return "Reconciling"
        return "Stable"

    def member(self, member_id: str) -> ConsumerGroupMember:
        """KafkaError: UNKNOWN_MEMBER_ID."""
        member = self.members.get(member_id)
        if member is None:
            raise KafkaError(
                ErrorCode.UNKNOWN_MEMBER_ID,
                f"Member {member_id} is not a member of group {self.group_id}.",
            )
        return member

    def static_member(self, instance_id: str | None) -> ConsumerGroupMember | None:
        """The member with this instance id."""
        if instance_id is None:
            return None
        member_id = self.static_members.get(instance_id)
        return None if member_id is None else self.members.get(member_id)

    def is_owned(self, topic_id: bytes, partition: int) -> bool:
        """Whether a member owns the partition, or has not given it up yet."""
        return (topic_id, partition) in self._owners

    def target_of(self, member_id: str, instance_id: str | None) -> Partitions:
        """The target assignment of a member; a static one has that of its instance id's holder,
        also when it had one of its own before it took the other's place."""
        if instance_id is not None:
            member_id = self.static_members.get(instance_id, "")
        return self.target.get(member_id, {})

    def topics_of(self, member: ConsumerGroupMember) -> frozenset[str]:
        """Names of the topics a member subscribes to, by name or by expression."""
        resolved = self.resolved.get(member.subscribed_topic_regex)
        if resolved is None:
            return member.subscribed_topic_names
        return member.subscribed_topic_names | resolved.topics

    def is_subscribed_to(self, topic: str) -> bool:
        """Whether any member subscribes to the topic."""
        if self._subscribed_names[topic] > 0:
            return True
        return any(
            topic in resolved.topics
            for regex, resolved in self.resolved.items()
            if self._regexes[regex] > 0
        )

    def subscribed_names(self) -> set[str]:
        """Names of the topics that members subscribe to, by name."""
        return set(self._subscribed_names)

    def regex_count(self, regex: str) -> int:
        """How many members subscribe by this expression."""
        return self._regexes[regex]

    def regexes(self) -> set[str]:
        """The expressions that members subscribe by."""
        return {regex for regex, count in self._regexes.items() if count > 0}

    # -- checks of other requests

    def check_offset_commit(self, member_id: str, epoch: int, version: int) -> CommitCheck | None:
        """Which partitions (topic id, index) a member may commit: a check of each, None for all.

        Raises KafkaError when it may commit none.
        """
        if epoch < 0 and not self.members:
            return None
        member = self.member(member_id)
        if member.classic is None and version < _COMMIT_WITH_EPOCH_FROM:
            raise KafkaError(ErrorCode.UNSUPPORTED_VERSION)
        return _commit_check(member, epoch, _wrong_epoch(member))

    def check_transactional_commit(
        self, member_id: str, instance_id: str | None, epoch: int
    ) -> CommitCheck | None:
        """The same for TxnOffsetCommit; who names no member commits what it likes."""
        names_nobody = epoch == -1 and not member_id and instance_id is None
        if names_nobody or (epoch < 0 and not self.members):
            return None
        return _commit_check(self.member(member_id), epoch, ErrorCode.ILLEGAL_GENERATION)

    def validate_offset_fetch(self, member_id: str | None, member_epoch: int) -> None:
        """KafkaError as OffsetFetch answers it for the group (v9 and later)."""
        if member_id is None and member_epoch < 0:
            return
        if member_id is None:
            # An epoch without a member: Kafka fails on it, and says no more.
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
        member = self.member(member_id)
        if member_epoch != member.member_epoch:
            raise KafkaError(_wrong_epoch(member))

    def validate_offset_delete(self) -> None:
        """Offsets of topics nobody subscribes to may always be deleted."""

    def validate_delete(self) -> None:
        """KafkaError: NON_EMPTY_GROUP."""
        if self.members:
            raise KafkaError(ErrorCode.NON_EMPTY_GROUP)

    def expiry_base_ms(self, commit_timestamp_ms: int) -> int | None:
        """Offsets of topics nobody subscribes to expire since they were committed."""
        return commit_timestamp_ms

    # -- replay

    def put(self, member: ConsumerGroupMember) -> None:
        """Add a member, or put it in the place of its former state."""
        self._forget(self.members.get(member.member_id))
        self.members[member.member_id] = member
        if member.instance_id is not None:
            self.static_members[member.instance_id] = member.member_id
        self._subscribed_names.update(member.subscribed_topic_names)
        if member.subscribed_topic_regex:
            self._regexes[member.subscribed_topic_regex] += 1
        for key in _partitions(member):
            self._owners[key] = member.member_id

    def remove(self, member_id: str) -> None:
        """Take a member out."""
        member = self.members.pop(member_id, None)
        self._forget(member)
        if member is not None and self.static_members.get(member.instance_id or "") == member_id:
            del self.static_members[member.instance_id or ""]

    def _forget(self, member: ConsumerGroupMember | None) -> None:
        if member is None:
            return
        for name in member.subscribed_topic_names:
            self._subscribed_names[name] -= 1
            if self._subscribed_names[name] <= 0:
                del self._subscribed_names[name]
        regex = member.subscribed_topic_regex
        if regex:
            self._regexes[regex] -= 1
            if self._regexes[regex] <= 0:
                del self._regexes[regex]
        for key in _partitions(member):
            # After compaction two members may seem to own a partition for a moment.
            if self._owners.get(key) == member.member_id:
                del self._owners[key]


def _partitions(member: ConsumerGroupMember) -> Iterable[tuple[bytes, int]]:
    """Everything a member owns or has not given up yet."""
    for assigned in (member.assigned, member.pending_revocation):
        for topic_id, partitions in assigned.items():
            for partition in partitions:
                yield topic_id, partition


def _wrong_epoch(member: ConsumerGroupMember) -> ErrorCode:
    """What a member is told that names another epoch, in the words of its protocol."""
    if member.classic is None:
        return ErrorCode.STALE_MEMBER_EPOCH
    return ErrorCode.ILLEGAL_GENERATION


def _commit_check(member: ConsumerGroupMember, epoch: int, error: ErrorCode) -> CommitCheck | None:
    """A member that has not heard of its new epoch may commit what it had at the old one already,
    and has not given up yet (KIP-1251). KafkaError when it is ahead."""
    if epoch == member.member_epoch:
        return None
    if epoch > member.member_epoch:
        raise KafkaError(error)

    def check(topic_id: bytes, partition: int) -> ErrorCode:
        for held in (member.assigned, member.pending_revocation):
            assigned_at = held.get(topic_id, {}).get(partition)
            if assigned_at is not None:
                return ErrorCode.NONE if epoch >= assigned_at else error
        return error

    return check
