"""Settings of a broker: dynamic ones act at once, those that cannot be used are told."""

import struct
from pathlib import Path

import anyio
import pytest

from kbroker.broker.broker_server import BrokerServer, StartError
from kbroker.common.clock import Clock
from kbroker.common.parts import Buffer
from kbroker.config.broker_config import BrokerConfig
from kbroker.metadata.config_control import AlterOperation, ConfigChange, SettingChange
from kbroker.metadata.keys import ConfigResourceType
from kbroker.request_context import Dispatch, Dispatched, RequestContext


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def set_for_all(server: BrokerServer, name: str, value: str) -> None:
    change = ConfigChange(
        ConfigResourceType.BROKER, "", [SettingChange(name, AlterOperation.SET, value)]
    )
    assert list(await server.controller.alter_configs([change], validate_only=False)) == [None]


@pytest.mark.anyio
async def test_settings_of_all_brokers_act_at_once() -> None:
    config = BrokerConfig.from_properties({"listeners": "PLAINTEXT://127.0.0.1:0"})
    async with BrokerServer(config, memory=True) as server:
        await set_for_all(server, "producer.id.expiration.ms", "4321")
        assert server.log_manager.env.producer_id_expiration_ms == 4321
        await set_for_all(server, "log.cleaner.backoff.ms", "50")
        assert server.log_manager.cleaner.backoff_s == 0.05
        await set_for_all(server, "max.connections", "17")
        assert server.network.settings.limits.max_connections == 17
        await set_for_all(server, "message.max.bytes", "1001")
        assert server.replica_manager.log_config("t").max_message_bytes == 1001
    assert not server.is_ready


@pytest.mark.anyio
async def test_limits_that_cannot_be_read_are_told_in_a_line() -> None:
    settings = {"listeners": "PLAINTEXT://127.0.0.1:0", "max.connections.per.ip.overrides": "abc"}
    server = BrokerServer(BrokerConfig.from_properties(settings), memory=True)
    with pytest.raises(StartError, match="begin 0, end -1"):
        await server.__aenter__()


@pytest.mark.anyio
async def test_listeners_that_promise_more_than_there_is_stop_the_next_start(
    tmp_path: Path,
) -> None:
    """Whoever stored them (no request can): a broker never serves without what it says."""
    settings = {"listeners": "PLAINTEXT://127.0.0.1:0", "log.dirs": str(tmp_path)}
    config = BrokerConfig.from_properties(settings)
    async with BrokerServer(config) as server:
        await set_for_all(server, "listeners", "SSL://127.0.0.1:0")
    with pytest.raises(StartError, match="SSL is not supported yet"):
        await BrokerServer(config).__aenter__()


@pytest.mark.anyio
@pytest.mark.parametrize("is_watched", [True, False])
async def test_who_looks_at_requests_sees_each_of_them(is_watched: bool) -> None:
    seen: list[int] = []

    def around(dispatch: Dispatch, clock: Clock) -> Dispatch:
        def look(context: RequestContext, frame: Buffer, position: int) -> Dispatched:
            seen.append(context.correlation_id)
            return dispatch(context, frame, position)

        return look

    config = BrokerConfig.from_properties({"listeners": "PLAINTEXT://127.0.0.1:0"})
    watcher = around if is_watched else None
    async with BrokerServer(config, memory=True, around_dispatch=watcher) as server:
        host, _, port = server.bootstrap_servers.rpartition(":")
        client = await anyio.connect_tcp(host, int(port))
        for number in range(6):
            await client.send(struct.pack(">ihhihi", 14, 3, 1, number, -1, -1))
            answer = await client.receive()
            assert struct.unpack_from(">ii", answer) == (len(answer) - 4, number)
        assert seen == (list(range(6)) if is_watched else [])
        [shell] = server.network._shells
        assert (shell.connection.context.repeated is None) == is_watched
        await client.aclose()
