"""What an embedded broker's own consumer sees of transactions."""

import pytest

from kbroker.broker.broker_server import BrokerServer
from kbroker.broker.local_client import LocalClient
from kbroker.config.broker_config import BrokerConfig
from kbroker.coordinator.transaction.transaction_metadata import Identity
from kbroker.record.batch import build_batch
from kbroker.record.record import Record


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def _append(server: BrokerServer, producer: tuple[int, int], sequence: int, value: bytes) -> None:
    batch = build_batch(
        [Record(key=None, value=value, timestamp=server.clock.time_ms())],
        producer_id=producer[0],
        producer_epoch=producer[1],
        base_sequence=sequence,
        transactional=True,
    )
    partition = server.replica_manager.get_leader_partition("t", 0)
    server.replica_manager.leader_append.append_records(partition, batch, -1)


@pytest.mark.anyio
async def test_open_and_aborted_transactions_are_not_consumed() -> None:
    config = BrokerConfig.from_properties({"listeners": "PLAINTEXT://127.0.0.1:0"})
    async with BrokerServer(config, memory=True) as server:
        client = LocalClient(server)
        await client.create_topic("t")
        await server.controller.ensure_topics(["__transaction_state"])
        coordinator = server.coordinators.transaction
        answer = coordinator.init_producer_id("tx", 60_000, None)
        identity = answer if isinstance(answer, Identity) else await _waited(answer)
        producer = identity.producer_id, identity.producer_epoch

        async def seen() -> list[bytes | None]:
            return [record.value for record in await client.consume("t")]

        for number, commit in enumerate((True, False, True)):
            coordinator.add_partitions("tx", *producer, [("t", 0)], 0)
            _append(server, producer, number, b"%d" % number)
            before = await seen()
            assert b"%d" % number not in before
            coordinator.end_transaction("tx", *producer, commit=commit, client_version=0)
        assert await seen() == [b"0", b"2"]
        await client.produce("t", b"plain")
        assert await seen() == [b"0", b"2", b"plain"]


async def _waited(answer: object) -> Identity:
    result = await answer  # type: ignore[misc]
    assert isinstance(result, Identity)
    return result
