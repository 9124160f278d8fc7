"""Judges what the members of a group told. Pure: knows no brokers, processes or clocks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.reliability.groups_history import Commit, GroupHistory, Hold


class GroupAnomaly(Enum):
    """What can be wrong with a group."""

    NOT_DELIVERED = "an acknowledged record was read by nobody"
    COMMIT_LOST = "the broker tells an offset below an acknowledged commit"
    WENT_BACK = "a member committed less than another had before it began"
    TWO_OWNERS = "two members that both could commit owned a partition at a time"
    STALLED = "a partition did not flow again in time"
    LAG = "there is lag after everything was read"
    UNFINISHED = "what was to happen did not"


@dataclass(frozen=True)
class GroupViolation:
    """One anomaly, in one partition; -1 where it is not about a certain one."""

    anomaly: GroupAnomaly
    partition: int
    detail: str

    def __str__(self) -> str:
        return f"{self.anomaly.name} in partition {self.partition}: {self.detail}"


def audit_group(history: GroupHistory) -> list[GroupViolation]:
    """What the history alone shows."""
    lost = sorted(history.undelivered())
    found = [
        GroupViolation(GroupAnomaly.NOT_DELIVERED, partition, f"offset {offset}")
        for partition, offset in lost[:20]
    ]
    return found + audit_owners(history) + audit_order(history)


def audit_committed(
    acked: Mapping[int, int], told: Mapping[int, int], when: str
) -> list[GroupViolation]:
    """Offsets as the broker tells them against the highest acknowledged ones."""
    return [
        GroupViolation(
            GroupAnomaly.COMMIT_LOST,
            partition,
            f"{when}: acknowledged {offset}, told {told.get(partition, -1)}",
        )
        for partition, offset in sorted(acked.items())
        if told.get(partition, -1) < offset
    ]


def audit_order(history: GroupHistory) -> list[GroupViolation]:
    """A commit that began after another was acknowledged is not below it.

    Whoever gets a partition begins where the last owner has committed; so a lower offset means
    that it was told an older one.
    """
    found = []
    by_partition: dict[int, list[Commit]] = defaultdict(list)
    for commit in history.commits:
        for partition in commit.offsets:
            by_partition[partition].append(commit)
    for partition, commits in sorted(by_partition.items()):
        acked = sorted(commits, key=lambda commit: commit.acked_at)
        sent = sorted(commits, key=lambda commit: commit.sent_at)
        highest, next_acked = 0, 0
        for commit in sent:
            while next_acked < len(acked) and acked[next_acked].acked_at < commit.sent_at:
                highest = max(highest, acked[next_acked].offsets[partition])
                next_acked += 1
            if commit.offsets[partition] < highest:
                detail = f"{commit.member} committed {commit.offsets[partition]} after {highest}"
                found.append(GroupViolation(GroupAnomaly.WENT_BACK, partition, detail))
                break
    return found


def audit_owners(history: GroupHistory) -> list[GroupViolation]:
    """Two members may both believe to own a partition when the group has given one of them up;
    then its commits are refused. That both can commit means that both are members."""
    found = []
    by_partition: dict[int, list[Hold]] = defaultdict(list)
    for hold in history.holds:
        by_partition[hold.partition].append(hold)
    by_member: dict[str, list[Commit]] = defaultdict(list)
    for commit in history.commits:
        by_member[commit.member].append(commit)
    for partition, holds in sorted(by_partition.items()):
        for one, other in combinations(holds, 2):
            if one.member == other.member:
                continue
            since, until = max(one.since, other.since), min(one.until, other.until)
            if since < until and all(
                any(since < c.sent_at and c.acked_at < until for c in by_member[hold.member])
                for hold in (one, other)
            ):
                detail = f"{one.member} and {other.member} for {until - since:.3f} s"
                found.append(GroupViolation(GroupAnomaly.TWO_OWNERS, partition, detail))
                break
    return found
