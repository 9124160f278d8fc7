"""What a server allows its peers to cost: named limits, one budget of bytes, plain counters."""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from kbroker.common.named_tuple import NamedTuple

_UNLIMITED = 2_147_483_647
_NO_OVERRIDES: Final[Mapping[str, int]] = MappingProxyType({})


class NetworkLimits(NamedTuple):
    """Every bound of the network layer. Sizes in bytes, times in seconds, rates in bytes/second."""

    max_frame_bytes: int = 104_857_600
    """Largest request (socket.request.max.bytes)."""

    queued_bytes: int = 268_435_456
    """Requests that wait or are still arriving, all connections together.

    Past it the connection that needs more is no longer read from. Small frames always pass, and one
    large frame at a time may exceed it, so that there is always progress.
    """

    queued_bytes_per_connection: int = 2_097_152
    """A connection is not read from while its unanswered requests are this large."""

    queued_frames_per_connection: int = 256
    """The same, in requests."""

    max_connections: int = _UNLIMITED
    """Past it no connection is accepted until one has closed (max.connections)."""

    max_connections_per_ip: int = _UNLIMITED
    """Past it a new connection of that address is closed at once (max.connections.per.ip)."""

    max_connections_per_ip_overrides: Mapping[str, int] = _NO_OVERRIDES
    """Address -> limit (max.connections.per.ip.overrides)."""

    spare_descriptors: int = 64
    """File descriptors that connections leave to others, at most a quarter of the process limit."""

    listen_backlog: int = 50
    """Connections the kernel holds before they are accepted (socket.listen.backlog.size)."""

    idle_close: float = 600.0
    """A connection is closed when nothing moved on it for so long (connections.max.idle.ms).

    Negative: never.
    """

    slow_frame_grace: float = 30.0
    """A frame that takes longer than this to arrive must keep up the rate below."""

    slow_frame_rate: int = 1024
    """A frame arriving more slowly closes its connection."""

    crowded_frame_grace: float = 5.0
    """The same for a large frame while others wait for ``queued_bytes`` to have room."""

    crowded_frame_rate: int = 262_144
    """The rate that goes with it."""

    unread_answer_grace: float = 60.0
    """A peer that leaves an answer unread longer than this must keep up the rate below."""

    unread_answer_rate: int = 1024
    """A peer that reads more slowly is cut off."""

    write_buffer_bytes: int = 262_144
    """Past so much unsent output no further request of the connection is begun."""

    output_chunk_bytes: int = 1_048_576
    """Log slices larger than this are read and sent piece by piece, as the peer takes them."""

    turn_frames: int = 32
    """Requests of one connection served before others have their turn."""

    turn_time: float = 0.002
    """Time after which others have their turn."""

    busy_poll: float = 0.0
    """While lone requests follow each other within this time, the loop looks for the next one
    without sleeping, so long after each answer; 0: never. For new servers only."""

    scratch_bytes: int = 131_072
    """The buffer all connections receive into, at least so large; large frames have their own."""

    pooled_bytes: int = 8_388_608
    """Large frame buffers kept for the next large frame."""

    use_sendfile: bool = False
    """Send log slices with sendfile where the connection is plaintext and the system has it."""

    def connections_for(self, host: str) -> int:
        """How many connections this address may have."""
        return self.max_connections_per_ip_overrides.get(host, self.max_connections_per_ip)


class NetworkCounters:
    """What happened so far; read freely, written by the network layer only."""

    __slots__ = (
        "accept_failures",
        "bad_frames",
        "bad_frames_by_reason",
        "bytes_in",
        "bytes_out",
        "connections",
        "connections_accepted",
        "connections_closed_by_reason",
        "connections_refused",
        "dispatch_failures",
        "longest_turn_ms",
        "requests",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.connections_accepted = 0
        self.connections_refused = 0
        self.connections_closed_by_reason: Counter[str] = Counter()
        self.accept_failures = 0
        self.requests = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.bad_frames = 0
        self.bad_frames_by_reason: Counter[str] = Counter()
        self.dispatch_failures = 0
        self.longest_turn_ms = 0.0


class BudgetOwner(Protocol):
    """Who asks a ``ByteBudget`` for room."""

    def on_room(self) -> None:
        """Room may have come: ask again."""
        ...


class ByteBudget:
    """Bytes held by requests of all connections of a server.

    ``hold`` always succeeds and is for what has arrived anyway. ``try_hold`` is for growth: it is
    refused when the budget is spent, and whoever was refused is told when room comes, in order. One
    owner at a time may exceed the budget, so that frames which together fill it can not wait for
    one another for ever.
    """

    __slots__ = ("_overdrawn_by", "_waiting", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._overdrawn_by: BudgetOwner | None = None
        self._waiting: deque[BudgetOwner] = deque()

    @property
    def is_crowded(self) -> bool:
        """Somebody waits for room."""
        return bool(self._waiting)

    def hold(self, size: int) -> None:
        """Count bytes that are there already."""
        self.used += size

    def try_hold(self, owner: BudgetOwner, size: int) -> bool:
        """Count bytes about to be allocated; False: wait for ``owner.on_room()``."""
        if self._overdrawn_by is not owner and (self._waiting or self.used + size > self.limit):
            if self._overdrawn_by is not None:  # so it is whenever somebody waits
                if owner not in self._waiting:
                    self._waiting.append(owner)
                return False
            self._overdrawn_by = owner
        self.used += size
        return True

    def release(self, size: int) -> None:
        """Bytes are gone; those who wait may ask again."""
        self.used -= size
        if self._waiting:
            self._wake()

    def forget(self, owner: BudgetOwner) -> None:
        """The owner's large frame is done, or the owner is gone."""
        if self._overdrawn_by is owner:
            self._overdrawn_by = None
        if self._waiting:
            if owner in self._waiting:
                self._waiting.remove(owner)
            self._wake()

    def _wake(self) -> None:
        """Let those who wait ask again, the oldest first, until one is refused again."""
        waiting, self._waiting = self._waiting, deque()
        while waiting:
            waiting.popleft().on_room()
            if self._waiting:  # refused again: it stays the first
                self._waiting.extend(waiting)
                return


_BUFFER_STEP = 65_536
POOLED_FROM = _BUFFER_STEP
"""Frames of this size or more live in buffers of the pool."""


class BufferPool:
    """Buffers of large frames, kept for the next large frame: fresh ones cost page faults.

    A buffer comes back when its frame is done, and is taken back only when nobody holds a view of
    it: a bytearray with views refuses to be resized, which is how that is known for certain. A
    transport sees the buffer until its read event is over, which may be later than the answer: who
    is still seen is asked once more when the next buffer is wanted.
    """

    __slots__ = ("_buffers", "_is_in_use", "_kept", "_seen", "_seen_bytes", "limit", "on_reuse")

    def __init__(self, limit: int, on_reuse: Callable[[bytearray], object] | None = None) -> None:
        self.limit = limit
        self.on_reuse = on_reuse
        self._buffers: dict[int, list[bytearray]] = {}
        self._kept = 0
        self._seen: list[bytearray] = []  # given while somebody had a view
        self._seen_bytes = 0
        self._is_in_use = False

    def take(self, size: int) -> bytearray:
        """A buffer of at least ``size`` bytes with arbitrary contents."""
        self._is_in_use = True
        if self._seen:
            seen, self._seen = self._seen, []
            self._seen_bytes = 0
            for buffer in seen:
                self._keep(buffer)
        capacity = -(-size // _BUFFER_STEP) * _BUFFER_STEP
        buffers = self._buffers.get(capacity)
        if buffers:
            self._kept -= capacity
            return buffers.pop()
        return bytearray(capacity)

    def give(self, buffer: bytearray) -> bool:
        """Keep a buffer for later; False when it is not from here, too large or still in use."""
        capacity = len(buffer)
        if capacity % _BUFFER_STEP or not capacity or capacity > self.limit:
            return False
        if self._keep(buffer):
            return True
        if self._seen_bytes + capacity <= self.limit:
            self._seen.append(buffer)
            self._seen_bytes += capacity
        return False

    def _keep(self, buffer: bytearray) -> bool:
        capacity = len(buffer)
        try:
            buffer.pop()
        except BufferError:
            return False
        buffer.append(0)
        if self._kept + capacity > self.limit:  # sizes that nobody asks for any more
            self._buffers.clear()
            self._kept = 0
        if self.on_reuse is not None:
            self.on_reuse(buffer)
        self._buffers.setdefault(capacity, []).append(buffer)
        self._kept += capacity
        return True

    def forget_unused(self) -> None:
        """Give the memory back when nothing was taken since the last call."""
        if not self._is_in_use:
            self._buffers.clear()
            self._seen.clear()
            self._kept = self._seen_bytes = 0
        self._is_in_use = False
