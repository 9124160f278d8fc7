"""AddOffsetsToTxn (25), versions 0-4: a group's offsets join a transaction.

What joins is the group's partition of ``__consumer_offsets``. v2 knows PRODUCER_FENCED. The group's
id is not looked at: the empty one is accepted. Clients of version 2 (KIP-890) do not ask.
"""

from typing import TYPE_CHECKING, Any, Final

from kbroker.coordinator.transaction.transaction_metadata import TransactionVersion
from kbroker.handlers.transaction_requests import answered, fenced_before
from kbroker.metadata.topic_names import CONSUMER_OFFSETS
from kbroker.protocol.messages.add_offsets_to_txn_response import AddOffsetsToTxnResponse

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kbroker.handlers.services import Services
    from kbroker.protocol.errors import KafkaError
    from kbroker.protocol.messages.add_offsets_to_txn_request import AddOffsetsToTxnRequest
    from kbroker.request_context import RequestContext

_FENCED_FROM: Final = 2


def handle(
    services: "Services", context: "RequestContext", request: "AddOffsetsToTxnRequest"
) -> "AddOffsetsToTxnResponse | Coroutine[Any, Any, AddOffsetsToTxnResponse]":
    """Answers at once, unless the record is not replicated yet."""
    partition = services.group_coordinator.partition_for(request.group_id)
    outcome = services.transaction_coordinator.add_partitions(
        request.transactional_id,
        request.producer_id,
        request.producer_epoch,
        [(CONSUMER_OFFSETS, partition)],
        TransactionVersion.TV_0,
    )
    version = context.api_version
    return answered(
        outcome,
        lambda error: AddOffsetsToTxnResponse(
            error_code=fenced_before(version, _FENCED_FROM, error)
        ),
    )


def error_response(
    request: "AddOffsetsToTxnRequest", error: "KafkaError", version: int
) -> AddOffsetsToTxnResponse:
    """Only the code."""
    return AddOffsetsToTxnResponse(error_code=error.error_code)
