"""EndTxn (26), versions 0-5: commit or abort.

v2  knows PRODUCER_FENCED.
v5  KIP-890: the producer's epoch is bumped, or its id replaced when its epochs are used up; the
    answer tells both. Aborting where nothing is open does that too.
The decision is in the log when it is answered; the markers are written from then on.
"""

from typing import TYPE_CHECKING, Any, Final

from kbroker.coordinator.transaction.transaction_metadata import Identity, TransactionVersion
from kbroker.handlers.transaction_requests import answered, fenced_before
from kbroker.protocol.messages.end_txn_response import EndTxnResponse

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kbroker.handlers.services import Services
    from kbroker.protocol.errors import KafkaError
    from kbroker.protocol.messages.end_txn_request import EndTxnRequest
    from kbroker.request_context import RequestContext

_FENCED_FROM: Final = 2
_BUMPS_FROM: Final = 5


def handle(
    services: "Services", context: "RequestContext", request: "EndTxnRequest"
) -> "EndTxnResponse | Coroutine[Any, Any, EndTxnResponse]":
    """Answers at once, unless the record is not replicated yet or a producer id is fetched."""
    version = context.api_version
    bumps = version >= _BUMPS_FROM
    outcome = services.transaction_coordinator.end_transaction(
        request.transactional_id,
        request.producer_id,
        request.producer_epoch,
        commit=request.committed,
        client_version=TransactionVersion.TV_2 if bumps else TransactionVersion.TV_0,
    )

    def respond(identity: Identity) -> EndTxnResponse:
        response = EndTxnResponse(error_code=fenced_before(version, _FENCED_FROM, identity.error))
        if bumps:
            response.producer_id = identity.producer_id
            response.producer_epoch = identity.producer_epoch
        return response

    return answered(outcome, respond)


def error_response(request: "EndTxnRequest", error: "KafkaError", version: int) -> EndTxnResponse:
    """Only the code."""
    return EndTxnResponse(error_code=error.error_code)
