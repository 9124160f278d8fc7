"""Exactly-once under crashes: consume-transform-produce while brokers and clients die.

Workers (``transactions_worker``) copy an input topic to an output topic, each in transactions that
carry the group's offsets. A round feeds input and lets somebody die a few times, often while the
last death is not recovered from; then it waits until all input is consumed and audits everything
there is (``transactions_auditor``). The broker dies at each
failpoint of a transaction at least once, then at random; clients are killed, or frozen and thawed
behind the back of their successor; transactions are abandoned and time out without a broker.

By hand: ``python -m tests.reliability.transactions --crashes 100 --inputs 10000 --seed 7``; the
status is 1 when a violation was found (0 with ``--planted``, where one is looked for).
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from kbroker.common.faults import FAILPOINTS
from tests.peers.apache_kafka import ApacheKafka
from tests.peers.kafka_tools import KafkaTools
from tests.peers.kbroker_process import KbrokerProcess
from tests.peers.process import BrokerDied
from tests.reliability.transactions_auditor import (
    Observation,
    TransactionAnomaly,
    TransactionViolation,
    audit_transactions,
)
from tests.reliability.transactions_crew import (
    Crew,
    Life,
    confluent_worker,
    java_worker,
    member_worker,
    wait_until,
)
from tests.reliability.transactions_history import OutputRecord, value_of
from tests.reliability.transactions_reader import Broker, LiveObserver
from tests.reliability.transactions_worker import QUICK, SESSION_MS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.reliability.rounds import Broker as BrokerProcess
    from tests.reliability.transactions_crew import Launch

INPUT, OUTPUT, GROUP = "orders", "results", "exactly-once"
INPUT_PARTITIONS = 4
OUTPUT_PARTITIONS = 3
WORKERS = 2
CRASHES_A_ROUND = 4
ABANDONED_TIMEOUT_MS = 1_000
SETTLE_TIMEOUT_S = 60.0
DEATH_TIMEOUT_S = 30.0
FEEDING_INTERVAL_S = 3.0
PLANTED_INPUTS = 60
PLANTED_SETTLE_TIMEOUT_S = 4.0
"""With a planted fault nothing may ever settle; what is wrong shows at once."""
BROKER_SETTINGS = {
    # Producers that were killed leave transactions behind; only those that are abandoned time out.
    # One partition each and small segments: in a long run both roll and are compacted meanwhile.
    "offsets.topic.num.partitions": "1",
    "offsets.topic.segment.bytes": "1048576",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.segment.bytes": "1048576",
    "log.cleaner.backoff.ms": "500",
    "log.cleaner.min.cleanable.ratio": "0.01",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": str(SESSION_MS),
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": str(SESSION_MS // 6),
}
TRANSACTION_FAILPOINTS = tuple(sorted(name for name in FAILPOINTS if name.startswith("txn.")))
CLIENTS_ALONE = ((1, "freeze"), (4, "kill"), (7, "abandon"), (10, "freeze"))
"""Where crashes stand in a plan that no failpoint makes: clients that die without the broker."""
CRASHES_OF_ALL_KINDS = len(TRANSACTION_FAILPOINTS) + len(CLIENTS_ALONE)
CLIENTS: dict[str, Callable[[], Launch]] = {
    "confluent": lambda: confluent_worker,
    "classic-members": lambda: member_worker("classic"),
    "consumer-members": lambda: member_worker("consumer"),
    "java": lambda: java_worker(KafkaTools()),
}
PLANTED_TRANSACTION_FAULTS = ("marker_lost", "epoch_not_fenced")
MOST_PASSES = {"txn.init": 1, "txn.marker": 12, "txn.end": 6}
"""Fewer than a round's input makes; what is not named is passed once in a transaction at least."""
MOST_PASSES_OF_OTHERS = 6


@dataclass(frozen=True)
class Crash:
    """Who dies. ``client``: "", "kill", "freeze" or "abandon"."""

    broker_delay_s: float = -1.0
    failpoint: str = ""
    passes: int = 1
    client: str = ""

    @property
    def kills_broker(self) -> bool:
        return self.broker_delay_s >= 0

    @property
    def environment(self) -> dict[str, str]:
        """What arms the failpoint at a broker's start."""
        return {"KBROKER_FAILPOINT": f"{self.failpoint}:{self.passes}"} if self.failpoint else {}

    def __str__(self) -> str:
        parts = [f"client: {self.client}"] if self.client else []
        if self.failpoint:
            parts.append(f"broker at {self.failpoint}:{self.passes}")
        elif self.kills_broker:
            parts.append(f"broker after {self.broker_delay_s * 1000:.0f} ms")
        return ", ".join(parts) or "nobody"


NOBODY = Crash()
"""Nobody dies: a start without a failpoint."""


def plan_crashes(rounds: int, source: random.Random, *, with_failpoints: bool) -> list[Crash]:
    """Each failpoint once, in a random order; then anything."""
    names = list(TRANSACTION_FAILPOINTS) if with_failpoints else []
    source.shuffle(names)
    crashes = [_at_failpoint(name, source) for name in names]
    for place, client in CLIENTS_ALONE:
        delay_s = source.uniform(0.0, 0.3) if client == "abandon" else -1.0
        crashes.insert(min(place, len(crashes)), Crash(broker_delay_s=delay_s, client=client))
    while len(crashes) < rounds:
        if with_failpoints and source.random() < 0.5:
            crashes.append(_at_failpoint(source.choice(TRANSACTION_FAILPOINTS), source))
            continue
        client = source.choice(["", "", "kill", "freeze", "abandon"])
        delay_s = source.uniform(0.0, 0.5)
        if client in ("kill", "freeze") and source.random() < 0.5:
            delay_s = -1.0
        crashes.append(Crash(broker_delay_s=delay_s, client=client))
    return crashes[:rounds]


def _at_failpoint(name: str, source: random.Random) -> Crash:
    step = name.rpartition(".")[0]
    passes = source.randint(1, MOST_PASSES.get(step, MOST_PASSES_OF_OTHERS))
    client = "kill" if step == "txn.init" else ""  # else nobody asks for a producer id
    return Crash(broker_delay_s=0.0, failpoint=name, passes=passes, client=client)


@dataclass
class TransactionRound:
    """What a round did and found."""

    number: int
    crashes: list[Crash]
    commits: int = 0
    fenced: int = 0
    stalled: int = 0
    seconds: float = 0.0
    violations: list[TransactionViolation] = field(default_factory=list)

    def __str__(self) -> str:
        crashes = " / ".join(map(str, self.crashes))
        return (
            f"round {self.number}: {crashes}; {self.commits} transactions committed, "
            f"{self.fenced} workers fenced, {self.stalled} stalled, {self.seconds:.1f} s; "
            f"{len(self.violations)} violations"
        )


class TransactionCampaign:
    """Rounds on one broker, which is started here and killed at the end."""

    def __init__(
        self,
        broker: BrokerProcess,
        folder: Path,
        *,
        inputs: int,
        crashes: list[Crash],
        seed: int,
        crashes_a_round: int = CRASHES_A_ROUND,
        settle_timeout_s: float = SETTLE_TIMEOUT_S,
        launch: Launch = confluent_worker,
        report: Callable[[str], None] = print,
    ) -> None:
        self._broker = broker
        self._launch = launch
        self._crashes_a_round = crashes_a_round
        self._settle_timeout_s = settle_timeout_s
        self._folder = folder
        self._source = random.Random(seed)
        self._inputs_a_crash = -(-inputs // len(crashes))
        self._crashes = crashes
        self._report = report
        self._is_dead = False
        self._fed = 0
        self.rounds: list[TransactionRound] = []

    @property
    def violations(self) -> list[TransactionViolation]:
        return [violation for each in self.rounds for violation in each.violations]

    @property
    def inputs(self) -> int:
        """How many records have been fed."""
        return self._fed

    def run(self, *, stop_at_violation: bool = True) -> None:
        """All rounds, or until one finds something."""
        self._broker.start()
        try:
            self._open()
            try:
                wait_until("worker is ready", self._all_ready, SETTLE_TIMEOUT_S)
                for first in range(0, len(self._crashes), self._crashes_a_round):
                    crashes = self._crashes[first : first + self._crashes_a_round]
                    done = self._round(len(self.rounds), crashes)
                    self.rounds.append(done)
                    self._report(str(done))
                    if done.violations and stop_at_violation:
                        break
            finally:
                self._observer.stop()
                self._crew.kill_all()
        finally:
            self._broker.kill()

    def _open(self) -> None:
        bootstrap = self._broker.bootstrap
        admin = AdminClient({"bootstrap.servers": bootstrap, **QUICK})
        topics = [NewTopic(INPUT, INPUT_PARTITIONS, 1), NewTopic(OUTPUT, OUTPUT_PARTITIONS, 1)]
        for created in admin.create_topics(topics).values():
            created.result(timeout=30)
        self._feeder = Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 0, **QUICK}
        )
        self._questions = Broker(bootstrap, GROUP, (INPUT, OUTPUT))
        self._observer = LiveObserver(bootstrap, OUTPUT, OUTPUT_PARTITIONS)
        self._crew = Crew(
            self._folder / "crew",
            bootstrap,
            posts=WORKERS,
            topics=(INPUT, OUTPUT),
            partitions=(INPUT_PARTITIONS, OUTPUT_PARTITIONS),
            group=GROUP,
            launch=self._launch,
        )

    def _all_ready(self) -> bool:
        self._crew.look_after()
        return all(post.life.is_ready for post in self._crew.posts)

    # -- a round

    def _round(self, number: int, crashes: list[Crash]) -> TransactionRound:
        done = TransactionRound(number, crashes)
        started, before = time.monotonic(), self._crew.commits
        fenced_before, stalled_before = self._crew.fenced, self._crew.stalled
        if crashes[0].failpoint:
            self._broker.kill()
            self._start(crashes[0])
        for place, crash in enumerate(crashes):
            following = crashes[place + 1] if place + 1 < len(crashes) else NOBODY
            self._crash(f"{number}-{place}", crash, following)
        self._settle()
        done.violations = self._audit()
        done.commits = self._crew.commits - before
        done.fenced = self._crew.fenced - fenced_before
        done.stalled = self._crew.stalled - stalled_before
        done.seconds = time.monotonic() - started
        return done

    def _crash(self, name: str, crash: Crash, following: Crash) -> None:
        """``following`` is what the broker is started for that comes after this death."""
        self._feed()
        frozen = self._client_dies(name, crash)
        if crash.kills_broker:
            self._broker_dies(crash)
            # A zombie needs a broker that lives until its successor has done something.
            self._start(following if frozen is None else NOBODY)
        if frozen is not None:
            self._thaw(frozen)
        if following.failpoint and (frozen is not None or not crash.kills_broker):
            self._broker.kill()
            self._start(following)

    def _start(self, crash: Crash) -> None:
        """A failpoint is armed by a start; it may be met in the recovery already."""
        try:
            self._broker.start(environment=crash.environment)
        except BrokerDied:
            self._require_killed()
            self._is_dead = True

    def _require_killed(self) -> None:
        status = self._broker.wait_for_end(timeout_s=DEATH_TIMEOUT_S)
        if status != -signal.SIGKILL:
            raise BrokerDied(f"ended by itself with {status}")

    def _feed(self) -> None:
        """Input for the round; it arrives as soon as the broker is there."""
        for number in range(self._inputs_a_crash):
            self._feeder.produce(INPUT, b"order", partition=number % INPUT_PARTITIONS)
        self._fed += self._inputs_a_crash
        self._feeder.poll(0)
        if self._broker.is_running:
            self._feeder.flush(0.05)  # what is not sent by then goes on by itself

    def _client_dies(self, name: str, crash: Crash) -> Life | None:
        """A frozen worker is given back: it is to be thawed when its successor works."""
        if crash.client == "abandon":
            self._abandon(f"abandoned-{name}")
        elif crash.client:
            wait_until("input is read", self._somebody_works, DEATH_TIMEOUT_S)
            post = self._source.choice(self._crew.posts)
            if crash.client == "freeze":
                # Who has no producer id yet would get his after his successor, and rightly so.
                wait_until("worker to freeze", lambda: post.life.is_ready, DEATH_TIMEOUT_S)
            time.sleep(self._source.uniform(0.0, 0.03))  # any moment of a transaction
            if crash.client == "freeze":
                return self._crew.freeze(post)
            self._crew.kill(post)
        return None

    def _somebody_works(self) -> bool:
        known = len(self._crew.accounts.begun)
        self._crew.look_after_journals()
        return len(self._crew.accounts.begun) > known or not self._broker.is_running

    def _abandon(self, name: str) -> None:
        """A transaction on all partitions whose producer never comes back."""
        accounts = self._crew.accounts
        accounts.begun.add(name)
        accounts.aborted.add(name)  # nobody will commit it
        settings: dict[str, Any] = {
            "bootstrap.servers": self._broker.bootstrap,
            "transactional.id": name,
            "transaction.timeout.ms": ABANDONED_TIMEOUT_MS,
            **QUICK,
        }
        producer = Producer(settings)
        producer.init_transactions(DEATH_TIMEOUT_S)
        producer.begin_transaction()
        for partition in range(OUTPUT_PARTITIONS):
            record = OutputRecord(name, OUTPUT_PARTITIONS, 0, 0)
            producer.produce(OUTPUT, value_of(record), partition=partition)
        if producer.flush(DEATH_TIMEOUT_S):
            raise TimeoutError("the abandoned transaction is not written")

    def _broker_dies(self, crash: Crash) -> None:
        if self._is_dead:
            self._is_dead = False
        elif crash.failpoint:
            self._require_killed()
        else:
            time.sleep(crash.broker_delay_s)  # the length of this wait is what rounds vary
            self._broker.kill()
            if crash.client == "abandon":
                time.sleep(ABANDONED_TIMEOUT_MS / 1000)  # it times out while nobody is there

    def _thaw(self, frozen: Life) -> None:
        """When its successor has committed something: that is what it must not do again."""
        post = next(post for post in self._crew.posts if frozen in post.lives)

        fed_at = time.monotonic()

        def has_committed() -> bool:
            nonlocal fed_at
            self._crew.look_after()
            if time.monotonic() > fed_at + FEEDING_INTERVAL_S:
                self._feed()  # another member of the group may have taken all that there was
                fed_at = time.monotonic()
            return post.life.commits > 0

        wait_until("commit of the successor", has_committed, SETTLE_TIMEOUT_S)
        self._crew.thaw(frozen)
        self._crew.bury_zombies()

    # -- the end of a round

    def _settle(self) -> None:
        """All input is consumed and nothing is open, without anybody's help."""
        deadline = time.monotonic() + self._settle_timeout_s
        if self._feeder.flush(SETTLE_TIMEOUT_S):
            raise TimeoutError("the input cannot be written")
        while time.monotonic() < deadline:
            self._crew.look_after()
            try:
                if self._is_settled():
                    break
            except KafkaException:  # still starting, or an offset that is not stable yet
                self._questions.forget()
            time.sleep(0.02)
        # In time or not: the auditor says what is wrong.
        wait_until("settled journals", self._nobody_is_in_a_transaction, SETTLE_TIMEOUT_S)

    def _is_settled(self) -> bool:
        ends = self._questions.input_ends(INPUT_PARTITIONS)
        if self._questions.committed() != ends:
            return False
        stable_ends = self._questions.output_ends(OUTPUT_PARTITIONS)
        return all(stable == high for stable, high in stable_ends.values())

    def _nobody_is_in_a_transaction(self) -> bool:
        """What was begun by those who live has its end in their journals."""
        self._crew.look_after()
        for post in self._crew.posts:
            events = post.life.events()
            if events and events[-1][0] == "begun":
                return False
        return True

    def _audit(self) -> list[TransactionViolation]:
        try:
            found = self._observe()
        except KafkaException as refused:  # for instance offsets that never become stable
            return [TransactionViolation(TransactionAnomaly.STUCK, str(refused))]
        found.seen = list(self._observer.seen)
        self._crew.look_after_journals()
        return audit_transactions(self._crew.accounts, found)

    def _observe(self) -> Observation:
        deadline = time.monotonic() + self._settle_timeout_s
        while True:
            try:
                return self._questions.observe(INPUT_PARTITIONS, OUTPUT_PARTITIONS)
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                self._questions.forget()


def hunt_planted_transaction_fault(
    broker: BrokerProcess,
    folder: Path,
    fault: str,
    *,
    seed: int,
    at_most: int,
    report: Callable[[str], None] = print,
) -> TransactionCampaign:
    """Rounds on a broker with a planted fault until one reports a violation, ``at_most`` so many.

    A lost marker needs no crash at all, an epoch that fences nobody needs a zombie.
    """
    crash = Crash(client="freeze") if fault == "epoch_not_fenced" else NOBODY
    campaign = TransactionCampaign(
        broker,
        folder,
        inputs=PLANTED_INPUTS * at_most,
        crashes=[crash] * at_most,
        seed=seed,
        crashes_a_round=1,
        settle_timeout_s=PLANTED_SETTLE_TIMEOUT_S,
        report=report,
    )
    campaign.run()
    return campaign


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.transactions")
    parser.add_argument("--crashes", type=int, default=40)
    parser.add_argument("--inputs", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", choices=("kbroker", "apache-kafka"), default="kbroker")
    parser.add_argument("--client", choices=tuple(CLIENTS), default="confluent")
    parser.add_argument("--planted", choices=PLANTED_TRANSACTION_FAULTS)
    parser.add_argument("--folder", type=Path, help="where to work and leave the data directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kbroker-transactions-") as scratch:
        folder = options.folder or Path(scratch)
        broker: BrokerProcess
        if options.broker == "apache-kafka":
            broker = ApacheKafka(folder / "node", settings=BROKER_SETTINGS)
        else:
            environment = {"KBROKER_PLANTED_FAULT": options.planted} if options.planted else {}
            broker = KbrokerProcess(
                folder / "node", settings=BROKER_SETTINGS, environment=environment
            )
        campaign = _campaign(options, broker, folder)
    print(f"{campaign.inputs} inputs, {len(campaign.violations)} violations")
    print("\n".join(map(str, campaign.violations[:50])))
    return 1 if bool(campaign.violations) is not bool(options.planted) else 0


def _campaign(
    options: argparse.Namespace, broker: BrokerProcess, folder: Path
) -> TransactionCampaign:
    if options.planted:
        return hunt_planted_transaction_fault(
            broker, folder, options.planted, seed=options.seed, at_most=options.crashes
        )
    crashes = plan_crashes(
        options.crashes, random.Random(options.seed), with_failpoints=options.broker == "kbroker"
    )
    campaign = TransactionCampaign(
        broker,
        folder,
        inputs=options.inputs,
        crashes=crashes,
        seed=options.seed,
        launch=CLIENTS[options.client](),
    )
    campaign.run()
    return campaign


if __name__ == "__main__":
    sys.exit(main())
