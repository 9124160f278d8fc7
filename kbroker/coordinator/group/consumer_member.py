"""One member of a group of KIP-848, as an immutable value."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

from kbroker.coordinator.group.classic_group import Protocols

AssignedPartitions = Mapping[bytes, Mapping[int, int]]
"""Topic id -> partition -> the epoch at which it was assigned."""

LEAVE_EPOCH = -1
"""Sent by a member that leaves."""
STATIC_LEAVE_EPOCH = -2
"""Sent by a static member that means to come back; what it owned is kept for it."""


class MemberState(IntEnum):
    """How far a member is on its way to its target assignment; the numbers are in the records."""

    STABLE = 0
    UNREVOKED_PARTITIONS = 1
    UNRELEASED_PARTITIONS = 2
    UNKNOWN = 127


@dataclass(slots=True, frozen=True)
class ClassicMetadata:
    """What a member that speaks the classic protocol has told in JoinGroup."""

    session_timeout_ms: int
    protocols: Protocols


@dataclass(slots=True, frozen=True, kw_only=True)
class ConsumerGroupMember:
    """Subscription, epochs and partitions of a member. Changed by making another."""

    member_id: str
    member_epoch: int = 0
    previous_member_epoch: int = -1
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: int = -1
    client_id: str = ""
    client_host: str = ""
    subscribed_topic_names: frozenset[str] = frozenset()
    subscribed_topic_regex: str = ""
    server_assignor: str | None = None
    state: MemberState = MemberState.STABLE
    assigned: AssignedPartitions = field(default_factory=dict)
    pending_revocation: AssignedPartitions = field(default_factory=dict)
    classic: ClassicMetadata | None = None

    def is_reconciled_to(self, epoch: int) -> bool:
        """Whether the member has all that the assignment of ``epoch`` gives it, and no more."""
        return self.state is MemberState.STABLE and self.member_epoch == epoch

    def with_epoch(self, epoch: int) -> "ConsumerGroupMember":
        """The member at another epoch, its present one remembered."""
        return replace(self, member_epoch=epoch, previous_member_epoch=self.member_epoch)

    def same_subscription(self, other: "ConsumerGroupMember") -> bool:
        """Whether both would be the same ConsumerGroupMemberMetadata record."""
        return (
            self.instance_id == other.instance_id
            and self.rack_id == other.rack_id
            and self.rebalance_timeout_ms == other.rebalance_timeout_ms
            and self.client_id == other.client_id
            and self.client_host == other.client_host
            and self.subscribed_topic_names == other.subscribed_topic_names
            and self.subscribed_topic_regex == other.subscribed_topic_regex
            and self.server_assignor == other.server_assignor
            and self.classic == other.classic
        )


def partition_sets(assigned: AssignedPartitions) -> dict[bytes, set[int]]:
    """The partitions without their epochs."""
    return {topic_id: set(partitions) for topic_id, partitions in assigned.items()}
