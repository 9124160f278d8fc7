"""Request and response headers: which version goes with which API, and a fast way to read them.

The version of a header follows from the API and its version: flexible APIs have request header 2
and response header 1, others 1 and 0. The response header of ApiVersions is always version 0, so
that a client can read it before it knows what the broker speaks (KIP-511).
"""

from struct import Struct
from struct import error as struct_error
from typing import Any, Final

from kbroker.protocol.messages.request_header import RequestHeader
from kbroker.protocol.registry import APIS
from kbroker.protocol.wire import (
    Buffer,
    DecodeError,
    TaggedFields,
    read_nullable_string,
    read_tagged_fields,
)

RequestFields = tuple[int, int, int, str | None, int]
"""(API key, version, correlation id, client id, position of the body)"""

__all__ = [
    "RequestHeader",
    "read_request_fields",
    "read_request_header",
    "request_header_version",
    "response_header_version",
    "write_response_header",
]

_API_VERSIONS: Final = 18
_FIXED_PART: Final = Struct(">hhi")
_WITH_CLIENT_ID: Final = Struct(">hhih")
_CORRELATION_ID: Final = Struct(">i")
_FLEXIBLE_FROM: Final = {key: info.flexible_from for key, info in APIS.items()}
_NEVER: Final = 32767


def request_header_version(api_key: int, version: int) -> int:
    """2 for flexible versions, future ones of a known API included; 1 for all else."""
    return 2 if version >= _FLEXIBLE_FROM.get(api_key, _NEVER) else 1


def response_header_version(api_key: int, version: int) -> int:
    """1 for flexible versions, 0 for others and always for ApiVersions."""
    if api_key == _API_VERSIONS:
        return 0
    return 1 if version >= _FLEXIBLE_FROM.get(api_key, _NEVER) else 0


def read_request_header(buffer: Buffer, position: int) -> tuple[RequestHeader, int]:
    """The header of a request and the position of its body.

    An unknown API key is read with header version 1. Raises DecodeError when the bytes are no
    header.
    """
    try:
        api_key, version, correlation_id = _FIXED_PART.unpack_from(buffer, position)
        client_id, position = read_nullable_string(buffer, position + 8)
        tagged_fields: TaggedFields = ()
        if version >= _FLEXIBLE_FROM.get(api_key, _NEVER):
            if buffer[position] == 0:
                position += 1
            else:
                tagged_fields, position = read_tagged_fields(buffer, position)
    except (struct_error, IndexError) as error:
        raise DecodeError(f"a request header is cut short ({error})") from error
    return RequestHeader(api_key, version, correlation_id, client_id, tagged_fields), position


def read_request_fields(frame: memoryview) -> RequestFields:
    """What a broker needs of the header at the start of ``frame``, without an object for it.

    Raises DecodeError when the bytes are no header.
    """
    size = len(frame)
    if size >= 10:
        api_key, version, correlation_id, length = _WITH_CLIENT_ID.unpack_from(frame)
        position = 10 + length
        is_flexible = version >= _FLEXIBLE_FROM.get(api_key, _NEVER)
        if length >= 0 and position < size and not (is_flexible and frame[position]):
            try:
                client_id = str(frame[10:position], "utf-8")
            except UnicodeDecodeError:
                pass
            else:
                if is_flexible:
                    position += 1
                return api_key, version, correlation_id, client_id, position
    header, position = read_request_header(frame, 0)
    return (
        header.request_api_key,
        header.request_api_version,
        header.correlation_id,
        header.client_id,
        position,
    )


def write_response_header(parts: list[Any], correlation_id: int, header_version: int) -> None:
    """Append a response header; version 1 ends with an empty section of tagged fields."""
    header = _CORRELATION_ID.pack(correlation_id)
    parts.append(header + b"\0" if header_version else header)
