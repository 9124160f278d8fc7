"""Requests counted as they pass: how many, how large, how long, and whose records.

A broker without metrics has a plain ``Dispatcher`` and pays nothing. Counters are plain numbers;
what they mean to others is decided when somebody asks (``metrics``).
"""

from collections.abc import Callable, Coroutine
from struct import Struct
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from kbroker.common.parts import parts_size
from kbroker.handlers.dispatch import Dispatcher
from kbroker.handlers.produce_outcome import UnansweredProduce
from kbroker.protocol.registry import APIS
from kbroker.record.batch import HEADER_SIZE
from kbroker.request_context import CloseConnection

if TYPE_CHECKING:
    from kbroker.common.parts import Buffer
    from kbroker.handlers.services import Services
    from kbroker.protocol.messages.fetch_response import FetchResponse
    from kbroker.protocol.messages.produce_request import ProduceRequest
    from kbroker.protocol.messages.produce_response import ProduceResponse
    from kbroker.request_context import Answer, Dispatched, RequestContext

DURATIONS: Final = 36
"""Number of duration classes: class k holds what took less than 2^k us and not less than half."""

UNKNOWN_VERSION: Final = -1
"""Stands for versions that are not served: a peer must not make up counters."""

_PRODUCE: Final = 0
_FETCH: Final = 1
_RECORD_COUNT: Final = Struct(">i")
_RECORD_COUNT_POSITION: Final = HEADER_SIZE - _RECORD_COUNT.size


class ApiCounts:
    """Requests of one version of one API that were answered, or needed no answer."""

    __slots__ = ("durations", "request_bytes", "requests", "response_bytes", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.seconds = 0.0
        self.durations = [0] * DURATIONS


class TopicCounts:
    """What clients wrote to and read from one topic. Bytes are those of record batches."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "bytes_rejected",
        "failed_fetches",
        "failed_produces",
        "fetches",
        "messages_in",
        "produces",
    )

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.bytes_rejected = 0
        self.messages_in = 0
        self.produces = 0
        self.fetches = 0
        self.failed_produces = 0
        self.failed_fetches = 0

    def add(self, other: "TopicCounts") -> None:
        """Become the sum."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class MeteredDispatcher(Dispatcher):
    """A dispatcher that counts. Durations begin when a request's turn has come."""

    def __init__(self, services: "Services", **options: Any) -> None:
        super().__init__(services, **options)
        self._clock = services.clock
        self._metadata = services.metadata
        self._apis_counted: dict[tuple[int, int], ApiCounts] = {}
        self._topics: dict[str, TopicCounts] = {}
        self._deleted = TopicCounts()
        self.refused = 0
        """Requests whose connection was closed instead of an answer."""

    def api_counts(self) -> dict[tuple[int, int], ApiCounts]:
        """By (API key, version)."""
        return dict(self._apis_counted)

    def topic_counts(self) -> dict[str, TopicCounts]:
        """By topic, of those that exist."""
        topics = self._metadata.image.topics
        for name in [name for name in self._topics if topics.get(name) is None]:
            self._deleted.add(self._topics.pop(name))
        return dict(self._topics)

    def all_topics(self) -> TopicCounts:
        """The sum over all topics, deleted ones included."""
        total = TopicCounts()
        for counts in (self._deleted, *self._topics.values()):
            total.add(counts)
        return total

    # Requests -----------------------------------------------------------------------------------

    def dispatch(self, context: "RequestContext", buffer: "Buffer", position: int) -> "Dispatched":
        try:
            answer = super().dispatch(context, buffer, position)
        except CloseConnection:
            self.refused += 1
            raise
        if answer is not None and not isinstance(answer, list):
            return self._wait(context, len(buffer), answer)
        self._count(context, len(buffer), answer)
        return answer

    async def _wait(
        self, context: "RequestContext", size: int, waiting: "Coroutine[Any, Any, Answer]"
    ) -> "Answer":
        try:
            answer = await waiting
        except CloseConnection:
            self.refused += 1
            raise
        self._count(context, size, answer)
        return answer

    def _count(self, context: "RequestContext", size: int, answer: "Answer") -> None:
        elapsed = self._clock.monotonic() - context.received_at
        counts = self._apis_counted.get((context.api_key, context.api_version))
        if counts is None:
            counts = self._first_of(context.api_key, context.api_version)
        counts.requests += 1
        counts.request_bytes += size
        if answer is not None:
            counts.response_bytes += parts_size(answer)
        counts.seconds += elapsed
        counts.durations[min(int(elapsed * 1_000_000).bit_length(), DURATIONS - 1)] += 1

    def _first_of(self, key: int, version: int) -> ApiCounts:
        info = APIS[key]
        if not info.min_version <= version <= info.max_version:
            version = UNKNOWN_VERSION
        return self._apis_counted.setdefault((key, version), ApiCounts())

    # Topics -------------------------------------------------------------------------------------

    def _load(self, key: int) -> Any:
        api = super()._load(key)
        if key == _PRODUCE:
            api.handle = self._around(api.handle, self._count_produce)
            api.shortcut = None  # records are counted as the handler is passed
        elif key == _FETCH:
            api.handle = self._around(api.handle, self._count_fetch)
            api.shortcut = None
        return api

    @staticmethod
    def _around(
        handle: Callable[..., Any], count: Callable[[Any, Any], None]
    ) -> Callable[..., Any]:
        """The same handler, its answers looked at."""

        def counted(services: "Services", context: "RequestContext", request: Any) -> Any:
            try:
                response = handle(services, context, request)
            except UnansweredProduce as failure:
                count(request, failure)
                raise
            if response.__class__ is CoroutineType:
                return wait(request, response)
            count(request, response)
            return response

        async def wait(request: Any, waiting: "Coroutine[Any, Any, Any]") -> Any:
            try:
                response = await waiting
            except UnansweredProduce as failure:
                count(request, failure)
                raise
            count(request, response)
            return response

        return counted

    def _of_topic(self, name: str) -> TopicCounts | None:
        """None for what does not exist: a peer must not make up counters."""
        counts = self._topics.get(name)
        if counts is None and self._metadata.image.topics.get(name) is not None:
            counts = self._topics[name] = TopicCounts()
        return counts

    def _name_of(self, topic_id: bytes) -> str:
        topic = self._metadata.image.topics.get_by_id(topic_id)
        return topic.name if topic is not None else ""

    def _count_produce(
        self, request: "ProduceRequest", response: "ProduceResponse | UnansweredProduce | None"
    ) -> None:
        """Nobody waits for an answer with acks=0, and errors close the connection."""
        failed = () if response is None else _failures(response)
        for topic in request.topic_data:
            counts = self._of_topic(topic.name or self._name_of(topic.topic_id))
            if counts is None:
                continue
            for data in topic.partition_data:
                records = data.records
                size = 0 if records is None else len(records)
                counts.produces += 1
                if failed and (topic.name or topic.topic_id, data.index) in failed:
                    counts.failed_produces += 1
                    counts.bytes_rejected += size
                elif size >= HEADER_SIZE:
                    counts.bytes_in += size
                    counts.messages_in += _RECORD_COUNT.unpack_from(
                        records, _RECORD_COUNT_POSITION
                    )[0]

    def _count_fetch(self, request: Any, response: "FetchResponse") -> None:
        for topic in response.responses:
            counts = self._of_topic(topic.topic)
            if counts is None:
                continue
            for data in topic.partitions:
                counts.fetches += 1
                if data.error_code:
                    counts.failed_fetches += 1
                elif data.records is not None:
                    counts.bytes_out += len(data.records)


def _failures(response: "ProduceResponse | UnansweredProduce") -> set[tuple[str | bytes, int]]:
    """(topic name or id, partition) of what was refused; nearly always nothing."""
    if isinstance(response, UnansweredProduce):
        return response.failed
    return {
        (topic.name or topic.topic_id, outcome.index)
        for topic in response.responses
        for outcome in topic.partition_responses
        if outcome.error_code
    }
