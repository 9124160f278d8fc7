"""InitProducerId, versions 0-5 (6 is not stable in Kafka 4.3.1 and not advertised).

Without a transactional id: a fresh producer id with epoch 0. With one: its producer id, the epoch
bumped, so that whoever used it before is fenced; a transaction that is open is aborted first, and
the caller is told CONCURRENT_TRANSACTIONS until that is done. v3 adds the producer's present id and
epoch, which must come together (KIP-360); v4 knows PRODUCER_FENCED.
"""

from typing import TYPE_CHECKING, Any, Final

from kbroker.coordinator.transaction.transaction_metadata import Identity
from kbroker.handlers.transaction_requests import answered, fenced_before
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.init_producer_id_response import InitProducerIdResponse

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kbroker.handlers.services import Services
    from kbroker.protocol.errors import KafkaError
    from kbroker.protocol.messages.init_producer_id_request import InitProducerIdRequest
    from kbroker.request_context import RequestContext

_NONE: Final = -1
_FENCED_FROM: Final = 4


def handle(
    services: "Services", context: "RequestContext", request: "InitProducerIdRequest"
) -> "InitProducerIdResponse | Coroutine[Any, Any, InitProducerIdResponse]":
    """A coroutine when a new block of producer ids must be fetched, or a record be replicated."""
    if (request.producer_id == _NONE) != (request.producer_epoch == _NONE):
        return _failed(ErrorCode.INVALID_REQUEST)
    if request.transactional_id is not None:
        return _transactional(services, context.api_version, request.transactional_id, request)
    producer_id = services.producer_ids.generate()
    if isinstance(producer_id, int):
        return InitProducerIdResponse(0, ErrorCode.NONE, producer_id, 0)
    return _when_fetched(producer_id)


async def _when_fetched(producer_id: "Coroutine[Any, Any, int]") -> InitProducerIdResponse:
    return InitProducerIdResponse(0, ErrorCode.NONE, await producer_id, 0)


def _transactional(
    services: "Services", version: int, transactional_id: str, request: "InitProducerIdRequest"
) -> "InitProducerIdResponse | Coroutine[Any, Any, InitProducerIdResponse]":
    has_producer = request.producer_id != _NONE
    outcome = services.transaction_coordinator.init_producer_id(
        transactional_id,
        request.transaction_timeout_ms,
        (request.producer_id, request.producer_epoch) if has_producer else None,
    )

    def respond(identity: Identity) -> InitProducerIdResponse:
        error = fenced_before(version, _FENCED_FROM, identity.error)
        return InitProducerIdResponse(0, error, identity.producer_id, identity.producer_epoch)

    return answered(outcome, respond)


def _failed(error: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(0, error, _NONE, _NONE)


def error_response(
    request: "InitProducerIdRequest", error: "KafkaError", version: int
) -> InitProducerIdResponse:
    """The error, and no producer id."""
    return _failed(error.error_code)
