"""Asks one dispatcher to produce, by the bytes of requests and answers."""

from typing import Any

from kbroker.common.parts import gather
from kbroker.handlers.dispatch import Dispatcher
from kbroker.protocol import registry
from kbroker.protocol.messages.produce_request import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from kbroker.protocol.messages.produce_response import (
    PartitionProduceResponse,
    ProduceResponse,
    read_produce_response,
)
from kbroker.request_context import CloseConnection, RequestContext
from tests.unit.data_plane import World, finish

PRODUCE = 0


def encoded(
    world: World, version: int, *partitions: tuple[str, int, Any], acks: int = -1, **more: Any
) -> bytes:
    """The body of a request."""
    topics: dict[str, TopicProduceData] = {}
    for name, index, records in partitions:
        known = world.metadata.image.topics.get(name)
        topic_id = bytes(15) + b"?" if known is None else known.topic_id
        wanted = topics.setdefault(name, TopicProduceData(name, topic_id))
        if version < 13:
            wanted.topic_id = bytes(16)
        else:
            wanted.name = ""
        wanted.partition_data.append(PartitionProduceData(index, records))
    request = ProduceRequest(more.pop("transactional_id", None), acks, 3000, list(topics.values()))
    for name, value in more.items():
        setattr(request, name, value)
    parts: list[Any] = []
    registry.request_writer(PRODUCE)(parts, request, version)
    return b"".join(gather(parts))


class Client:
    """Sends bodies to one dispatcher, which takes no shortcut if it is ``thorough``."""

    def __init__(self, world: World, *, thorough: bool = False) -> None:
        self.world = world
        self.dispatcher = Dispatcher(world.services)
        if thorough:
            self.dispatcher._load(PRODUCE).shortcut = None
        self.number = 0
        self.handled = 0

    def send(self, version: int, body: bytes, client_id: str = "test") -> Any:
        """What dispatch gives: the answer, or a coroutine."""
        self.number += 1
        context = self.world.context(PRODUCE, version, client_id)
        context.correlation_id = self.number
        self._count_handled(context)
        return self.dispatcher.dispatch(context, memoryview(bytearray(b"header" + body)), 6)

    def _count_handled(self, context: RequestContext) -> None:
        api = self.dispatcher._apis.get(PRODUCE)
        if api is None or hasattr(api.handle, "counts"):
            return
        handle = api.handle

        def counted(*arguments: Any) -> Any:
            self.handled += 1
            return handle(*arguments)

        counted.counts = True  # type: ignore[attr-defined]
        api.handle = counted

    async def answer(self, version: int, body: bytes, client_id: str = "test") -> bytes:
        """The bytes of the answer, or what the connection is closed with."""
        try:
            answer = await finish(self.send(version, body, client_id))
        except CloseConnection as error:
            return repr(error).encode()
        return b"" if answer is None else b"".join(gather(answer))

    def told(self, version: int, body: bytes) -> PartitionProduceResponse:
        """What is answered at once for the first partition."""
        return self.told_of_all(version, body).responses[0].partition_responses[0]

    def told_of_all(self, version: int, body: bytes) -> ProduceResponse:
        """An answer that comes at once."""
        answer = b"".join(gather(self.send(version, body)))
        response, end = read_produce_response(answer, 5 if version >= 9 else 4, version)
        assert end == len(answer)
        return response
