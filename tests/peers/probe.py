"""The smallest question a client can ask: one ApiVersions request over a plain socket.

Written by hand, on purpose without kbroker's codec: it tells when a broker, ours or another,
answers, and must not depend on what it looks at.
"""

from __future__ import annotations

import socket
import struct
import time

API_VERSIONS = 18


def split_address(bootstrap: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` as (host, port)."""
    host, _, port = bootstrap.rpartition(":")
    return host.strip("[]"), int(port)


def ask_api_versions(bootstrap: str, *, timeout_s: float) -> int:
    """Sends ApiVersions v0 and returns how many APIs the answer lists.

    Raises OSError when nothing listens or the peer closes early, ValueError on an odd answer.
    """
    body = struct.pack(">hhih", API_VERSIONS, 0, 7, 5) + b"probe"
    with socket.create_connection(split_address(bootstrap), timeout=timeout_s) as peer:
        peer.sendall(struct.pack(">i", len(body)) + body)
        (size,) = struct.unpack(">i", _receive(peer, 4))
        answer = _receive(peer, size)
    correlation_id, error_code, count = struct.unpack_from(">ihi", answer)
    if correlation_id != 7 or error_code != 0 or count <= 0:
        raise ValueError(f"ApiVersions answered {correlation_id=} {error_code=} {count=}")
    return int(count)


def wait_for_answer(bootstrap: str, *, timeout_s: float, interval_s: float = 0.05) -> None:
    """Asks until the broker answers; raises TimeoutError with the last reason."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            ask_api_versions(bootstrap, timeout_s=5)
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{bootstrap} does not answer: {error}") from error
        time.sleep(interval_s)


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on now. Only for peers that cannot take port 0 themselves."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _receive(peer: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        piece = peer.recv(size - len(received))
        if not piece:
            raise ConnectionError(f"closed after {len(received)} of {size} bytes")
        received += piece
    return bytes(received)
