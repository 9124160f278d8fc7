"""The coordinators of a broker, made when their topic appears or a request asks for one.

Most brokers start without groups and without transactions: what coordinates them is then neither
imported nor made.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from kbroker.metadata.delta import difference
from kbroker.metadata.image import EMPTY_IMAGE
from kbroker.metadata.topic_names import CONSUMER_OFFSETS, TRANSACTION_STATE

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from kbroker.common.clock import Clock
    from kbroker.common.entropy import Entropy
    from kbroker.common.faults import Faults
    from kbroker.common.timer import Timer
    from kbroker.config.broker_config import ConfigHolder
    from kbroker.coordinator.group.group_coordinator import GroupCoordinator
    from kbroker.coordinator.transaction.marker_writer import MarkerWriter
    from kbroker.coordinator.transaction.transaction_coordinator import TransactionCoordinator
    from kbroker.coordinator.writer import PartitionWriter
    from kbroker.metadata.delta import MetadataDelta
    from kbroker.metadata.image import MetadataImage
    from kbroker.metadata.producer_ids import ProducerIdManager
    from kbroker.metadata.publisher import MetadataPublisher
    from kbroker.replication.replica_manager import ReplicaManager


class _Coordinator(Protocol):
    async def run(self) -> None: ...

    def apply(self, delta: "MetadataDelta", image: "MetadataImage") -> None: ...


C = TypeVar("C", bound=_Coordinator)


class _OnDemand(Generic[C]):
    """One coordinator; a subscriber of the metadata from the start, so that its turn stays."""

    def __init__(self, topic: str, make: Callable[[], C], metadata: "MetadataPublisher") -> None:
        self._topic = topic
        self._make = make
        self._metadata = metadata
        self._made: C | None = None
        self._tasks: TaskGroup | None = None
        metadata.subscribe(self._apply)

    def get(self) -> C:
        made = self._made
        if made is None:
            made = self._made = self._make()
            image = self._metadata.image
            made.apply(difference(EMPTY_IMAGE, image), image)
            if self._tasks is not None:
                self._tasks.start_soon(made.run)
        return made

    def start(self, tasks: "TaskGroup") -> None:
        """From here on it loads what the broker leads."""
        self._tasks = tasks
        if self._made is not None:
            tasks.start_soon(self._made.run)

    def _apply(self, delta: "MetadataDelta", image: "MetadataImage") -> None:
        if self._made is not None:
            self._made.apply(delta, image)
        elif image.topics.get(self._topic) is not None:
            self.get()


class Coordinators:
    """Of groups and of transactions. To be made after the replica manager has subscribed:
    partitions are led before a coordinator is told."""

    def __init__(
        self,
        *,
        node_id: int,
        config: "ConfigHolder",
        clock: "Clock",
        timer: "Timer",
        entropy: "Entropy",
        metadata: "MetadataPublisher",
        replica_manager: "ReplicaManager",
        producer_ids: "ProducerIdManager",
        faults: "Faults",
    ) -> None:
        self._node_id = node_id
        self._config = config
        self._clock = clock
        self._timer = timer
        self._entropy = entropy
        self._replicas = replica_manager
        self._producer_ids = producer_ids
        self._faults = faults
        self._group = _OnDemand(CONSUMER_OFFSETS, self._new_group, metadata)
        self._transaction = _OnDemand(TRANSACTION_STATE, self._new_transaction, metadata)

    @property
    def group(self) -> "GroupCoordinator":
        return self._group.get()

    @property
    def transaction(self) -> "TransactionCoordinator":
        return self._transaction.get()

    def start(self, tasks: "TaskGroup") -> None:
        """Load what this broker leads, and will lead, in the background.

        Until they have read their topics they say so to whoever asks: nobody else waits for it.
        """
        self._group.start(tasks)
        self._transaction.start(tasks)

    def import_ahead(self) -> None:
        """What the first group and the first transaction will need."""
        import kbroker.broker.transaction_markers
        import kbroker.coordinator.group.group_coordinator
        import kbroker.coordinator.transaction.transaction_coordinator  # noqa: F401

    def _new_group(self) -> "GroupCoordinator":
        from kbroker.broker.adapters import LogLoader
        from kbroker.coordinator.group.group_coordinator import GroupCoordinator

        return GroupCoordinator(
            node_id=self._node_id,
            config=self._config,
            clock=self._clock,
            timer=self._timer,
            entropy=self._entropy,
            writer=self._writer(),
            loader=LogLoader(self._replicas),
            log=logging.getLogger("kbroker.group"),
            faults=self._faults,
        )

    def _new_transaction(self) -> "TransactionCoordinator":
        from kbroker.broker.adapters import LogLoader
        from kbroker.coordinator.transaction.transaction_coordinator import TransactionCoordinator

        return TransactionCoordinator(
            node_id=self._node_id,
            config=self._config,
            clock=self._clock,
            timer=self._timer,
            writer=self._writer(),
            loader=LogLoader(self._replicas),
            markers=self._markers(),
            generate_producer_id=self._producer_ids.generate,
            log=logging.getLogger("kbroker.transaction"),
            faults=self._faults,
        )

    def _writer(self) -> "PartitionWriter":
        from kbroker.broker.adapters import ReplicaWriter

        writer = ReplicaWriter(self._replicas)
        if not self._faults.has_transactional_failpoint:
            return writer
        from kbroker.coordinator.transaction.failpoints import FailpointWriter

        return FailpointWriter(writer, self._faults, self._timer)

    def _markers(self) -> "MarkerWriter":
        from kbroker.broker.transaction_markers import LocalMarkerWriter

        markers = LocalMarkerWriter(self._replicas, self._group.get, self._clock)
        if not self._faults.has_transactional_failpoint and self._faults.planted != "marker_lost":
            return markers
        from kbroker.coordinator.transaction.failpoints import FailpointMarkerWriter

        return FailpointMarkerWriter(markers, self._faults)
