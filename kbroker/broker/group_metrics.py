"""Lag of the groups that this broker coordinates, under the names of kafka_exporter."""

from typing import TYPE_CHECKING, Any

from anyio.lowlevel import checkpoint

from kbroker.broker.metrics import GAUGE, Family, in_turns
from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.group.offset_and_metadata import unpacked
from kbroker.protocol.messages.list_groups_request import ListGroupsRequest
from kbroker.protocol.messages.list_groups_response import ListGroupsResponse

if TYPE_CHECKING:
    from kbroker.broker.broker_server import BrokerServer
    from kbroker.coordinator.group.offset_store import GroupOffsets


async def collect_groups(server: "BrokerServer") -> list[Family]:
    """Groups, their states, what they committed and how far that is behind.

    Lag is the high watermark less the committed offset, and told where the partition is led here.
    While a coordinator is still loading nothing is told.
    """
    requests = server.coordinators.group.requests
    listed: Any = requests.list_groups(ListGroupsRequest())
    if not isinstance(listed, ListGroupsResponse):
        listed = await listed
    if listed.error_code:
        return []
    count = Family("kafka_coordinator_group_groupmetadatamanager_numgroups", GAUGE, "Groups")
    states = Family("kbroker_group_state", GAUGE, "1 for the state that a group is in")
    offsets = Family("kafka_consumergroup_current_offset", GAUGE, "Committed offset")
    lags = Family("kafka_consumergroup_lag", GAUGE, "Records behind the high watermark")
    sums = Family("kafka_consumergroup_lag_sum", GAUGE, "The same, over the partitions of a topic")
    for group in listed.groups:
        name = group.group_id
        states.add(1, consumergroup=name, state=group.group_state, type=group.group_type)
        answer = requests.committed_offsets(name)
        committed = await answer.wait() if isinstance(answer, Deferred) else answer
        await _add_lag(server, name, committed, offsets, lags, sums)
        await checkpoint()
    return [count.add(len(listed.groups)), states, offsets, lags, sums]


async def _add_lag(
    server: "BrokerServer",
    group: str,
    committed: "GroupOffsets",
    offsets: Family,
    lags: Family,
    sums: Family,
) -> None:
    totals: dict[str, int] = {}  # of topics of which a partition is led here
    async for topic, index, held in in_turns(
        (topic, index, held) for topic, of in committed.items() for index, held in of.items()
    ):
        offset = unpacked(held).committed_offset
        labels = {"consumergroup": group, "topic": topic, "partition": str(index)}
        offsets.put(offset, labels)
        partition = server.replica_manager.get_partition(topic, index)
        if partition is not None and partition.is_leader:
            lag = max(partition.log.high_watermark - offset, 0)
            lags.put(lag, labels)
            totals[topic] = totals.get(topic, 0) + lag
    for topic, total in totals.items():
        sums.add(total, consumergroup=group, topic=topic)
