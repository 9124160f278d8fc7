"""Where a client finds the leader it asked the wrong broker for (KIP-951)."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext


class Node(NamedTuple):
    """A broker as a client is told of it."""

    node_id: int
    host: str
    port: int
    rack: str | None


class CurrentLeader(NamedTuple):
    """Leader id and epoch, -1 when unknown; ``node`` when it is alive on the client's listener."""

    leader_id: int
    leader_epoch: int
    node: Node | None


def current_leader(
    services: "Services", context: "RequestContext", topic: str, index: int
) -> CurrentLeader:
    """What this broker knows of the leader of a partition."""
    image = services.metadata.image
    partition = services.replica_manager.get_partition(topic, index)
    if partition is not None:
        leader_id, leader_epoch = partition.leader, partition.leader_epoch
    else:
        known = image.topics.get(topic)
        if known is None or not 0 <= index < len(known.partitions):
            return CurrentLeader(-1, -1, None)
        leader_id = known.partitions[index].leader
        leader_epoch = known.partitions[index].leader_epoch
    broker = image.brokers.get(leader_id)
    if broker is None or broker.fenced:
        return CurrentLeader(leader_id, leader_epoch, None)
    if leader_id == services.node_id:
        host, port = context.connection.advertised_address()
        return CurrentLeader(leader_id, leader_epoch, Node(leader_id, host, port, broker.rack))
    endpoint = broker.endpoints.get(context.connection.listener_name)
    if endpoint is None:
        return CurrentLeader(leader_id, leader_epoch, None)
    return CurrentLeader(leader_id, leader_epoch, Node(leader_id, *endpoint, broker.rack))
