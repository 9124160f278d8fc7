"""Raw connection to a broker: bytes in, frames out; a close is an outcome, not an accident."""

import contextlib
import socket
import struct
import time

from tests.wire import codec


class Closed(Exception):
    pass


class Silent(Exception):
    """Nothing came within the time allowed."""


class Conn:
    def __init__(self, host, port, client="diff", timeout=5.0):
        self.client, self.timeout, self.corr = client, timeout, 0
        self.sock = socket.create_connection((host, port), timeout=5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buf = b""
        self.dead = False
        self.pending = []

    def send_bytes(self, b):
        try:
            self.sock.settimeout(5)
            self.sock.sendall(b)
        except OSError:
            self.dead = True
            raise Closed from None

    def send_frame(self, payload):
        self.send_bytes(struct.pack(">i", len(payload)) + payload)

    def send(self, name, v, body=None, client=Ellipsis, tags=None, corr=None):
        self.corr += 1
        c = self.corr if corr is None else corr
        self.send_frame(
            codec.request(name, v, body, c, self.client if client is Ellipsis else client, tags)
        )
        self.pending.append((name, v, c))
        return c

    def _fill(self, n, deadline):
        while len(self.buf) < n:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Silent from None
            self.sock.settimeout(left)
            try:
                x = self.sock.recv(1 << 20)
            except TimeoutError:
                raise Silent from None
            except OSError:
                x = b""
            if not x:
                self.dead = True
                raise Closed from None
            self.buf += x

    def recv_frame(self, timeout=None):
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        self._fill(4, deadline)
        n = struct.unpack(">i", self.buf[:4])[0]
        if n < 0 or n > 1 << 28:
            raise codec.DecodeError(f"frame size {n}")
        self._fill(4 + n, deadline)
        f, self.buf = self.buf[4 : 4 + n], self.buf[4 + n :]
        return f

    def recv(self, timeout=None):
        """Next response, decoded as the oldest pending request's.

        -> (name, version, is the correlation id right, header tags, dict, bytes left)
        """
        f = self.recv_frame(timeout)
        name, v, c = self.pending.pop(0)
        corr, tags, d, left = codec.response(name, v, f)
        return name, v, corr == c, tags, d, left

    def close(self):
        self.dead = True
        with contextlib.suppress(OSError):
            self.sock.close()
