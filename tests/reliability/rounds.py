"""One round: load, death, restart, more load, audit."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tests.peers.process import BrokerDied
from tests.reliability import workload
from tests.reliability.auditor import Anomaly, Violation, audit
from tests.reliability.history import History
from tests.reliability.reader import read_everything
from tests.reliability.torn_tail import append_torn_batch

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping
    from pathlib import Path

# How many passes a failpoint may let go by: enough to hit any moment of the load's first half
# second, few enough to be reached on a slow machine.
FAILPOINT_PASSES = {
    "append.before_write": 300,
    "append.after_write": 300,
    "append.torn_write": 300,
    "append.before_ack": 300,
    "roll.mid": 3,
    "checkpoint.mid_write": 3,
    "offsets.after_append": 20,
}
FAILPOINT_DEADLINE_S = 60.0
FIRST_ACK_DEADLINE_S = 60.0
AFTER_RESTART_ACKS = 50


class Broker(Protocol):
    """What a round needs of a broker process (see tests/peers)."""

    ready_after_s: float

    @property
    def data_dir(self) -> Path: ...

    @property
    def bootstrap(self) -> str: ...

    @property
    def is_running(self) -> bool: ...

    def start(self, *, environment: Mapping[str, str] | None = None) -> None: ...

    def start_and_kill(self, *, after_s: float) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def wait_for_end(self, *, timeout_s: float) -> int: ...


@dataclass
class Death:
    """How the broker ends in a round: by our hand after ``delay_s``, or at a failpoint.

    ``again_after_s``: how long each of its next starts lasts before it is killed once more.
    """

    delay_s: float
    failpoint: str = ""
    passes: int = 1
    again_after_s: tuple[float, ...] = ()

    def __str__(self) -> str:
        again = "".join(f", again {s * 1000:.0f} ms into the start" for s in self.again_after_s)
        if self.failpoint:
            return f"failpoint {self.failpoint}:{self.passes}{again}"
        return f"kill -9 {self.delay_s * 1000:.0f} ms after the first ack{again}"


@dataclass
class RoundResult:
    """What a round found and measured."""

    topic: str
    death: Death
    history: History
    ready_after_s: float = 0.0
    acked_before_death: int = 0
    records_read: int = 0
    violations: list[Violation] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.topic}: {self.death}; acked {self.acked_before_death} before, "
            f"{len(self.history.acked)} in all, read {self.records_read}; "
            f"ready again after {self.ready_after_s * 1000:.0f} ms; "
            f"{len(self.violations)} violations"
        )


def choose_death(number: int, source: random.Random) -> Death:
    """Every second round dies at a failpoint, every third dies twice more while it recovers."""
    delay_s = source.uniform(0.05, 0.5)
    again = tuple(source.uniform(0.1, 0.6) for _ in range(2)) if number % 3 == 2 else ()
    if number % 2 == 0:
        return Death(delay_s, again_after_s=again)
    failpoint = source.choice(sorted(FAILPOINT_PASSES))
    passes = source.randint(1, FAILPOINT_PASSES[failpoint])
    return Death(delay_s, failpoint, passes, again)


def run_round(broker: Broker, topic: str, death: Death, *, tear_tail: bool = True) -> RoundResult:
    """Runs one round against a running broker and leaves it running.

    ``tear_tail``: while the broker is dead, a batch with a wrong CRC is put behind the last one of
    one partition, as a power cut leaves it; recovery must cut it off.
    """
    result = RoundResult(topic, death, History())
    workload.create_topic(broker.bootstrap, topic)
    died_early = death.failpoint != "" and not _restart_with_failpoint(broker, death)
    if died_early:
        broker.start()
    producers = [
        workload.LoadProducer(broker.bootstrap, topic, number, result.history)
        for number in range(workload.PRODUCERS)
    ]
    threads: list[workload.LoadProducer | workload.Committer] = [*producers]
    try:
        # First the load: a failpoint's passes are to be counted in its batches.
        _poll(
            lambda: any(producer.acks for producer in producers) or not broker.is_running,
            FIRST_ACK_DEADLINE_S,
            "first ack",
        )
        committer = workload.Committer(broker.bootstrap, topic)
        threads.append(committer)
        if not died_early:
            _await_death(broker, death)
            result.acked_before_death = sum(producer.acks for producer in producers)
            if tear_tail:
                append_torn_batch(broker.data_dir, topic)
            for after_s in death.again_after_s:
                broker.start_and_kill(after_s=after_s)
            broker.start()
        result.ready_after_s = broker.ready_after_s
        _await_progress(producers)
    finally:
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.join()
    committed = committer.read_back()
    if committed < committer.acked:
        detail = f"committed offset {committer.acked}, found {committed}"
        result.violations.append(Violation(Anomaly.LOST, 0, detail))
    result.violations += audit_topic(broker.bootstrap, result)
    return result


def audit_topic(bootstrap: str, result: RoundResult) -> list[Violation]:
    """Reads a round's topic as it is now, and audits it."""
    log, unreadable = read_everything(bootstrap, result.topic, workload.PARTITIONS)
    result.records_read = sum(map(len, log.values()))
    return unreadable + audit(result.history, log)


def _restart_with_failpoint(broker: Broker, death: Death) -> bool:
    """Arms the failpoint; False when the broker met it before it was ready."""
    broker.stop()
    try:
        broker.start(environment={"KBROKER_FAILPOINT": f"{death.failpoint}:{death.passes}"})
    except BrokerDied:
        status = broker.wait_for_end(timeout_s=10)
        if status != -signal.SIGKILL:
            raise
        return False
    return True


def _await_death(broker: Broker, death: Death) -> None:
    """Called after the first ack."""
    if not death.failpoint:
        time.sleep(death.delay_s)  # the length of this wait is what the round varies
        broker.kill()
        return
    status = broker.wait_for_end(timeout_s=FAILPOINT_DEADLINE_S)
    if status != -signal.SIGKILL:
        raise BrokerDied(f"{death} ended the broker with {status}")


def _await_progress(producers: list[workload.LoadProducer]) -> None:
    """After the restart every producer gets on, unless it is broken for good."""
    reached = [producer.acks + AFTER_RESTART_ACKS for producer in producers]
    _poll(
        lambda: all(
            producer.acks >= goal or producer.is_broken
            for producer, goal in zip(producers, reached, strict=True)
        ),
        workload.PATIENCE_S,
        "acks after the restart",
    )


def _poll(check: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {timeout_s} s")
        time.sleep(0.005)
