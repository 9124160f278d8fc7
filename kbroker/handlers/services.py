"""What a handler may call: the broker's services, made by the composition root."""

import logging
from typing import TYPE_CHECKING

from kbroker.common.named_tuple import NamedTuple

if TYPE_CHECKING:
    from typing import Protocol

    from kbroker.common.clock import Clock
    from kbroker.common.entropy import Entropy
    from kbroker.common.offload import Offload
    from kbroker.common.timer import Timer
    from kbroker.config.broker_config import ConfigHolder
    from kbroker.coordinator.group.group_coordinator import GroupCoordinator
    from kbroker.coordinator.transaction.transaction_coordinator import TransactionCoordinator
    from kbroker.handlers.pose import Pose
    from kbroker.metadata.client_metrics import NewManager
    from kbroker.metadata.controller import Controller
    from kbroker.metadata.producer_ids import ProducerIdManager
    from kbroker.metadata.publisher import MetadataPublisher
    from kbroker.replication.fetch_session import FetchSessionCache
    from kbroker.replication.replica_manager import ReplicaManager

    class Coordinators(Protocol):
        """Made when somebody first asks for one."""

        @property
        def group(self) -> GroupCoordinator: ...

        @property
        def transaction(self) -> TransactionCoordinator: ...


class Services(NamedTuple):
    """One broker's services. Handlers hold no state of their own: it is all behind these."""

    node_id: int
    clock: "Clock"
    timer: "Timer"
    entropy: "Entropy"
    offload: "Offload"
    config: "ConfigHolder"
    metadata: "MetadataPublisher"
    controller: "Controller"
    replica_manager: "ReplicaManager"
    coordinators: "Coordinators"
    fetch_sessions: "FetchSessionCache"
    producer_ids: "ProducerIdManager"
    log: logging.Logger
    client_metrics: "NewManager"
    """Gives the manager of client metrics, which is made when somebody first asks for it."""
    receives_telemetry: bool = False
    """Somebody takes what clients push."""
    pose: "Pose | None" = None
    """What to advertise and serve in place of all that is there."""

    @property
    def group_coordinator(self) -> "GroupCoordinator":
        return self.coordinators.group

    @property
    def transaction_coordinator(self) -> "TransactionCoordinator":
        return self.coordinators.transaction
