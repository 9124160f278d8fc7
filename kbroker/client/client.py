"""Where the brokers are, who leads what, and requests that are repeated while that may help."""

import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

import anyio
from anyio.abc import ByteStream, TaskGroup

from kbroker.client.connection import Connection, ConnectionLostError
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.find_coordinator_request import FindCoordinatorRequest
from kbroker.protocol.messages.metadata_request import MetadataRequest, MetadataRequestTopic
from kbroker.protocol.messages.metadata_response import MetadataResponse, MetadataResponseTopic

T = TypeVar("T")
Connect = Callable[[str, int], Awaitable[ByteStream]]

CONNECT_TIMEOUT_S: Final = 10.0
REQUEST_TIMEOUT_S: Final = 30.0
AUTO_CREATE_TIMEOUT_S: Final = 5.0
"""How long a topic is waited for that the broker creates because somebody writes to it."""

_FIRST_FIND_COORDINATOR_OF_MANY: Final = 4
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0


class BootstrapError(Exception):
    """None of the bootstrap addresses answers as a Kafka broker."""


class Node(NamedTuple):
    """A broker as metadata names it."""

    node_id: int
    host: str
    port: int
    rack: str | None


class Metadata(NamedTuple):
    """What one Metadata answer said."""

    cluster_id: str | None
    controller_id: int
    nodes: dict[int, Node]
    topics: list[MetadataResponseTopic]


def parse_bootstrap(text: str) -> list[tuple[str, int]]:
    """``HOST:PORT,[IPv6]:PORT`` -> addresses. Raises ValueError that says what is expected.

    ``PLAINTEXT://`` may stand before each, as test containers name their brokers.
    """
    addresses = []
    for address in filter(None, (part.strip() for part in text.split(","))):
        scheme, separator, rest = address.rpartition("://")
        if separator and scheme.upper() != "PLAINTEXT":
            raise ValueError(f"{address!r}: only PLAINTEXT is spoken here, not {scheme}")
        host, _, port = rest.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"{address!r} is not HOST:PORT")
        addresses.append((host.removeprefix("[").removesuffix("]"), int(port)))
    if not addresses:
        raise ValueError("no bootstrap address: expected HOST:PORT")
    return addresses


async def _connect_tcp(host: str, port: int) -> ByteStream:
    return await anyio.connect_tcp(host, port)


class KafkaClient:
    """``async with KafkaClient("host:9092") as client``: a connection per broker, made when needed.

    ``timeout_s`` bounds every verb, repetitions included.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        client_id: str = "kbroker-client",
        timeout_s: float = REQUEST_TIMEOUT_S,
        connect: Connect = _connect_tcp,
    ) -> None:
        self.timeout_s = timeout_s
        self._bootstrap = parse_bootstrap(bootstrap_servers)
        self._client_id = client_id
        self._connect = connect
        self._connections: dict[tuple[str, int, bool], Connection] = {}
        self._connecting = anyio.Lock()
        self._nodes: dict[int, Node] = {}
        self._leaders: dict[str, dict[int, int]] = {}
        self._coordinators: dict[str, int] = {}
        self._tasks: TaskGroup | None = None
        self._was_reached = False

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            # the caller's exception is not handed in: it would come back inside a group
            await self._tasks.__aexit__(None, None, None)

    # Requests

    async def call(
        self, node_id: int | None, api_key: ApiKey, request: Any, *, answered: bool = True
    ) -> Any:
        """One request to a node, None: to any. Raises ConnectionLostError, BootstrapError."""
        connection = await self.connection(node_id)
        return await connection.call(api_key, request, answered=answered)

    async def connection(
        self, node_id: int | None = None, *, for_group: bool = False
    ) -> Connection:
        """The connection to a node, None: to any that answers.

        A node has a second one ``for_group``: a join that waits for other members, and a fetch that
        waits for records, would hold up each other's requests.
        """
        if node_id is not None:
            node = self._nodes.get(node_id)
            if node is None:
                raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE)
            return await self._connection_to((node.host, node.port), for_group=for_group)
        known = [(node.host, node.port) for node in self._nodes.values()]
        problem: Exception | None = None
        for address in dict.fromkeys([*known, *self._bootstrap]):
            try:
                return await self._connection_to(address)
            except ConnectionLostError as error:
                problem = error
        if self._was_reached:
            raise problem or ConnectionLostError("no broker is known")
        raise BootstrapError(str(problem))

    async def retrying(
        self,
        attempt: Callable[[], Awaitable[T]],
        *,
        final: frozenset[ErrorCode] = frozenset(),
        timeout_s: float | None = None,
    ) -> T:
        """``attempt`` until it succeeds, fails for good, or the time is over (its last error).

        Errors of ``final`` end it although Kafka calls them retriable.
        """
        seconds = self.timeout_s if timeout_s is None else timeout_s
        deadline = anyio.current_time() + seconds
        pause = _FIRST_PAUSE_S
        while True:
            problem: Exception
            try:
                with anyio.fail_after(max(deadline - anyio.current_time(), 0)):
                    return await attempt()
            except KafkaError as error:
                if not error.error_code.retriable or error.error_code in final:
                    raise
                problem = error
            except ConnectionLostError as error:
                problem = error
            except TimeoutError:
                raise self._too_late(seconds) from None
            self._leaders.clear()
            self._coordinators.clear()
            if anyio.current_time() + pause >= deadline:
                raise problem
            await anyio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _too_late(self, seconds: float) -> Exception:
        """What a verb says that was not done in time."""
        if self._was_reached:
            return KafkaError(ErrorCode.REQUEST_TIMED_OUT, "the broker did not answer in time")
        named = ", ".join(_name_of(*address) for address in self._bootstrap)
        return BootstrapError(f"{named}: no answer in {seconds:g} s")

    # Metadata

    async def metadata(
        self, topics: Sequence[str] | None = None, *, create: bool = False
    ) -> Metadata:
        """Ask once; None is every topic. Errors of single topics stay in their entries."""
        asked = None if topics is None else [MetadataRequestTopic(name=name) for name in topics]
        request = MetadataRequest(asked, allow_auto_topic_creation=create)
        response: MetadataResponse = await self.call(None, ApiKey.METADATA, request)
        check(response.error_code)
        self._nodes = {
            each.node_id: Node(each.node_id, each.host, each.port, each.rack)
            for each in response.brokers
        }
        return Metadata(
            response.cluster_id, response.controller_id, dict(self._nodes), response.topics
        )

    async def controller_id(self) -> int:
        """The node that takes changes of topics."""
        controller_id = (await self.metadata([])).controller_id
        if controller_id < 0:
            raise KafkaError(ErrorCode.NOT_CONTROLLER)
        return controller_id

    async def leaders(
        self, topic: str, *, of: Collection[int] | None = None, create: bool = False
    ) -> dict[int, int]:
        """Partition -> node id of its leader, from the cache while nothing went wrong.

        Waits until the partitions ``of`` (None: all) have leaders; others may have none (-1). A
        missing topic is UNKNOWN_TOPIC_OR_PARTITION: at once, with ``create`` when the broker has
        not created it in ``AUTO_CREATE_TIMEOUT_S``.
        """
        known = self._leaders.get(topic)
        if known is not None and self._without_leader(known, of) is None:
            return known

        async def attempt() -> dict[int, int]:
            (found,) = (await self.metadata([topic], create=create)).topics
            check(found.error_code, f"topic {topic}")
            leaders = {each.partition_index: each.leader_id for each in found.partitions}
            missing = self._without_leader(leaders, of)
            if missing is not None:
                where = f"topic {topic}, partition {missing}"
                raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"{where} has no leader")
            if not leaders:
                raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE, f"topic {topic}")
            return dict(sorted(leaders.items()))

        leaders = await self.retrying(
            attempt,
            final=frozenset() if create else frozenset({ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}),
            timeout_s=min(self.timeout_s, AUTO_CREATE_TIMEOUT_S) if create else None,
        )
        self._leaders[topic] = leaders
        return leaders

    def _without_leader(self, leaders: Mapping[int, int], of: Collection[int] | None) -> int | None:
        """The first of the partitions that has none that is known; None: all have."""
        for partition, leader in leaders.items():
            if leader not in self._nodes and (of is None or partition in of):
                return partition
        return None

    # Coordinators

    async def coordinator(self, group_id: str) -> Node:
        """The node that looks after a group, asked once while nothing goes wrong."""
        node_id = self._coordinators.get(group_id)
        if node_id is not None and node_id in self._nodes:
            return self._nodes[node_id]
        connection = await self.connection()
        if connection.version(ApiKey.FIND_COORDINATOR) >= _FIRST_FIND_COORDINATOR_OF_MANY:
            request = FindCoordinatorRequest(coordinator_keys=[group_id])
            response = await connection.call(ApiKey.FIND_COORDINATOR, request)
            (found,) = response.coordinators
        else:
            request = FindCoordinatorRequest(group_id)
            found = await connection.call(ApiKey.FIND_COORDINATOR, request)
        check(found.error_code, found.error_message or f"group {group_id}")
        self._coordinators[group_id] = found.node_id
        node = Node(found.node_id, found.host, found.port, None)
        return self._nodes.setdefault(found.node_id, node)

    async def group_connection(self, group_id: str) -> Connection:
        """The connection to the coordinator of a group; ``retrying`` asks again who that is."""
        node = await self.coordinator(group_id)
        return await self.connection(node.node_id, for_group=True)

    # Leaders

    def forget(self, topic: str) -> None:
        """Ask again who leads: the topic may have been deleted, made anew, or have grown."""
        self._leaders.pop(topic, None)

    async def by_leader(self, topic: str, partitions: Sequence[int]) -> dict[int, list[int]]:
        """Node id -> those of the partitions that it leads. KafkaError for an unknown one."""
        leaders = await self.leaders(topic, of=partitions)
        grouped: dict[int, list[int]] = {}
        for partition in partitions:
            if partition not in leaders:
                raise KafkaError(
                    ErrorCode.INVALID_PARTITIONS,
                    f"topic {topic} has partitions 0 to {len(leaders) - 1}, not {partition}",
                )
            grouped.setdefault(leaders[partition], []).append(partition)
        return grouped

    async def _connection_to(
        self, address: tuple[str, int], *, for_group: bool = False
    ) -> Connection:
        key = (*address, for_group)
        async with self._connecting:
            connection = self._connections.get(key)
            if connection is not None and not connection.is_closed:
                return connection
            if self._tasks is None:
                raise RuntimeError("use it as: async with KafkaClient(...) as client")
            host, port = address
            name = _name_of(host, port)
            try:
                with anyio.fail_after(CONNECT_TIMEOUT_S):
                    stream = await self._connect(host, port)
                    connection = Connection(stream, client_id=self._client_id, name=name)
                    self._tasks.start_soon(connection.run)
                    await connection.negotiate()
            except TimeoutError as error:
                raise ConnectionLostError(
                    f"{name}: no answer in {CONNECT_TIMEOUT_S:.0f} s; is this a Kafka port?"
                ) from error
            except OSError as error:
                raise ConnectionLostError(f"{name}: {_reason(error)}") from error
            self._connections[key] = connection
            self._was_reached = True
            return connection


def _name_of(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: OSError) -> str:
    """What went wrong: where several addresses were tried, anyio keeps the errors in a group."""
    cause: BaseException = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, ConnectionError) and cause.errno:
        return os.strerror(cause.errno)  # asyncio's own text hides it: "Connect call failed"
    return getattr(cause, "strerror", None) or str(cause)


def check(error_code: int, message: str | None = None) -> None:
    """Raise the KafkaError of a code from the wire; 0 is none."""
    if error_code:
        raise KafkaError(ErrorCode.for_code(error_code), message or None)
