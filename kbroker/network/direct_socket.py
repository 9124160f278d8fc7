"""A duplicate of a connection's socket, for what its transport can not do: sendfile.

uvloop has no sendfile and allows no watcher on the descriptor of a transport, hence the duplicate.
It is only written to while the transport has nothing left to write, so the order stands.
"""

import asyncio
import contextlib
import os
import socket
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kbroker.common.parts import Buffer

# Not MSG_MORE: a head in one segment with the file's pages shifts them all against the segments,
# which makes sending them a third dearer.
_FLAGS: Final = getattr(socket, "MSG_NOSIGNAL", 0)
_MOST_BUFFERS: Final = 1024  # IOV_MAX


class DirectSocket:
    """Sends at once what the socket takes at once; waits for it to take more."""

    __slots__ = ("_loop", "_socket", "_writable")

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._writable: asyncio.Future[None] | None = None

    def fileno(self) -> int:
        """Its descriptor, -1 when it is closed."""
        return self._socket.fileno()

    def send(self, buffers: "list[Buffer]") -> int:
        """Send buffers that a file range follows; how many bytes were taken. Raises OSError."""
        try:
            if len(buffers) == 1:
                return self._socket.send(buffers[0], _FLAGS)
            return self._socket.sendmsg(buffers[:_MOST_BUFFERS], (), _FLAGS)
        except (BlockingIOError, InterruptedError):
            return 0

    def send_file(self, descriptor: int, position: int, size: int) -> int:
        """Send a file range; how many bytes were taken. OSError; EOFError: the file is shorter."""
        try:
            if sys.platform == "win32":  # for the type checker: nobody comes here without sendfile
                raise NotImplementedError
            sent = os.sendfile(self._socket.fileno(), descriptor, position, size)
        except (BlockingIOError, InterruptedError):
            return 0
        if sent == 0:
            raise EOFError(f"a log slice of {size} bytes at {position} is shorter")
        return sent

    async def wait_writable(self) -> None:
        """Return when the socket takes something, or is closed."""
        descriptor = self._socket.fileno()
        if descriptor < 0:
            return
        writable = self._writable = self._loop.create_future()
        self._loop.add_writer(descriptor, self._on_writable)
        try:
            await writable
        finally:
            self._writable = None
            if self._socket.fileno() >= 0:
                self._loop.remove_writer(descriptor)

    def _on_writable(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def close(self) -> None:
        """Close the duplicate; who waits for it goes on."""
        if self._socket.fileno() < 0:
            return
        if self._writable is not None:
            with contextlib.suppress(OSError, ValueError):
                self._loop.remove_writer(self._socket.fileno())
            self._on_writable()
        self._socket.close()
