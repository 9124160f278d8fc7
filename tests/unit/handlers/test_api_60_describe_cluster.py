"""DescribeCluster against what Kafka 4.3.1 was seen to answer."""

import pytest

from kbroker.metadata.image import BrokerImage, MetadataImage
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.describe_cluster_request import DescribeClusterRequest
from kbroker.protocol.messages.describe_cluster_response import (
    DescribeClusterBroker,
    DescribeClusterResponse,
)
from tests.unit.handlers.asking import asking
from tests.unit.metadata.clusters import LISTENER

pytestmark = pytest.mark.anyio
KEY = 60


@pytest.mark.parametrize("version", range(3))
@pytest.mark.parametrize(("include", "operations"), [(False, -(1 << 31)), (True, 8096)])
async def test_the_cluster(version: int, include: bool, operations: int) -> None:
    async with asking() as client:
        response = await client.ask(KEY, version, DescribeClusterRequest(include))
        assert response == DescribeClusterResponse(
            cluster_id=client.node.image.cluster_id,
            controller_id=1,
            brokers=[DescribeClusterBroker(1, "10.1.2.3", 4567)],
            cluster_authorized_operations=operations,
        )


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("endpoint_type", "code"),
    [
        (2, ErrorCode.MISMATCHED_ENDPOINT_TYPE),
        (0, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE),
        (9, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE),
    ],
)
async def test_endpoint_types(version: int, endpoint_type: int, code: ErrorCode) -> None:
    async with asking() as client:
        request = DescribeClusterRequest(endpoint_type=endpoint_type)
        response = await client.ask(KEY, version, request)
        assert (response.error_code, response.brokers, response.controller_id) == (code, [], -1)
        assert response.endpoint_type == 1
        assert response.error_message


async def test_fenced_brokers_on_request() -> None:
    async with asking() as client:
        fenced = BrokerImage(node_id=5, epoch=1, endpoints={LISTENER: ("h", 1)}, rack="r")
        hidden = BrokerImage(node_id=6, epoch=1, endpoints={"OTHER": ("h", 1)}, fenced=False)
        brokers = {**client.node.image.brokers, 5: fenced, 6: hidden}
        client.node.publisher.image = MetadataImage(
            revision=client.node.image.revision, brokers=brokers, controller_id=6
        )
        plain = await client.ask(KEY, 2, DescribeClusterRequest())
        assert [broker.broker_id for broker in plain.brokers] == [1]
        assert plain.controller_id == 1  # the controller has no such listener
        request = DescribeClusterRequest(include_fenced_brokers=True)
        everyone = await client.ask(KEY, 2, request)
        assert everyone.brokers[1] == DescribeClusterBroker(5, "h", 1, "r", True)
