"""PushTelemetry: what comes through to the receiver, small and large."""

from typing import Any

import pytest

from kbroker.metadata.client_metrics import ClientInstance
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.get_telemetry_subscriptions_request import (
    GetTelemetrySubscriptionsRequest,
)
from kbroker.protocol.messages.push_telemetry_request import PushTelemetryRequest
from kbroker.record.compression import compress
from tests.unit.handlers.asking import Asker, asking

pytestmark = pytest.mark.anyio
KEY, WHO = 72, b"\7" * 16
LARGE = bytes(range(256)) * 400


class Receiver:
    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def receive(self, instance: ClientInstance, payload: bytes, now: float) -> None:
        assert instance.instance_id == WHO
        assert instance.client.client_id == "me"
        self.payloads.append(payload)


async def push(client: Asker, data: bytes, codec: int, **fields: Any) -> int:
    told = await client.ask(71, 0, GetTelemetrySubscriptionsRequest(WHO))
    request = PushTelemetryRequest(
        client_instance_id=WHO,
        subscription_id=told.subscription_id,
        compression_type=codec,
        metrics=data,
        **fields,
    )
    answer = await client.ask(KEY, 0, request)
    code: int = answer.error_code
    return code


@pytest.mark.parametrize("codec", [0, 1, 3, 4])
@pytest.mark.parametrize("payload", [b"small", LARGE], ids=["small", "large"])
async def test_metrics_reach_the_receiver(codec: int, payload: bytes) -> None:
    async with asking() as client:
        receiver = Receiver()
        client.client_metrics._receiver = receiver
        data = compress(codec, payload) if codec else payload
        assert await push(client, data, codec) == 0
        assert receiver.payloads == [payload]


async def test_rubbish_that_is_large_is_refused_too() -> None:
    async with asking() as client:
        assert await push(client, LARGE, 4) == ErrorCode.INVALID_RECORD


async def test_without_a_receiver_they_are_let_go() -> None:
    async with asking() as client:
        assert await push(client, b"anything", 0) == 0
