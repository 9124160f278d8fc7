"""GetTelemetrySubscriptions: the fields of the answer, and what a client is known by."""

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.api_versions_request import ApiVersionsRequest
from kbroker.protocol.messages.get_telemetry_subscriptions_request import (
    GetTelemetrySubscriptionsRequest,
)
from tests.unit.handlers.asking import asking

pytestmark = pytest.mark.anyio
KEY, WHO = 71, b"\7" * 16


async def test_the_answer() -> None:
    async with asking() as client:
        answer = await client.ask(KEY, 0, GetTelemetrySubscriptionsRequest(WHO))
        assert answer.error_code == 0
        assert answer.client_instance_id == WHO
        assert answer.accepted_compression_types == [4, 3, 1, 2]
        assert answer.push_interval_ms == 300_000
        assert answer.telemetry_max_bytes == 1_048_576
        assert answer.delta_temporality is True
        assert answer.requested_metrics == []
        again = await client.ask(KEY, 0, GetTelemetrySubscriptionsRequest(WHO))
        assert again.error_code == ErrorCode.THROTTLING_QUOTA_EXCEEDED
        assert again.accepted_compression_types == []


async def test_it_is_advertised_where_somebody_receives_metrics() -> None:
    async with asking() as client:
        for receives in (False, True):
            client.have(receives_telemetry=receives)
            answer = await client.ask(18, 4, ApiVersionsRequest("a", "1"))
            advertised = {key.api_key for key in answer.api_keys}
            assert ({71, 72} <= advertised) == receives
            assert ({71, 72} & advertised == set()) != receives
