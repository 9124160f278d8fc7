"""Coordinators are made late, and then know what they would have known all along."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from kbroker.broker.broker_server import BrokerServer
from kbroker.config.broker_config import BrokerConfig
from kbroker.coordinator.deferred import Deferred
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.offset_commit_request import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)

pytestmark = pytest.mark.anyio
OFFSETS, TRANSACTIONS = "__consumer_offsets", "__transaction_state"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server() -> AsyncIterator[BrokerServer]:
    config = BrokerConfig.from_properties({"listeners": "PLAINTEXT://127.0.0.1:0"})
    async with BrokerServer(config, memory=True) as running:
        yield running


def made(server: BrokerServer) -> tuple[bool, bool]:
    """Whether there is a coordinator of groups, of transactions."""
    parts: Any = server.coordinators
    return parts._group._made is not None, parts._transaction._made is not None


async def commit(server: BrokerServer) -> int:
    request = OffsetCommitRequest(
        group_id="g",
        topics=[OffsetCommitRequestTopic("t", partitions=[OffsetCommitRequestPartition(0, 5)])],
    )
    answer: Any = server.coordinators.group.requests.commit_offsets(request, 9)
    if isinstance(answer, Deferred):
        answer = await answer.wait()
    (topic,) = answer.topics
    (partition,) = topic.partitions
    return int(partition.error_code)


async def test_a_broker_without_groups_has_no_coordinator(server: BrokerServer) -> None:
    await server.controller.ensure_topics(["t"])
    assert made(server) == (False, False)
    await server.controller.ensure_topics([OFFSETS])
    assert made(server) == (True, False)
    await server.controller.ensure_topics([TRANSACTIONS])
    assert made(server) == (True, True)


async def test_one_that_comes_with_its_topic_leads_it(server: BrokerServer) -> None:
    await server.controller.ensure_topics(["t", OFFSETS])
    assert await commit(server) == ErrorCode.NONE


async def test_one_that_was_asked_for_first_leads_its_topic_later(server: BrokerServer) -> None:
    await server.controller.ensure_topics(["t"])
    assert await commit(server) == ErrorCode.NOT_COORDINATOR
    assert made(server) == (True, False)
    await server.controller.ensure_topics([OFFSETS])
    assert await commit(server) == ErrorCode.NONE


async def test_it_is_made_once(server: BrokerServer) -> None:
    assert server.coordinators.group is server.coordinators.group
    transactions = server.coordinators.transaction
    assert transactions is server.coordinators.transaction
    with pytest.raises(KafkaError) as refused:
        transactions.describe("tx")
    assert refused.value.error_code == ErrorCode.NOT_COORDINATOR
