"""One round of a group campaign: members, a load, incidents one after the other, an audit.

After each change of the group every partition must flow again: a record that was produced after
the change is read. What a change is: members start, crash, are stopped, go on, leave; the broker is
back after ``kill -9``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.peers.process import BrokerDied
from tests.reliability.groups_auditor import (
    GroupAnomaly,
    GroupViolation,
    audit_committed,
    audit_group,
    audit_owners,
)
from tests.reliability.groups_history import GroupHistory
from tests.reliability.groups_members import MemberProcess, SteadyProducer
from tests.reliability.groups_settings import GROUPS, PARTITIONS, SESSION_S

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from tests.reliability.rounds import Broker

START_S = 30.0
PATIENCE_S = 60.0
SOME_COMMITS = 5
LOOK_EVERY_S = 0.5
FAILPOINT_PASSES = {"offsets.after_append": 20, "append.before_write": 100}


@dataclass
class GroupRound:
    """What a round does (``mix`` of members, incidents by name), found and measured."""

    name: str
    mix: str
    incidents: tuple[str, ...]
    slack_s: float
    history: GroupHistory = field(default_factory=GroupHistory)
    flowed_after_s: list[tuple[str, float]] = field(default_factory=list)
    violations: list[GroupViolation] = field(default_factory=list)
    took_s: float = 0.0

    def __str__(self) -> str:
        flows = ", ".join(f"{what} {after_s:.1f} s" for what, after_s in self.flowed_after_s)
        history = self.history
        return (
            f"{self.name} ({self.mix}): flows again after {flows}; "
            f"{len(history.produced)} records, {len(history.commits)} commits, "
            f"{history.refused_commits} refused; {len(self.violations)} violations; "
            f"{self.took_s:.1f} s"
        )


class GroupRunner:
    """Runs one round against a running broker and leaves it running."""

    def __init__(self, broker: Broker, done: GroupRound, folder: Path, source: random.Random):
        self._broker = broker
        self._round = done
        self._history = done.history
        self._folder = folder
        self._source = source
        self._members: list[MemberProcess] = []
        self._number = 0
        self._hopeless = False
        self._look_at = 0.0

    def run(self) -> GroupRound:
        """All incidents; raises only when the harness itself fails."""
        began = time.monotonic()
        create_topic(self._broker.bootstrap, self._round.name)
        producer = SteadyProducer(self._broker.bootstrap, self._round.name, self._history)
        try:
            self._start_all()
            for incident in self._round.incidents:
                if self._hopeless:
                    break
                self._await_commits()
                getattr(self, f"_{incident}")()
        finally:
            producer.stop()
            try:
                self._drain()
            finally:
                self._end_members()
        if self._hopeless:
            self._round.violations = audit_owners(self._history)
            return self._round
        self._restart_broker()
        self._audit_offsets("after the last restart", must_be_at_end=True)
        self._round.violations += audit_group(self._history)
        self._round.took_s = time.monotonic() - began
        return self._round

    # -- incidents

    def _start_all(self) -> None:
        for kind in GROUPS[self._round.mix]:
            self._add(kind)
        for member in self._members:
            if not member.wait_until_ready(START_S):
                self._fail(GroupAnomaly.UNFINISHED, f"{member.name} does not start")
        self._await_everybody()
        self._await_flow("the start")

    def _broker_dies(self) -> None:
        self._restart_broker()
        self._audit_offsets("after kill -9")
        self._await_flow("kill -9")

    def _broker_dies_at_a_failpoint(self) -> None:
        name = self._source.choice(sorted(FAILPOINT_PASSES))
        passes = self._source.randint(1, FAILPOINT_PASSES[name])
        self._broker.stop()
        try:
            self._broker.start(environment={"KBROKER_FAILPOINT": f"{name}:{passes}"})
            self._broker.wait_for_end(timeout_s=PATIENCE_S)
        except BrokerDied:
            pass  # met before it was ready
        self._broker.start()
        self._audit_offsets(f"after {name}:{passes}")
        self._await_flow(name)

    def _broker_dies_in_a_rebalance(self) -> None:
        member = self._victim()
        self._members.remove(member)
        self._add(member.kind)
        time.sleep(self._source.uniform(0.3, 1.0))  # it is joining by now
        member.kill()
        self._restart_broker()
        self._audit_offsets("after kill -9 in a rebalance")
        self._await_flow("kill -9 in a rebalance")
        self._await_everybody()

    def _member_crashes(self) -> None:
        member = self._victim()
        self._members.remove(member)
        member.kill()
        self._await_flow(f"a crash of {member.kind}")
        self._join(member.kind)

    def _member_is_stopped(self) -> None:
        """Past its session; it comes back as a stranger."""
        member = self._victim()
        stopped_at = time.monotonic()
        member.stop()
        self._await_flow(f"{member.kind} stopped")
        time.sleep(max(0.0, stopped_at + SESSION_S + 0.5 - time.monotonic()))
        member.go_on()
        self._await_flow(f"{member.kind} goes on")
        self._await_everybody()

    def _member_sleeps_shortly(self) -> None:
        member = self._victim()
        member.stop()
        time.sleep(self._source.uniform(0.5, SESSION_S / 2))
        member.go_on()
        self._await_flow(f"a short stop of {member.kind}")

    def _member_leaves(self) -> None:
        member = self._victim()
        self._members.remove(member)
        member.leave()
        self._await_flow(f"{member.kind} leaves")
        self._join(member.kind)

    # -- parts

    def _join(self, kind: str) -> None:
        self._add(kind)
        self._await_everybody()
        self._await_flow(f"{kind} joins")

    def _await_everybody(self) -> None:
        """Every member owns something: nobody is idle, so that every incident hits a partition."""
        names = {member.name for member in self._members}
        self._poll(lambda: self._history.owners() >= names, PATIENCE_S, "a share for everybody")

    def _add(self, kind: str) -> None:
        name = f"{kind}-{self._number}"
        self._number += 1
        self._members.append(
            MemberProcess(
                kind,
                self._broker.bootstrap,
                self._round.name,
                name,
                self._history,
                self._folder,
            )
        )

    def _victim(self) -> MemberProcess:
        return self._source.choice(self._members)

    def _restart_broker(self) -> None:
        self._broker.kill()
        self._broker.start()

    def _await_commits(self) -> None:
        """Some commits more: the incident falls into work."""
        goal = len(self._history.commits) + SOME_COMMITS
        self._poll(lambda: len(self._history.commits) >= goal, PATIENCE_S, "commits")

    def _await_flow(self, what: str) -> None:
        """The change is now. Every partition flows within the session timeout and the slack."""
        changed_at = time.monotonic()
        left = set(range(PARTITIONS))
        last = 0.0
        deadline = changed_at + PATIENCE_S
        bound_s = SESSION_S + self._round.slack_s
        while left and time.monotonic() < deadline and not self._is_hopeless():
            time.sleep(0.02)
            for partition in tuple(left):
                flowed_at = self._history.flowed_at(partition, changed_at)
                if flowed_at is None:
                    continue
                left.remove(partition)
                after_s = flowed_at - changed_at
                last = max(last, after_s)
                if after_s > bound_s:
                    detail = f"{after_s:.1f} s after {what}"
                    self._fail(GroupAnomaly.STALLED, detail, partition)
        for partition in left if not self._hopeless else ():
            self._fail(GroupAnomaly.STALLED, f"not at all after {what}", partition)
        self._round.flowed_after_s.append((what, last))

    def _drain(self) -> None:
        """Nothing is produced any more: all is read and committed."""
        self._poll(lambda: not self._history.undelivered(), PATIENCE_S, "the last records")
        self._poll(self._is_committed_to_the_end, PATIENCE_S, "the last commits")
        self._audit_offsets("at the end", must_be_at_end=True)

    def _is_committed_to_the_end(self) -> bool:
        acked = self._history.acked_offsets()
        return all(acked.get(p, 0) >= end for p, end in self._ends().items())

    def _ends(self) -> dict[int, int]:
        ends: dict[int, int] = {}
        with self._history.lock:
            for partition, offset in self._history.produced:
                ends[partition] = max(offset + 1, ends.get(partition, 0))
        return ends

    def _end_members(self) -> None:
        for member in self._members:
            member.ask_to_leave()
        for member in self._members:
            member.leave()

    def _audit_offsets(self, when: str, *, must_be_at_end: bool = False) -> None:
        """``acked`` is taken before the broker is asked: it may only be more by then."""
        acked = self._history.acked_offsets()
        told = committed_offsets(self._broker.bootstrap, self._round.name)
        self._round.violations += audit_committed(acked, told, when)
        if must_be_at_end:
            for partition, end in sorted(self._ends().items()):
                if told.get(partition, -1) != end:
                    detail = f"{when}: committed {told.get(partition, -1)} of {end}"
                    self._fail(GroupAnomaly.LAG, detail, partition)

    def _is_hopeless(self) -> bool:
        """Once a partition has two owners, there is nothing to wait for. Looked at now and then."""
        now = time.monotonic()
        if not self._hopeless and now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            with self._history.lock:
                self._hopeless = bool(audit_owners(self._history))
        return self._hopeless

    def _poll(self, check: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not check() and not self._is_hopeless():
            if time.monotonic() > deadline:
                self._fail(GroupAnomaly.UNFINISHED, f"{what}: not within {timeout_s} s")
                return
            time.sleep(0.02)

    def _fail(self, anomaly: GroupAnomaly, detail: str, partition: int = -1) -> None:
        self._round.violations.append(GroupViolation(anomaly, partition, detail))


def create_topic(bootstrap: str, topic: str) -> None:
    """The topic of a round; its group has the same name."""
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    client.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(timeout=PATIENCE_S)


def committed_offsets(bootstrap: str, group: str) -> dict[int, int]:
    """What the broker tells, asked until it is ready to tell."""
    deadline = time.monotonic() + PATIENCE_S
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    while True:
        try:
            request = [ConsumerGroupTopicPartitions(group)]
            future = client.list_consumer_group_offsets(request, request_timeout=5)[group]
            found = future.result(timeout=10).topic_partitions
            return {p.partition: p.offset for p in found if p.error is None}
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
