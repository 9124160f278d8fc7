"""Lag of the groups that this broker coordinates, under the names of kafka_exporter."""

from typing import TYPE_CHECKING, Any

from anyio.lowlevel import checkpoint

from kbroker.broker.metrics import GAUGE, Family
from kbroker.coordinator.deferred import Deferred
from kbroker.protocol.messages.list_groups_request import ListGroupsRequest
from kbroker.protocol.messages.list_groups_response import ListGroupsResponse
from kbroker.protocol.messages.offset_fetch_request import OffsetFetchRequestGroup
from kbroker.protocol.messages.offset_fetch_response import OffsetFetchResponseGroup

if TYPE_CHECKING:
    from kbroker.broker.broker_server import BrokerServer


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
        asked = OffsetFetchRequestGroup(group_id=name, topics=None)
        answer = requests.fetch_offsets(asked, require_stable=False)
        committed = await answer.wait() if isinstance(answer, Deferred) else answer
        _add_lag(server, committed, offsets, lags, sums)
        await checkpoint()
    return [count.add(len(listed.groups)), states, offsets, lags, sums]


def _add_lag(
    server: "BrokerServer",
    committed: OffsetFetchResponseGroup,
    offsets: Family,
    lags: Family,
    sums: Family,
) -> None:
    for topic in committed.topics:
        total = 0
        is_led = False
        for one in topic.partitions:
            if one.error_code or one.committed_offset < 0:
                continue
            labels = {
                "consumergroup": committed.group_id,
                "topic": topic.name,
                "partition": str(one.partition_index),
            }
            offsets.add(one.committed_offset, **labels)
            partition = server.replica_manager.get_partition(topic.name, one.partition_index)
            if partition is not None and partition.is_leader:
                lag = max(partition.log.high_watermark - one.committed_offset, 0)
                lags.add(lag, **labels)
                total += lag
                is_led = True
        if is_led:
            sums.add(total, consumergroup=committed.group_id, topic=topic.name)
