"""Produce, versions 3-13.

v3-6 refuse zstd; v5 adds the log start offset, v8 errors of single records, v10 the leader to turn
to (KIP-951), v13 topic ids. acks=0 has no answer: an error closes the connection. Of a partition
that is named twice the later sound batch is appended; there is one answer, an unsound batch's error
if there is one. So does Kafka.

Transactional batches: the coordinator is asked before the first one of a transaction on a partition
(KIP-890). Up to v11 the producer must have added the partition, else TRANSACTION_ABORTABLE (before
v11 INVALID_TXN_STATE); from v12 on it is added here.

Differs from Kafka on purpose: null records, which Kafka never answers, are INVALID_RECORD.
"""

from functools import partial
from itertools import chain
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from anyio.lowlevel import checkpoint

from kbroker.coordinator.deferred import Deferred
from kbroker.handlers.produce_outcome import (
    FIRST_VERSION_WITH_TOPIC_IDS,
    FIRST_VERSION_WITH_ZSTD,
    Entry,
    fail,
    finish,
    respond,
    succeed,
)
from kbroker.handlers.repeated_produce import RepeatedProduce
from kbroker.handlers.transaction_requests import (
    TransactionSupport,
    join_patiently,
    join_transaction,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.produce_response import ProduceResponse
from kbroker.record.batch import HEADER_SIZE
from kbroker.storage.request_records import check_request_records
from kbroker.storage.unified_log import LogAppendInfo

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from kbroker.common.parts import Buffer
    from kbroker.coordinator.deferred import Answer
    from kbroker.coordinator.transaction.transaction_metadata import TopicPartition
    from kbroker.handlers.services import Services
    from kbroker.metadata.image import TopicImage
    from kbroker.protocol.messages.produce_request import ProduceRequest
    from kbroker.request_context import RequestContext

_ADMIN_CLIENT: Final = "__admin_client"  # Kafka lets it write to internal topics
_FIRST_VERSION_WITH_ABORTABLE: Final = 11
_FIRST_VERSION_THAT_JOINS: Final = 12
_AT_ONCE: Final = 64
"""Batches that are appended before other connections get their turn."""

_LOG_OVERHEAD: Final = 12  # base offset and length, which the length does not count
_SMALLEST_LENGTH: Final = 14
_MAGIC: Final = 2
_TRANSACTIONAL_BIT: Final = 16
_CODEC_BITS: Final = 7
_CODECS: Final = 5
_CODECS_BEFORE_ZSTD: Final = 4
_HEADER: Final = Struct(">8xi4xb4xH")  # length, magic, attributes
_ATTRIBUTES_POSITION: Final = 22  # the byte with the bits in use
_PRODUCER_ID: Final = Struct(">q")
_PRODUCER: Final = Struct(">qhi")  # id, epoch and base sequence
_PRODUCER_ID_POSITION: Final = 43

_COORDINATOR_IS_AWAY: Final = frozenset(
    {
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)


def handle(
    services: "Services", context: "RequestContext", request: "ProduceRequest"
) -> "ProduceResponse | Coroutine[Any, Any, ProduceResponse | None] | None":
    """Append what is sound, answer each partition on its own."""
    entries = _entries(request, context.api_version)
    accepted = _accept(services, context, request, entries)
    if len(entries) > 1:
        refused = (entry for entry in entries if entry.response.error_code)
        entries = _distinct(chain(entries, refused))
        accepted = _distinct(accepted)
    if request.transactional_id is not None:
        joined = _join_transaction(services, context, request, accepted)
        if isinstance(joined, Deferred) or (
            ErrorCode.CONCURRENT_TRANSACTIONS in joined.values()
            and context.api_version >= _FIRST_VERSION_THAT_JOINS
        ):
            return _append_when_joined(services, context, request, entries, accepted, joined)
        accepted = _without_refused(accepted, joined, context.api_version)
    return _append_all(services, context, request, entries, accepted)


def shortcut(services: "Services") -> RepeatedProduce:
    """What one dispatcher keeps of this API's requests."""
    return RepeatedProduce(services)


def _append_all(
    services: "Services",
    context: "RequestContext",
    request: "ProduceRequest",
    entries: list[Entry],
    accepted: list[Entry],
) -> "ProduceResponse | Coroutine[Any, Any, ProduceResponse | None] | None":
    if len(accepted) > _AT_ONCE:
        return _append_giving_way(services, context, request, entries, accepted, 0, None)
    for number, entry in enumerate(accepted):
        outcome = _append(services, entry, request)
        if outcome is not None:
            return _append_giving_way(
                services, context, request, entries, accepted, number, outcome
            )
    return finish(services, context, request, entries)


def error_response(
    request: "ProduceRequest", error: KafkaError, version: int
) -> ProduceResponse | None:
    """Every partition with the same error; nothing for acks=0."""
    if request.acks == 0:
        return None
    entries = _distinct(
        Entry(topic.topic_id if _uses_ids(version) else topic.name, data.index, None)
        for topic in request.topic_data
        for data in topic.partition_data
    )
    for entry in entries:
        entry.response.error_code = error.error_code
        if error.error_code != ErrorCode.UNKNOWN_SERVER_ERROR:
            entry.response.error_message = error.message
    return respond(entries, version, [])


def _uses_ids(version: int) -> bool:
    return version >= FIRST_VERSION_WITH_TOPIC_IDS


# Looking at the request --------------------------------------------------------------------------


def _entries(request: "ProduceRequest", version: int) -> list[Entry]:
    """The partitions of the request in its order.

    Raises KafkaError for the whole request: CORRUPT_MESSAGE when a first batch has an impossible
    length or magic, TRANSACTIONAL_ID_AUTHORIZATION_FAILED for a transactional batch without an id.
    """
    uses_ids = _uses_ids(version)
    entries = []
    is_transactional = False
    codecs = _CODECS if version >= FIRST_VERSION_WITH_ZSTD else _CODECS_BEFORE_ZSTD
    for topic in request.topic_data:
        topic_key = topic.topic_id if uses_ids else topic.name
        for data in topic.partition_data:
            entry = Entry(topic_key, data.index, data.records)
            entries.append(entry)
            if data.records is None or _is_one_plain_batch(entry, codecs):
                continue
            if not is_transactional:  # Kafka stops to look at the first transactional one
                is_transactional = bool(_attributes(data.records) & _TRANSACTIONAL_BIT)
    if is_transactional and request.transactional_id is None:
        raise KafkaError(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    return entries


def _distinct(entries: "Iterable[Entry]") -> list[Entry]:
    """Each partition once: at its first place, as its last entry."""
    return list({(entry.topic_key, entry.response.index): entry for entry in entries}.values())


def _is_one_plain_batch(entry: Entry, codecs: int) -> bool:
    """What nearly every entry is, seen with one look: exactly one batch of magic 2, no transaction,
    a codec below ``codecs``, which all clients of this version may use."""
    records = entry.records
    if len(records) < HEADER_SIZE:
        return False
    length, magic, attributes = _HEADER.unpack_from(records)
    entry.is_plain = (
        magic == _MAGIC
        and length == len(records) - _LOG_OVERHEAD
        and not attributes & _TRANSACTIONAL_BIT
        and attributes & _CODEC_BITS < codecs
    )
    return entry.is_plain


def _attributes(records: "Buffer") -> int:
    """Attributes of the first batch, 0 when there is no whole one. KafkaError(CORRUPT_MESSAGE)."""
    available = len(records)
    if available >= _HEADER.size:
        length, magic, attributes = _HEADER.unpack_from(records)
        if magic == _MAGIC and _SMALLEST_LENGTH <= length <= available - _LOG_OVERHEAD:
            return int(attributes)
    try:
        check_request_records(memoryview(records), allow_zstd=True)
    except KafkaError as error:
        if error.error_code == ErrorCode.CORRUPT_MESSAGE:
            raise
    return 0


def _check_records(records: Any, version: int) -> ErrorCode:
    """What Kafka refuses before it looks at the topic's log: anything but one batch of magic 2."""
    if records is None:
        return ErrorCode.INVALID_RECORD
    try:
        check_request_records(memoryview(records), allow_zstd=version >= FIRST_VERSION_WITH_ZSTD)
    except KafkaError as error:
        if error.error_code == ErrorCode.UNKNOWN_SERVER_ERROR:
            raise
        return error.error_code
    return ErrorCode.NONE


def _accept(
    services: "Services",
    context: "RequestContext",
    request: "ProduceRequest",
    entries: list[Entry],
) -> list[Entry]:
    """What may be appended; the other entries get their error."""
    topics = services.metadata.image.topics
    version = context.api_version
    find: Any = topics.get_by_id if _uses_ids(version) else topics.get
    valid_acks = -1 <= request.acks <= 1
    accepted = []
    for entry in entries:
        response = entry.response
        if response.error_code:
            continue
        topic: TopicImage | None = find(entry.topic_key)
        if topic is None:
            response.error_code = (
                ErrorCode.UNKNOWN_TOPIC_ID
                if _uses_ids(version)
                else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            )
        elif not 0 <= response.index < len(topic.partitions):
            response.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        elif not entry.is_plain and (error := _check_records(entry.records, version)):
            response.error_code = error
        elif not valid_acks:
            response.error_code = ErrorCode.INVALID_REQUIRED_ACKS
        elif topic.is_internal and context.client_id != _ADMIN_CLIENT:
            response.error_code = ErrorCode.INVALID_TOPIC_EXCEPTION
        else:
            entry.name = topic.name
            entry.is_transactional = not entry.is_plain and _belongs_to_transaction(entry.records)
            accepted.append(entry)
    return accepted


def _belongs_to_transaction(records: "Buffer") -> bool:
    """Whether the batch, which is a whole one of magic 2, has the bit and a producer id."""
    if not records[_ATTRIBUTES_POSITION] & _TRANSACTIONAL_BIT:
        return False
    if len(records) < _PRODUCER_ID_POSITION + _PRODUCER_ID.size:
        return False
    return bool(_PRODUCER_ID.unpack_from(records, _PRODUCER_ID_POSITION)[0] >= 0)


# Transactions ------------------------------------------------------------------------------------


def _producer(entry: Entry) -> tuple[int, int, int]:
    """Id, epoch and base sequence of a transactional batch."""
    producer: tuple[int, int, int] = _PRODUCER.unpack_from(entry.records, _PRODUCER_ID_POSITION)
    return producer


def _join_transaction(
    services: "Services",
    context: "RequestContext",
    request: "ProduceRequest",
    accepted: list[Entry],
) -> "Answer[dict[TopicPartition, ErrorCode]]":
    """Errors of the partitions that may not be written to in the request's transaction.

    Raises KafkaError INVALID_PRODUCER_ID_MAPPING for batches of several producers.
    """
    transactional = [entry for entry in accepted if entry.is_transactional]
    if not transactional:
        return {}
    producers = {_producer(entry)[:2] for entry in transactional}
    if len(producers) > 1:
        raise KafkaError(
            ErrorCode.INVALID_PRODUCER_ID_MAPPING,
            "Transactional records contained more than one producer ID",
        )
    [producer] = producers
    sequences = {(e.name, e.response.index): _producer(e)[2] for e in transactional}
    return join_transaction(
        services,
        request.transactional_id or "",
        producer,
        sequences,
        TransactionSupport.of(
            context.api_version, _FIRST_VERSION_WITH_ABORTABLE, _FIRST_VERSION_THAT_JOINS
        ),
        sequences,
    )


async def _append_when_joined(
    services: "Services",
    context: "RequestContext",
    request: "ProduceRequest",
    entries: list[Entry],
    accepted: list[Entry],
    joining: "Answer[dict[TopicPartition, ErrorCode]]",
) -> ProduceResponse | None:
    join = partial(_join_transaction, services, context, request, accepted)
    errors = await join_patiently(services, joining, join)
    left = _without_refused(accepted, errors, context.api_version)
    finished = _append_all(services, context, request, entries, left)
    if finished is None or isinstance(finished, ProduceResponse):
        return finished
    return await finished


def _without_refused(
    accepted: list[Entry], errors: "dict[TopicPartition, ErrorCode]", version: int
) -> list[Entry]:
    """What may be appended. Errors that older clients would not try again after are one that they
    do, without asking for metadata first."""
    if not errors:
        return accepted
    left = []
    for entry in accepted:
        error = errors.get((entry.name, entry.response.index))
        if error is None or not entry.is_transactional:
            left.append(entry)
            continue
        if error is ErrorCode.INVALID_TXN_STATE:
            entry.response.error_message = "Partition was not added to the transaction"
        if error in _COORDINATOR_IS_AWAY or (
            error is ErrorCode.CONCURRENT_TRANSACTIONS and version < _FIRST_VERSION_THAT_JOINS
        ):
            error = ErrorCode.NOT_ENOUGH_REPLICAS
        entry.response.error_code = error
    return left


def _still_in_transaction(services: "Services", entry: Entry, transactional_id: str) -> None:
    """The batch was validated by a thread: its transaction may have ended. KafkaError."""
    producer_id, producer_epoch, _ = _producer(entry)
    partition = (entry.name, entry.response.index)
    errors = join_transaction(
        services,
        transactional_id,
        (producer_id, producer_epoch),
        [partition],
        TransactionSupport.DEFAULT_ERROR,
    )
    if isinstance(errors, dict) and partition in errors:
        raise KafkaError(errors[partition])


# Appending ---------------------------------------------------------------------------------------


def _append(
    services: "Services", entry: Entry, request: "ProduceRequest"
) -> "Coroutine[Any, Any, LogAppendInfo] | None":
    """Append one batch and fill its answer; a coroutine when the validation needs a thread."""
    manager = services.replica_manager
    try:
        partition = manager.get_partition_or_raise(entry.name, entry.response.index)
        entry.partition = partition
        before_append = None
        if entry.is_transactional:
            before_append = partial(
                _still_in_transaction, services, entry, request.transactional_id or ""
            )
        info = manager.leader_append.append_records(
            partition,
            entry.records,
            request.acks,
            is_one_batch=entry.is_plain,
            is_alone=len(request.topic_data) == len(request.topic_data[0].partition_data) == 1,
            before_late_append=before_append,
        )
    except Exception as error:
        fail(services, entry, error)
        return None
    if not isinstance(info, LogAppendInfo):
        return info
    succeed(entry, info)
    return None


async def _append_giving_way(
    services: "Services",
    context: "RequestContext",
    request: "ProduceRequest",
    entries: list[Entry],
    accepted: list[Entry],
    start: int,
    outcome: "Coroutine[Any, Any, LogAppendInfo] | None",
) -> ProduceResponse | None:
    """Append ``accepted`` from ``start`` on; ``outcome`` is what the first one waits for."""
    for number in range(start, len(accepted)):
        entry = accepted[number]
        if outcome is None:
            outcome = _append(services, entry, request)
        if outcome is not None:
            try:
                succeed(entry, await outcome)
            except Exception as error:
                fail(services, entry, error)
            outcome = None
        elif number % _AT_ONCE == 0:
            await checkpoint()
    finished = finish(services, context, request, entries)
    if finished is None or isinstance(finished, ProduceResponse):
        return finished
    return await finished
