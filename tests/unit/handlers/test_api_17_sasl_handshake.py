"""SASL requests on a connection that needs no SASL."""

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.sasl_handshake_request import SaslHandshakeRequest
from kbroker.protocol.messages.sasl_handshake_response import SaslHandshakeResponse
from tests.unit.handlers.asking import asking

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("mechanism", ["PLAIN", "", "NOPE"])
async def test_a_handshake_is_out_of_place(version: int, mechanism: str) -> None:
    async with asking() as client:
        response = await client.ask(17, version, SaslHandshakeRequest(mechanism))
        assert response == SaslHandshakeResponse(ErrorCode.ILLEGAL_SASL_STATE, [])
