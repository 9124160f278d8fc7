"""Failpoints and planted faults: how the reliability tests prove that they would notice.

A failpoint kills the process (SIGKILL, nothing flushed) at its n-th pass. A planted fault makes one
promise of the write path false; the auditors must then report a violation. Both come from the
environment, are read once by the composition root of ``kbroker serve``, and are off by default.
"""

import os
import signal
from collections.abc import Mapping

FAILPOINTS = frozenset(
    {
        "append.before_write",
        "append.after_write",
        "append.torn_write",
        "append.before_ack",
        "roll.mid",
        "checkpoint.mid_write",
        "offsets.after_append",
        "txn.init.before_write",
        "txn.init.after_write",
        "txn.add.before_write",
        "txn.add.after_write",
        "txn.offsets.before_write",
        "txn.offsets.after_write",
        "txn.prepare.before_write",
        "txn.prepare.after_write",
        "txn.marker.before_write",
        "txn.marker.after_write",
        "txn.complete.before_write",
        "txn.complete.after_write",
        "txn.end.answered",
    }
)
PLANTED_FAULTS = frozenset(
    {
        "ack_before_append",
        "tail_without_crc",
        "producer_state_not_restored",
        "marker_lost",
        "epoch_not_fenced",
        "commit_before_write",
        "two_owners",
    }
)


class Faults:
    """Which failpoint is armed (name and pass) and which fault is planted, if any."""

    __slots__ = ("_left", "failpoint", "planted")

    def __init__(self, *, failpoint: str = "", passes: int = 1, planted: str = "") -> None:
        if failpoint and failpoint not in FAILPOINTS:
            raise ValueError(f"unknown failpoint {failpoint!r}; known: {sorted(FAILPOINTS)}")
        if planted and planted not in PLANTED_FAULTS:
            raise ValueError(f"unknown fault {planted!r}; known: {sorted(PLANTED_FAULTS)}")
        if passes < 1:
            raise ValueError("a failpoint fires at its first pass or later")
        self.failpoint = failpoint
        self.planted = planted
        self._left = passes

    @property
    def has_transactional_failpoint(self) -> bool:
        """Whether it is armed in the transaction coordinator's writes."""
        return self.failpoint.startswith("txn.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Faults":
        """Reads KBROKER_FAILPOINT=name:n and KBROKER_PLANTED_FAULT=name."""
        name, _, passes = environment.get("KBROKER_FAILPOINT", "").partition(":")
        return cls(
            failpoint=name,
            passes=int(passes or 1),
            planted=environment.get("KBROKER_PLANTED_FAULT", ""),
        )

    def is_due(self, name: str) -> bool:
        """Counts a pass; True at the pass that must die (the caller may first do half a write)."""
        if name != self.failpoint:
            return False
        self._left -= 1
        return self._left == 0

    def hit(self, name: str) -> None:
        """Counts a pass and dies at the one that is due."""
        if self.is_due(name):
            self.die()

    def die(self) -> None:
        """End the process as ``kill -9`` does."""
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


NO_FAULTS = Faults()
