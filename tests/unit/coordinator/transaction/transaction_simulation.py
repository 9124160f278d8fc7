"""Simulated transactions: producers of both versions, partitions, and a coordinator that crashes.

Everything runs on one clock and one seed. What is durable is a log in memory and the partitions'
logs; before and after each write to either the broker may die, and it may die again while it
recovers. Producers behave as clients do: they ask again until they are answered, and somebody with
the same id may begin while they still go on (then they are zombies). Requests of version 2 are
sometimes delivered a second time, late. ``check`` holds after every step, ``check_settled`` when
faults have ended and time has passed:

* a marker is written only when the decision is committed in the log, and says the same,
* completion is written only when every partition has its marker,
* a transaction has one outcome in all its partitions, the one that its producer was told,
* an epoch is given to one producer only, and never goes back in the log,
* when a producer's successor has begun, nothing that it writes or ends is accepted,
* in the end nothing is open or prepared, in the coordinator or in any partition.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import checkpoint

from kbroker.common.faults import Faults
from kbroker.coordinator.deferred import Answer, Deferred
from kbroker.coordinator.partitioning import partition_for
from kbroker.coordinator.transaction.marker_writer import TransactionMarker
from kbroker.coordinator.transaction.transaction_metadata import (
    COMPLETED,
    IDLE,
    LAST_EPOCH,
    PREPARED,
    Identity,
    TransactionMetadata,
    TransactionState,
)
from kbroker.coordinator.transaction.transaction_records import (
    TransactionRecordSerde,
    transaction_record,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import build_batch
from kbroker.record.record import Record
from tests.unit.coordinator.transaction.coordinated import PARTITIONS, Coordinated, Markers
from tests.unit.coordinator.transaction.simulated_disk import (
    Crash,
    Disk,
    PartitionLog,
    Producer,
    SimulatedLog,
    TopicPartition,
    Transaction,
)

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

TOPIC_PARTITIONS: Final = tuple(("t", index) for index in range(4))
IDS: Final = ("a", "b", "c")
TIMEOUTS_MS: Final = (2_000, 10_000, 30_000)
NONE: Final = ErrorCode.NONE
AGAIN: Final = frozenset(
    {
        ErrorCode.CONCURRENT_TRANSACTIONS,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)
FATAL: Final = frozenset(
    {
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.INVALID_PRODUCER_ID_MAPPING,
        ErrorCode.PRODUCER_FENCED,
    }
)


class SimulatedMarkers(Markers):
    """Markers into the simulated partitions; some are refused or answered late."""

    def __init__(self, world: "Simulation") -> None:
        super().__init__()
        self._world = world

    def write(self, topic: str, partition: int, marker: TransactionMarker) -> Answer[None]:
        world = self._world
        if world.faults and world.random.random() < 0.1:
            raise KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)
        if world.planted.planted == "marker_lost" and world.random.random() < 0.3:
            return None
        log = world.partitions[topic, partition]
        log.check(marker.producer_id, marker.producer_epoch)
        world.check_marker((topic, partition), marker)
        world.disk.write()
        log.end(marker)
        world.disk.write()
        if world.faults and world.random.random() < 0.2:
            later: Deferred[None] = Deferred()
            self.open.append(later)
            return later
        return None


class Client:
    """A producer: one step after the other, each asked until it is answered."""

    def __init__(self, world: "Simulation", transactional_id: str, version: int) -> None:
        self._world = world
        self.transactional_id = transactional_id
        self.version = version
        self.timeout_ms = world.random.choice(TIMEOUTS_MS)
        self.identity: Producer | None = None
        self.transaction: Transaction | None = None
        self.commits: bool | None = None
        """What it has decided, until the broker has answered."""
        self.pending: Deferred[Any] | None = None
        self._on_answer: Callable[[Any], None] = self._on_initialized
        self.is_dead = False
        self.is_superseded = False
        self._was_superseded = False

    def forget_request(self) -> None:
        """The broker that was asked is gone."""
        self.pending = None

    def step(self) -> None:
        if self.pending is not None:
            if not self.pending.done:
                return
            answer, self.pending = self.pending, None
            self._on_answer(answer.result())
        elif self.identity is None:
            self._ask(
                self._world.coordinator.init_producer_id(
                    self.transactional_id, self.timeout_ms, None
                ),
                self._on_initialized,
            )
        elif self.commits is not None:
            self._end(self.identity, self.commits)
        elif self.transaction is None:
            self._begin()
        else:
            self._go_on(self.identity, self.transaction)

    def _ask(
        self, outcome: Answer[Any] | Coroutine[Any, Any, Any], on_answer: Callable[[Any], None]
    ) -> None:
        assert not isinstance(outcome, Coroutine)
        if isinstance(outcome, Deferred):
            self.pending, self._on_answer = outcome, on_answer
            outcome.on_done(lambda _: self._note_answer())
        else:
            self._note_answer()
            on_answer(outcome)

    def _note_answer(self) -> None:
        """The answer is out, though it may be read later, when a successor has begun."""
        self._was_superseded = self.is_superseded

    def _begin(self) -> None:
        self.transaction = self._world.new_transaction(self.transactional_id)

    def _go_on(self, identity: Producer, transaction: Transaction) -> None:
        roll = self._world.random.random()
        if roll < 0.35 and transaction.added:
            self.commits = self._world.random.random() < 0.7
            self._end(identity, self.commits)
            return
        partition = self._world.random.choice(TOPIC_PARTITIONS)
        if self.version < 2 and partition not in transaction.added:
            self._ask(
                self._world.coordinator.add_partitions(
                    self.transactional_id, *identity, [partition], self.version
                ),
                lambda error: self._on_added(error, transaction, partition),
            )
            return
        self._write(identity, transaction, partition)

    def _on_initialized(self, answer: Identity) -> None:
        if answer.error is NONE:
            self.identity = (answer.producer_id, answer.producer_epoch)
            self._world.on_identity(self, self.identity)
            self._world.supersede(self)
        elif answer.error in FATAL:
            self.is_dead = True
        else:
            assert answer.error in AGAIN, answer.error

    def _on_added(
        self, error: ErrorCode, transaction: Transaction, partition: TopicPartition
    ) -> None:
        if error is NONE:
            transaction.added.add(partition)
        else:
            self._on_refused(error)

    def _write(
        self, identity: Producer, transaction: Transaction, partition: TopicPartition
    ) -> None:
        """Produce, as the partition's leader does it (KIP-890)."""
        log = self._world.partitions[partition]
        if log.has_open(identity):
            self._append(identity, transaction, partition)
        elif self.version >= 2:
            self._ask(
                self._world.coordinator.add_partitions(
                    self.transactional_id, *identity, [partition], 2
                ),
                lambda error: self._on_joined(error, identity, transaction, partition),
            )
        else:
            errors = self._world.coordinator.verify_partitions(
                self.transactional_id, *identity, [partition]
            )
            self._on_joined(errors[partition], identity, transaction, partition)

    def _on_joined(
        self,
        error: ErrorCode,
        identity: Producer,
        transaction: Transaction,
        partition: TopicPartition,
    ) -> None:
        if error is not NONE:
            self._on_refused(error)
            return
        transaction.added.add(partition)
        self._append(identity, transaction, partition)

    def _append(
        self, identity: Producer, transaction: Transaction, partition: TopicPartition
    ) -> None:
        log = self._world.partitions[partition]
        try:
            if self._world.planted.planted != "epoch_not_fenced":
                log.check(*identity)
        except KafkaError as error:
            self._on_refused(error.error_code)
            return
        assert not self.is_superseded, f"{transaction.name}: a zombie writes to {partition}"
        self._world.disk.write()
        log.write(identity, transaction)
        transaction.written.add(partition)
        self._world.disk.write()

    def _on_refused(self, error: ErrorCode) -> None:
        if error in FATAL:
            self.is_dead = True
        elif error in (ErrorCode.INVALID_TXN_STATE, ErrorCode.TRANSACTION_ABORTABLE):
            if self.transaction is not None and self.transaction.added:
                self.commits = False
            else:
                self.transaction = None
        else:
            assert error in AGAIN, error

    def _end(self, identity: Producer, commit: bool) -> None:
        world = self._world

        def request() -> Answer[Identity] | Coroutine[Any, Any, Identity]:
            return world.coordinator.end_transaction(
                self.transactional_id, *identity, commit=commit, client_version=self.version
            )

        if self.version >= 2 and world.faults and world.random.random() < 0.2:
            world.late.append(request)
        self._ask(request(), self._on_ended)

    def _on_ended(self, answer: Identity) -> None:
        transaction, commit = self.transaction, self.commits
        assert transaction is not None and commit is not None
        if answer.error is NONE:
            assert not self._was_superseded, f"{transaction.name}: a zombie ends it"
            transaction.told = commit
            self.transaction = self.commits = None
            if self.version >= 2:
                self.identity = (answer.producer_id, answer.producer_epoch)
                self._world.on_identity(self, self.identity)
        elif answer.error in FATAL or answer.error is ErrorCode.INVALID_TXN_STATE:
            self.is_dead = True  # aborted by its timeout, or another producer has the id
        else:
            assert answer.error in AGAIN, answer.error


class Simulation:
    """One run. Each step lets some time pass, everybody act, and faults happen."""

    def __init__(self, seed: int, planted: str = "") -> None:
        """``planted``: a fault that must end in an AssertionError."""
        self.planted = Faults(planted=planted)
        self.random = random.Random(seed)
        self.faults = True
        self.disk = Disk()
        self.log = SimulatedLog(self.disk, self._on_record)
        self.partitions = {each: PartitionLog() for each in TOPIC_PARTITIONS}
        self.clients: list[Client] = []
        self.transactions: list[Transaction] = []
        self.late: list[Callable[[], object]] = []
        self.owners: dict[tuple[str, Producer], Client] = {}
        self.crashes = 0
        self._broken: list[str] = []
        self._background: anyio.CancelScope | None = None
        self._has_died_in_background = False
        self.bench = self._new_broker()

    def _new_broker(self) -> Coordinated:
        markers = SimulatedMarkers(self)
        return Coordinated(self.log, lead=False, markers=markers, faults=self.planted)

    async def run(self, steps: int) -> None:
        """AssertionError when something does not hold."""
        if self.random.random() < 0.3:
            self._let_epochs_run_out()
        async with anyio.create_task_group() as tasks:
            await self._start(tasks)
            for transactional_id in IDS:
                self._new_client(transactional_id)
            for _ in range(steps):
                await self._step(tasks)
            await self._heal()
            self.check_settled()
            tasks.cancel_scope.cancel()

    @property
    def coordinator(self) -> Any:
        return self.bench.coordinator

    def new_transaction(self, transactional_id: str) -> Transaction:
        self.transactions.append(Transaction(f"{transactional_id}-{len(self.transactions)}"))
        return self.transactions[-1]

    # -- the broker

    async def _start(self, tasks: "TaskGroup") -> None:
        """A new broker loads what the disk holds. Crash, when it dies while it recovers."""
        old = self.bench
        self.log = self.log.successor()
        new = self.bench = self._new_broker()
        new.clock.advance(old.clock.monotonic() - new.clock.monotonic())
        new.next_id = old.next_id
        if self._background is not None:
            self._background.cancel()
        self._background = anyio.CancelScope()
        self._has_died_in_background = False
        tasks.start_soon(self._run_in_background, new, self._background)
        new.lead()
        while any(new.coordinator.is_loading(index) for index in range(PARTITIONS)):
            await checkpoint()
        new.advance(0.0)  # what recovery has to finish

    async def _run_in_background(self, bench: Coordinated, scope: anyio.CancelScope) -> None:
        """Loading, and aborts that need a producer id."""
        try:
            with scope:
                await bench.coordinator.run()
        except* Crash:
            self._has_died_in_background = bench is self.bench

    async def _die(self, tasks: "TaskGroup") -> None:
        """A restart, with as many deaths in between as the disk has in store."""
        while True:
            self.crashes += 1
            for client in self.clients:
                client.forget_request()
            self.disk.writes_left = self.random.randint(1, 6) if self._is_unlucky() else None
            try:
                await self._start(tasks)
                return
            except Crash:
                continue

    def _is_unlucky(self) -> bool:
        return self.faults and self.random.random() < 0.4

    def _let_epochs_run_out(self) -> None:
        """Ids that have been used for long: a few epochs are left."""
        serde = TransactionRecordSerde()
        for number, transactional_id in enumerate(IDS):
            metadata = TransactionMetadata(
                transactional_id=transactional_id,
                producer_id=number,
                producer_epoch=LAST_EPOCH - self.random.randint(0, 4),
                timeout_ms=1000,
                update_ms=1_700_000_000_000,
            )
            key, value = serde.serialize(transaction_record(metadata))
            batch = build_batch([Record(key=key, value=value, timestamp=0)])
            self.log.append("", partition_for(transactional_id, PARTITIONS), batch)

    # -- the clients

    def _new_client(self, transactional_id: str) -> None:
        self.clients.append(Client(self, transactional_id, self.random.choice((0, 2))))

    def supersede(self, client: Client) -> None:
        """It has begun: those before it are zombies from now on. Ids and epochs only grow."""
        assert client.identity is not None
        for other in self.clients:
            if other.identity is None or other.transactional_id != client.transactional_id:
                continue
            other.is_superseded |= other.identity < client.identity
            client.is_superseded |= client.identity < other.identity

    def on_identity(self, client: Client, identity: Producer) -> None:
        owner = self.owners.setdefault((client.transactional_id, identity), client)
        assert owner is client, f"{client.transactional_id}: {identity} is given to two producers"

    # -- one step

    async def _step(self, tasks: "TaskGroup") -> None:
        if self.faults:
            self._maybe_fault()
        try:
            self.bench.advance(self.random.choice((0.0, 0.01, 0.2, 1.0)))
            for client in self.random.sample(self.clients, len(self.clients)):
                if not client.is_dead:
                    client.step()
            self._deliver()
            await checkpoint()
            if self._has_died_in_background:
                raise Crash
        except Crash:
            await self._die(tasks)
        self._replace_the_dead()
        self.check()

    def _deliver(self) -> None:
        """Markers' answers, replication, requests that come late."""
        if self.bench.markers.open and self.random.random() < 0.5:
            self.bench.markers.open.pop(0).complete(None)
        if not self.log.replicated and self.random.random() < 0.5:
            for index in range(PARTITIONS):
                self.log.commit("__transaction_state", index)
        if self.late and self.random.random() < 0.2:
            self.late.pop(self.random.randrange(len(self.late)))()

    def _maybe_fault(self) -> None:
        roll = self.random.random()
        if roll < 0.06:
            self.disk.writes_left = self.random.randint(1, 12)
        elif roll < 0.08:
            self._new_client(self.random.choice(IDS))  # the old one goes on: a zombie
        elif roll < 0.09:
            self.random.choice(self.clients).is_dead = True
        elif roll < 0.10:
            self.log.failure = KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)
        elif roll < 0.14:
            self.log.failure = None
        elif roll < 0.16:
            self.log.replicated = not self.log.replicated
        elif roll < 0.18:
            self.bench.clock.advance(self.random.uniform(1, 20))

    def _replace_the_dead(self) -> None:
        for client in [each for each in self.clients if each.is_dead]:
            self.clients.remove(client)
            if all(each.transactional_id != client.transactional_id for each in self.clients):
                self._new_client(client.transactional_id)

    async def _heal(self) -> None:
        """No more faults, and nobody begins anything; what is open times out."""
        self.faults = False
        self.disk.writes_left = None
        self.log.failure = None
        self.log.replicated = True
        for index in range(PARTITIONS):
            self.log.commit("__transaction_state", index)
        self.late.clear()
        for answer in self.bench.markers.open:
            answer.complete(None)
        self.clients.clear()
        for _ in range(60):
            self.bench.advance(1.0)
            await checkpoint()

    # -- what must hold

    def _require(self, condition: bool, message: str) -> None:
        """For what is noticed while the coordinator runs, whose timers would survive an error."""
        if not condition:
            self._broken.append(message)

    def _on_record(self, metadata: TransactionMetadata) -> None:
        """Before a record is written."""
        before = self.log.last(metadata.transactional_id, committed=False)
        if before is None:
            return
        if before.producer_id == metadata.producer_id:
            self._require(metadata.producer_epoch >= before.producer_epoch, "an epoch goes back")
        if metadata.state in COMPLETED and before.state in PREPARED:
            for partition in before.partitions:
                log = self.partitions[partition]
                is_newer = log.epochs.get(before.producer_id, -1) > before.producer_epoch
                self._require(
                    is_newer or not log.open.get(before.producer_id),
                    f"{metadata.transactional_id} is complete without a marker in {partition}",
                )

    def check_marker(self, partition: TopicPartition, marker: TransactionMarker) -> None:
        """Before a marker is written."""
        expected = (
            TransactionState.PREPARE_COMMIT if marker.commit else TransactionState.PREPARE_ABORT
        )
        decided = [
            metadata
            for metadata in (self.log.last(each, committed=True) for each in IDS)
            if metadata is not None
            and metadata.state is expected
            and (metadata.producer_id, metadata.producer_epoch)
            == (marker.producer_id, marker.producer_epoch)
            and partition in metadata.partitions
        ]
        self._require(len(decided) == 1, f"nobody has decided on {marker} in {partition}")

    def check(self) -> None:
        assert not self._broken, self._broken[0]
        outcomes: dict[str, set[bool]] = defaultdict(set)
        for log in self.partitions.values():
            for transaction, committed in log.outcomes:
                outcomes[transaction.name].add(committed)
                if transaction.told is not None:
                    assert committed is transaction.told, f"{transaction.name}: told otherwise"
        for name, found in outcomes.items():
            assert len(found) == 1, f"{name} is torn"

    def check_settled(self) -> None:
        for partition, log in self.partitions.items():
            open_names = [each.name for found in log.open.values() for each in found]
            assert not open_names, f"{open_names} are still open in {partition}"
        for transactional_id in IDS:
            metadata = self.log.last(transactional_id, committed=True)
            assert metadata is None or metadata.state in IDLE, metadata
        self.check()
