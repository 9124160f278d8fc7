"""The project's own client with brokers of older releases, as far as kbroker can pose as them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from kbroker.client.admin import TOPIC, Admin, Resource
from kbroker.client.classic_member import ClassicMember
from kbroker.client.client import KafkaClient
from kbroker.client.consumer_member import ConsumerMember
from kbroker.client.group_admin import GroupAdmin
from kbroker.client.group_offsets import (
    CommittedOffset,
    TopicPartition,
    commit_offsets,
    delete_offsets,
    fetch_offsets,
)
from kbroker.client.group_reader import GroupReader
from kbroker.client.producer import Producer
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.record import Record
from tests.compat.broker_under_test import assert_nothing_went_wrong
from tests.peers.kbroker_process import KbrokerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio
LIVENESS_S = 45
BEGAN = 1_700_000_000_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["2.8", "3.9"], scope="module")
def older(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[tuple[str, str]]:
    """(release, bootstrap address)"""
    folder = tmp_path_factory.mktemp("older")
    with KbrokerProcess(folder, arguments=("--api-versions", request.param)) as broker:
        yield request.param, broker.bootstrap
    assert_nothing_went_wrong(broker)


async def test_topics_records_and_settings(older: tuple[str, str]):
    _, bootstrap = older
    async with KafkaClient(bootstrap) as client:
        admin = Admin(client)
        await admin.create_topic("t", partitions=2, config={"retention.ms": "77"})
        configs = await admin.describe_configs(Resource(TOPIC, "t"))
        assert "77" in [each.value for each in configs if each.name == "retention.ms"]
        await admin.alter_configs(Resource(TOPIC, "t"), {"retention.ms": None})
        written = await Producer(client, "t").send([Record(value=b"v", timestamp=BEGAN)])
        assert list(written.values()) == [0]
        await admin.delete_topic("t")


async def test_a_group_from_its_first_member_to_its_deletion(older: tuple[str, str]):
    release, bootstrap = older
    partition = TopicPartition("read", 0)
    async with KafkaClient(bootstrap) as client:
        admin = GroupAdmin(client)
        await Admin(client).create_topic("read", partitions=1)
        await Producer(client, "read").send([Record(value=b"v", timestamp=BEGAN)])
        member = ClassicMember(client, "g", ["read"], instance_id="static")
        async with GroupReader(client, "g", "read", member) as reader:
            with anyio.fail_after(LIVENESS_S):
                while not await reader.poll():
                    pass
            assert await reader.commit()
            described = await admin.describe_group("g")
            assert (described.state, described.group_type) == ("Stable", "classic")
            assert described.members[0].assignment == {"read": [0]}
            assert described.members[0].instance_id == "static"
            assert [each.group_id for each in await admin.list_groups(states=["Stable"])] == ["g"]
        assert await fetch_offsets(client, "g") == {partition: CommittedOffset(1)}
        assert await fetch_offsets(client, "g", [partition]) == {partition: CommittedOffset(1)}
        with pytest.raises(KafkaError) as caught:
            await admin.describe_group("missing")
        assert caught.value.error_code == ErrorCode.GROUP_ID_NOT_FOUND
        await commit_offsets(client, "simple", {partition: CommittedOffset(1, 0, "m")})
        assert await delete_offsets(client, "simple", [partition]) == {partition: None}
        if release == "2.8":
            with pytest.raises(KafkaError, match="UNSUPPORTED_VERSION"):
                await admin.list_groups(types=["classic"])
            with pytest.raises(KafkaError, match="has no ConsumerGroupHeartbeat"):
                await ConsumerMember(client, "new", ["read"]).join()
