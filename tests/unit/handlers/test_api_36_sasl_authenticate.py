"""SASL requests on a connection that needs no SASL."""

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequest
from tests.unit.handlers.asking import asking

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_a_token_is_out_of_place(version: int) -> None:
    async with asking() as client:
        response = await client.ask(36, version, SaslAuthenticateRequest(b"\0a\0b"))
        assert response.error_code == ErrorCode.ILLEGAL_SASL_STATE
        assert (response.auth_bytes, response.session_lifetime_ms) == (b"", 0)
