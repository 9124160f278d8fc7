"""What an assignor is given and gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

Partitions = Mapping[bytes, frozenset[int]]
"""Topic id -> partitions."""


@dataclass(slots=True, frozen=True)
class MemberSpec:
    """One member: the topics it subscribes to, and what the last assignment gave it."""

    topic_ids: frozenset[bytes]
    instance_id: str | None = None
    current: Partitions = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class GroupSpec:
    """All members, and how many partitions each subscribed topic has."""

    members: Mapping[str, MemberSpec]
    partition_counts: Mapping[bytes, int]

    @property
    def is_homogeneous(self) -> bool:
        """Whether all members subscribe to the same topics."""
        return len({member.topic_ids for member in self.members.values()}) <= 1


class Assignor(Protocol):
    """Computes assignments. Every partition of a topic that somebody subscribes to gets exactly
    one owner, who subscribes to it."""

    name: str

    def assign(self, spec: GroupSpec) -> dict[str, Partitions]:
        """Member id -> partitions; members that get nothing may be left out."""
        ...
