"""InitProducerId, versions 0-5 (6 is not stable in Kafka 4.3.1 and not advertised).

Without a transactional id: a fresh producer id with epoch 0. v3 adds the producer's present id and
epoch, which must come together.

Not implemented: transactions. A transactional id is answered TRANSACTIONAL_ID_AUTHORIZATION_FAILED
once the request itself is right. Of the errors of this API it is the one that all clients take as
final and report at once; the coordinator's own errors would make them retry for ever.
"""

from typing import TYPE_CHECKING, Any, Final

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.init_producer_id_response import InitProducerIdResponse

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kbroker.handlers.services import Services
    from kbroker.protocol.errors import KafkaError
    from kbroker.protocol.messages.init_producer_id_request import InitProducerIdRequest
    from kbroker.request_context import RequestContext

_NONE: Final = -1


def handle(
    services: "Services", context: "RequestContext", request: "InitProducerIdRequest"
) -> "InitProducerIdResponse | Coroutine[Any, Any, InitProducerIdResponse]":
    """A producer id from this broker's block; a coroutine when a new block must be fetched."""
    if (request.producer_id == _NONE) != (request.producer_epoch == _NONE):
        return _failed(ErrorCode.INVALID_REQUEST)
    if request.transactional_id is not None:
        return _failed(_transactional_error(services, request))
    producer_id = services.producer_ids.generate()
    if isinstance(producer_id, int):
        return InitProducerIdResponse(0, ErrorCode.NONE, producer_id, 0)
    return _when_fetched(producer_id)


async def _when_fetched(producer_id: "Coroutine[Any, Any, int]") -> InitProducerIdResponse:
    return InitProducerIdResponse(0, ErrorCode.NONE, await producer_id, 0)


def _transactional_error(services: "Services", request: "InitProducerIdRequest") -> ErrorCode:
    if not request.transactional_id:
        return ErrorCode.INVALID_REQUEST
    longest = services.config.current.transaction_max_timeout_ms
    if not 0 < request.transaction_timeout_ms <= longest:
        return ErrorCode.INVALID_TRANSACTION_TIMEOUT
    return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


def _failed(error: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(0, error, _NONE, _NONE)


def error_response(
    request: "InitProducerIdRequest", error: "KafkaError", version: int
) -> InitProducerIdResponse:
    """The error, and no producer id."""
    return _failed(error.error_code)
