"""SaslHandshake (17), versions 0-1: comes too late here, as in Kafka.

A SASL listener takes the handshake before any request reaches a handler; what arrives here is on a
connection that needs none or has had one, and is ILLEGAL_SASL_STATE.
"""

from typing import TYPE_CHECKING

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.sasl_handshake_response import SaslHandshakeResponse

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.protocol.errors import KafkaError
    from kbroker.protocol.messages.sasl_handshake_request import SaslHandshakeRequest
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: "SaslHandshakeRequest"
) -> SaslHandshakeResponse:
    """Always the error, and no mechanisms."""
    return SaslHandshakeResponse(error_code=ErrorCode.ILLEGAL_SASL_STATE)


def error_response(
    request: "SaslHandshakeRequest", error: "KafkaError", version: int
) -> SaslHandshakeResponse:
    """Only the code."""
    return SaslHandshakeResponse(error_code=error.error_code)
