"""SaslAuthenticate (36), versions 0-2: comes too late here, as in Kafka.

A SASL listener takes the tokens before any request reaches a handler; what arrives here is on a
connection that needs none or is authenticated, and is ILLEGAL_SASL_STATE.
"""

from typing import TYPE_CHECKING

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.sasl_authenticate_response import SaslAuthenticateResponse

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.protocol.errors import KafkaError
    from kbroker.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequest
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: "SaslAuthenticateRequest"
) -> SaslAuthenticateResponse:
    """Always the error, and no token."""
    return SaslAuthenticateResponse(
        error_code=ErrorCode.ILLEGAL_SASL_STATE,
        error_message="SaslAuthenticate request received after successful authentication",
    )


def error_response(
    request: "SaslAuthenticateRequest", error: "KafkaError", version: int
) -> SaslAuthenticateResponse:
    """Only the error."""
    return SaslAuthenticateResponse(error_code=error.error_code, error_message=error.message)
