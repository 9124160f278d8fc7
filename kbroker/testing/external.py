"""The verbs of an embedded broker on a cluster that runs somewhere else, Apache Kafka included.

What ``--kafka-bootstrap`` puts in the place of the pytest plugin's brokers: a suite that creates
topics and looks at records by way of its fixtures runs unchanged against a real cluster. Blocking
sockets, a connection to a node, one request at a time; no client library.
"""

import select
import socket
from collections.abc import Callable, Iterator, Mapping
from struct import Struct
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from kbroker.broker.local_client import ConsumedRecord, Headers
from kbroker.common.clock import SystemClock
from kbroker.protocol import registry
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.headers import request_header_version, response_header_version
from kbroker.protocol.messages.create_topics_request import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from kbroker.protocol.messages.delete_topics_request import DeleteTopicsRequest
from kbroker.protocol.messages.fetch_request import FetchPartition, FetchRequest, FetchTopic
from kbroker.protocol.messages.list_offsets_request import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from kbroker.protocol.messages.metadata_request import MetadataRequest, MetadataRequestTopic
from kbroker.protocol.messages.produce_request import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from kbroker.protocol.wire import read_tagged_fields
from kbroker.record.batch import build_batch, iter_batches
from kbroker.record.partitioner import partition_for_key
from kbroker.record.record import Record, iter_records

T = TypeVar("T")

REQUEST_TIMEOUT_S: Final = 30.0
FETCH_BYTES: Final = 8 * 1024 * 1024
FETCH_WAIT_MS: Final = 200
PAUSE_S: Final = 0.02

# Versions that every cluster since 2.8 knows, the last ones that name topics.
_METADATA_VERSION = 9
_CREATE_TOPICS_VERSION = 5
_DELETE_TOPICS_VERSION = 4
_PRODUCE_VERSION = 8
_FETCH_VERSION = 11
_LIST_OFFSETS_VERSION = 5

_EARLIEST = -2
_LATEST = -1
_ACKS_ALL = -1
_PASSING = frozenset(  # what passes while a topic comes, goes or moves
    {
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.NOT_CONTROLLER,
    }
)
_SIZE = Struct(">i")
_HEADER = Struct(">hhih")
_CLIENT_ID = b"kbroker-testing"


class _Connection:
    """One node: a request, its answer, the next request."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), REQUEST_TIMEOUT_S)
        self._correlation_id = 0

    def call(self, api_key: ApiKey, version: int, request: Any) -> Any:
        """The decoded response. Raises OSError when the node is gone or silent."""
        self._correlation_id += 1
        header = _HEADER.pack(api_key, version, self._correlation_id, len(_CLIENT_ID)) + _CLIENT_ID
        if request_header_version(api_key, version) == 2:
            header += b"\0"
        parts: list[Any] = [header]
        registry.write_request(api_key, version, request, parts)
        body = b"".join(parts)
        self._socket.sendall(_SIZE.pack(len(body)) + body)
        answer = self._receive(_SIZE.unpack(self._receive(_SIZE.size))[0])
        position = 4
        if response_header_version(api_key, version):
            _, position = read_tagged_fields(answer, position)
        return registry.read_response(api_key, version, answer, position)

    def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            chunk = self._socket.recv(min(size - len(received), 1 << 20))
            if not chunk:
                raise ConnectionResetError("the node has closed the connection")
            received += chunk
        return bytes(received)

    def pause(self) -> None:
        """Let a moment pass: nothing comes on a connection that has asked for nothing."""
        select.select([self._socket], [], [], PAUSE_S)

    def close(self) -> None:
        self._socket.close()


class ExternalCluster:
    """``with ExternalCluster("host:9092") as cluster``: topics it made are deleted at the end."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self._clock = SystemClock()
        self._connections: dict[tuple[str, int], _Connection] = {}
        self._made: dict[str, None] = {}
        self._next_partition = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._made:
                self._delete_topics()
        finally:
            self._close()

    # Verbs

    def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        config: Mapping[str, str | int | float | bool] | None = None,
    ) -> None:
        """Create a topic. Raises KafkaError; one that is being deleted is waited for."""
        configs = [
            CreatableTopicConfig(key, str(value).lower() if isinstance(value, bool) else str(value))
            for key, value in (config or {}).items()
        ]
        topic = CreatableTopic(name, partitions, -1, configs=configs)
        request = CreateTopicsRequest([topic], timeout_ms=int(REQUEST_TIMEOUT_S * 1000))

        def attempt() -> None:
            response = self._on_controller(ApiKey.CREATE_TOPICS, _CREATE_TOPICS_VERSION, request)
            (result,) = response.topics
            _check(result.error_code, result.error_message)

        being_deleted = name not in self._made and name not in self._topic_names()
        self._retry(attempt, ErrorCode.TOPIC_ALREADY_EXISTS if being_deleted else None)
        self._made[name] = None

    def produce(
        self,
        topic: str,
        value: bytes | str | None,
        *,
        key: bytes | str | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> tuple[int, int]:
        """Append one record with acks=all; (partition, offset). Raises KafkaError."""
        key = key.encode() if isinstance(key, str) else key
        record = Record(
            key=key,
            value=value.encode() if isinstance(value, str) else value,
            headers=tuple(headers),
            timestamp=self._clock.time_ms() if timestamp is None else timestamp,
        )
        leaders = self._leaders(topic, create=True)
        if partition is None:
            partition = self._choose_partition(key, len(leaders))
        elif partition not in leaders:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        data = PartitionProduceData(partition, build_batch([record]))
        request = ProduceRequest(
            acks=_ACKS_ALL,
            timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
            topic_data=[TopicProduceData(topic, partition_data=[data])],
        )

        def attempt() -> int:
            address = self._leaders(topic)[partition]
            response = self._call(address, ApiKey.PRODUCE, _PRODUCE_VERSION, request)
            (result,) = response.responses[0].partition_responses
            _check(result.error_code, result.error_message)
            return int(result.base_offset)

        return partition, self._retry(attempt)

    def consume(
        self,
        topic: str,
        *,
        count: int | None = None,
        partition: int | None = None,
        timeout_s: float = 5.0,
    ) -> list[ConsumedRecord]:
        """The topic's records from its beginning; with ``count`` waits for so many (TimeoutError).

        A topic that is not there has no records.
        """
        deadline = self._clock.monotonic() + timeout_s
        found: dict[int, list[ConsumedRecord]] = {}
        while True:
            for index, address in self._leaders(topic, missing_ok=True).items():
                if partition is None or index == partition:
                    records = found.setdefault(index, [])
                    self._read(topic, index, address, records, wait=count is not None)
            everything = [record for index in sorted(found) for record in found[index]]
            if count is None:
                return everything
            if len(everything) >= count:
                return everything[:count]
            if not found:
                self._any().pause()
            if self._clock.monotonic() >= deadline:
                raise TimeoutError(
                    f"{topic} holds {len(everything)} records after {timeout_s} s, "
                    f"{count} were expected"
                )

    # Steps

    def _read(
        self,
        topic: str,
        partition: int,
        address: tuple[str, int],
        records: list[ConsumedRecord],
        *,
        wait: bool,
    ) -> None:
        """Appends what the partition holds after the last of ``records``."""
        end = self._offset(topic, partition, address, _LATEST)
        position = self._offset(topic, partition, address, _EARLIEST)
        if records:
            position = records[-1].offset + 1
        while True:
            asked = FetchPartition(
                partition, fetch_offset=position, partition_max_bytes=FETCH_BYTES
            )
            request = FetchRequest(
                max_wait_ms=FETCH_WAIT_MS if wait and position >= end else 0,
                min_bytes=1,
                max_bytes=FETCH_BYTES,
                isolation_level=1,
                topics=[FetchTopic(topic, partitions=[asked])],
            )
            response = self._call(address, ApiKey.FETCH, _FETCH_VERSION, request)
            _check(response.error_code)
            (result,) = response.responses[0].partitions
            _check(result.error_code)
            fetched = list(_fetched(topic, partition, result.records or b"", position))
            records += [record for record, _ in fetched if record is not None]
            if fetched:
                position = fetched[-1][1]
            if position >= end or not fetched:
                return

    def _offset(self, topic: str, partition: int, address: tuple[str, int], timestamp: int) -> int:
        asked = ListOffsetsPartition(partition, timestamp=timestamp)
        request = ListOffsetsRequest(
            replica_id=-1,
            isolation_level=1,
            topics=[ListOffsetsTopic(topic, [asked])],
        )

        def attempt() -> int:
            response = self._call(address, ApiKey.LIST_OFFSETS, _LIST_OFFSETS_VERSION, request)
            (result,) = response.topics[0].partitions
            _check(result.error_code)
            return int(result.offset)

        return self._retry(attempt)

    def _choose_partition(self, key: bytes | None, count: int) -> int:
        if key is not None:
            return partition_for_key(key, count)
        self._next_partition += 1
        return (self._next_partition - 1) % count

    def _leaders(
        self, topic: str, *, create: bool = False, missing_ok: bool = False
    ) -> dict[int, tuple[str, int]]:
        """Where the leader of each partition is reached; waits until all have one."""
        known = [] if not create else self._topic_names()

        def attempt() -> dict[int, tuple[str, int]]:
            request = MetadataRequest(
                [MetadataRequestTopic(name=topic)], allow_auto_topic_creation=create
            )
            response = self._call(None, ApiKey.METADATA, _METADATA_VERSION, request)
            nodes = {broker.node_id: (broker.host, broker.port) for broker in response.brokers}
            (found,) = response.topics
            if found.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and missing_ok:
                return {}
            _check(found.error_code)
            if any(partition.leader_id not in nodes for partition in found.partitions):
                raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE)
            return {each.partition_index: nodes[each.leader_id] for each in found.partitions}

        leaders = self._retry(attempt)
        if create and topic not in known:
            self._made[topic] = None
        return leaders

    def _topic_names(self) -> list[str]:
        response = self._call(None, ApiKey.METADATA, _METADATA_VERSION, MetadataRequest(None))
        return [topic.name for topic in response.topics]

    def _delete_topics(self) -> None:
        request = DeleteTopicsRequest(
            topic_names=list(self._made), timeout_ms=int(REQUEST_TIMEOUT_S * 1000)
        )
        self._made.clear()
        response = self._on_controller(ApiKey.DELETE_TOPICS, _DELETE_TOPICS_VERSION, request)
        for result in response.responses:
            if result.error_code != ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                _check(result.error_code)

    def _on_controller(self, api_key: ApiKey, version: int, request: Any) -> Any:
        metadata = self._call(None, ApiKey.METADATA, _METADATA_VERSION, MetadataRequest([]))
        for broker in metadata.brokers:
            if broker.node_id == metadata.controller_id:
                return self._call((broker.host, broker.port), api_key, version, request)
        raise KafkaError(ErrorCode.NOT_CONTROLLER)

    def _call(
        self, address: tuple[str, int] | None, api_key: ApiKey, version: int, request: Any
    ) -> Any:
        """One request to a node, None: to any. A connection that was closed is opened again."""
        known = set(self._connections.values())
        connection = self._any() if address is None else self._at(address)
        try:
            return connection.call(api_key, version, request)
        except ConnectionError:
            if connection not in known:
                raise
            self._close()
            connection = self._any() if address is None else self._at(address)
            return connection.call(api_key, version, request)

    def _any(self) -> _Connection:
        """A connection to the first address that answers."""
        problem: OSError | None = None
        for address in self.bootstrap_servers.split(","):
            host, _, port = address.strip().rpartition(":")
            try:
                return self._at((host.strip("[]"), int(port)))
            except OSError as error:
                problem = error
        raise ConnectionError(f"none of {self.bootstrap_servers} answers") from problem

    def _at(self, address: tuple[str, int]) -> _Connection:
        connection = self._connections.get(address)
        if connection is None:
            connection = self._connections[address] = _Connection(*address)
        return connection

    def _close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _retry(self, attempt: Callable[[], T], also: ErrorCode | None = None) -> T:
        """Repeats what fails because a topic or its leader is not there yet."""
        deadline = self._clock.monotonic() + REQUEST_TIMEOUT_S
        while True:
            try:
                return attempt()
            except KafkaError as error:
                passes = error.error_code in _PASSING or error.error_code == also
                if not passes or self._clock.monotonic() >= deadline:
                    raise
                self._any().pause()


def _fetched(
    topic: str, partition: int, records: Any, position: int
) -> Iterator[tuple[ConsumedRecord | None, int]]:
    """(record, next offset) of whole batches from ``position`` on; None for control batches."""
    for header in iter_batches(records):
        for record in () if header.is_control else iter_records(records, header):
            if record.offset >= position:
                consumed = ConsumedRecord(
                    topic,
                    partition,
                    record.offset,
                    record.timestamp,
                    record.key,
                    record.value,
                    list(record.headers),
                )
                yield consumed, record.offset + 1
        yield None, header.next_offset


def _check(error_code: int, message: str | None = None) -> None:
    if error_code:
        raise KafkaError(ErrorCode(error_code), message)
