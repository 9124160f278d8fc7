"""A broker that answers from a script, for clients that are given its streams as connections."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack
from typing import Any

import anyio
from anyio.streams.stapled import StapledObjectStream

from kbroker.client.client import KafkaClient
from kbroker.protocol import registry
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.headers import read_request_header, response_header_version
from kbroker.protocol.messages.api_versions_response import ApiVersion, ApiVersionsResponse
from kbroker.protocol.messages.metadata_response import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)

Answer = Callable[[Any], Any] | Any
HANG_UP = object()
SILENCE = object()
NODE = 1


class ScriptedBroker:
    """``answers``: per API what it says, in order; a callable gets the request.

    The last answer is repeated. ``HANG_UP`` closes the connection, ``SILENCE`` says nothing.
    ``asked`` holds every request but ApiVersions.
    """

    def __init__(self, answers: dict[ApiKey, list[Answer]], *, topics: dict[str, int]) -> None:
        self.asked: list[tuple[ApiKey, Any]] = []
        self.connections = 0
        self._answers = {ApiKey.METADATA: [metadata(topics)], **answers}
        self._streams: list[Any] = []
        self._tasks: Any = None

    async def __aenter__(self) -> ScriptedBroker:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._tasks.cancel_scope.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)  # raises when the test is cancelled
        finally:
            for stream in self._streams:
                stream.close()

    def client(self, *, timeout_s: float = 30.0) -> KafkaClient:
        return KafkaClient("scripted:1", timeout_s=timeout_s, connect=self._connect)

    def requests(self, api_key: ApiKey) -> list[Any]:
        return [request for key, request in self.asked if key == api_key]

    async def _connect(self, host: str, port: int) -> Any:
        self.connections += 1
        to_broker, from_client = anyio.create_memory_object_stream[bytes](100)
        to_client, from_broker = anyio.create_memory_object_stream[bytes](100)
        self._streams += [to_broker, from_client, to_client, from_broker]
        self._tasks.start_soon(self._serve, StapledObjectStream(to_client, from_client))
        return _ClientEnd(to_broker, from_broker)

    async def _serve(self, stream: Any) -> None:
        async for frame in stream:
            header, position = read_request_header(frame, 4)
            api_key, version = ApiKey(header.request_api_key), header.request_api_version
            request = registry.read_request(api_key, version, frame, position)
            if api_key == ApiKey.API_VERSIONS:
                answer: Any = everything()
            else:
                self.asked.append((api_key, request))
                script = self._answers[api_key]
                answer = script.pop(0) if len(script) > 1 else script[0]
            answer = answer(request) if callable(answer) else answer
            if answer is HANG_UP:
                await stream.aclose()
                return
            if answer is SILENCE:
                continue
            parts: list[Any] = [pack(">i", header.correlation_id)]
            if response_header_version(api_key, version):
                parts.append(b"\0")
            registry.write_response(api_key, version, answer, parts)
            body = b"".join(parts)
            await stream.send(pack(">i", len(body)) + body)


class _ClientEnd:
    """Two pipes as the byte stream that a client takes."""

    def __init__(self, outgoing: Any, incoming: Any) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self.send = outgoing.send

    async def receive(self, max_bytes: int) -> bytes:
        return await self._incoming.receive()

    async def aclose(self) -> None:
        self._incoming.close()
        self._outgoing.close()


def everything() -> ApiVersionsResponse:
    """All APIs in all versions."""
    return ApiVersionsResponse(
        api_keys=[
            ApiVersion(key, info.min_version, info.max_version)
            for key, info in registry.APIS.items()
        ]
    )


def metadata(topics: dict[str, int], *, error_code: int = 0, leader: int = NODE) -> Any:
    """Topic -> partition count, all led by ``leader`` on the only broker there is."""

    def answer(request: Any) -> MetadataResponse:
        return MetadataResponse(
            brokers=[MetadataResponseBroker(NODE, "scripted", 1)],
            controller_id=NODE,
            topics=[
                MetadataResponseTopic(
                    error_code,
                    name,
                    topic_id=topic_id(name),
                    partitions=[
                        MetadataResponsePartition(partition_index=index, leader_id=leader)
                        for index in range(count)
                    ],
                )
                for name, count in topics.items()
            ],
        )

    return answer


def topic_id(name: str) -> bytes:
    """16 bytes that tell topics apart."""
    return name.encode().ljust(16, b"\1")
