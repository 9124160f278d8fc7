"""What the members of one group did, as they told it themselves."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Hold:
    """A member owns a partition, from the callback that gave it to the one that took it."""

    member: str
    partition: int
    since: float
    until: float = math.inf


@dataclass
class Commit:
    """An acknowledged commit; offsets by partition."""

    member: str
    sent_at: float
    acked_at: float
    offsets: dict[int, int]


@dataclass
class GroupHistory:
    """Fed by one thread for each member; read under ``lock`` while members live.

    ``produced`` holds (partition, offset) of acknowledged records, ``delivered`` those that a
    member has read; ``flowing`` is by partition when the newest record that was read was produced,
    and when it was read.
    """

    produced: set[tuple[int, int]] = field(default_factory=set)
    delivered: set[tuple[int, int]] = field(default_factory=set)
    flow: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    holds: list[Hold] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    refused_commits: int = 0
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, member: str, event: dict[str, Any]) -> None:
        """One line of a member."""
        kind, at = event["e"], event["t"]
        with self.lock:
            if kind == "read":
                partition = event["partition"]
                self.delivered.update((partition, offset) for offset in event["offsets"])
                self.flow.setdefault(partition, []).append((at, event["produced_at"]))
            elif kind == "assigned":
                self.holds += [Hold(member, p, at) for p in event["partitions"]]
            elif kind == "revoked":
                for hold in self._held_by(member):
                    if hold.partition in event["partitions"]:
                        hold.until = at
            elif kind == "committed":
                offsets = {int(p): offset for p, offset in event["offsets"].items()}
                self.commits.append(Commit(member, event["sent_at"], at, offsets))
            elif kind == "not_committed":
                self.refused_commits += 1
            elif kind == "error":
                self.errors.append(f"{member}: {event['error']}")

    def gone(self, member: str, at: float) -> None:
        """The member's process has ended."""
        with self.lock:
            for hold in self._held_by(member):
                hold.until = at

    def _held_by(self, member: str) -> list[Hold]:
        return [h for h in self.holds if h.member == member and h.until == math.inf]

    def acked_offsets(self) -> dict[int, int]:
        """The highest acknowledged commit of each partition."""
        with self.lock:
            highest: dict[int, int] = {}
            for commit in self.commits:
                for partition, offset in commit.offsets.items():
                    highest[partition] = max(offset, highest.get(partition, 0))
            return highest

    def owners(self) -> set[str]:
        """Members that own a partition now."""
        with self.lock:
            return {hold.member for hold in self.holds if hold.until == math.inf}

    def flowed_at(self, partition: int, since: float) -> float | None:
        """When a record that was produced after ``since`` was first read."""
        with self.lock:
            for read_at, produced_at in self.flow.get(partition, ()):
                if produced_at >= since:
                    return read_at
        return None

    def undelivered(self) -> set[tuple[int, int]]:
        """Acknowledged records that nobody has read."""
        with self.lock:
            return self.produced - self.delivered
