"""Bytes of a connection cut into frames, in memory that belongs to them.

A frame is an int32 size, big-endian, and that many bytes. What arrives goes into a scratch that all
connections of a server share; whole small frames are copied out of it together, a large one gets a
buffer of its own, into which the rest of it is received directly. Bytes that make no frame yet are
kept apart, so the scratch holds nothing between two events.

An announced size costs nothing: the buffer of a large frame is at most 17 times as large as what
has arrived of it, some more than 1 MiB at first, then doubled, and counts against the server's
budget.
"""

from struct import Struct
from typing import TYPE_CHECKING

from kbroker.common.parts import Buffer

if TYPE_CHECKING:
    from kbroker.network.limits import BudgetOwner, BufferPool, ByteBudget

_SIZE = Struct(">i")
_OWN_BUFFER_FROM = 8_192
_SMALLEST_ALONE = 4
_FIRST_BUFFER = 1_048_576 + 65_536  # clients send batches of 1 MiB, with headers around them
_FIRST_PART = 65_536
_AHEAD = 16
_AT_LEAST = 65_536
SMALLEST_SCRATCH = 2 * _FIRST_PART

BAD_NEGATIVE_SIZE = "negative size"
BAD_TOO_LARGE = "larger than socket.request.max.bytes"


class FrameCutter:
    """The receiving half of a connection: where bytes go, and the frames that came of them.

    ``queued_bytes`` and what is kept of an unfinished frame are counted in the budget.
    """

    __slots__ = (
        "_budget",
        "_buffer",
        "_chunk",
        "_chunks",
        "_filled",
        "_held",
        "_leftover",
        "_owner",
        "_pool",
        "_position",
        "_scratch",
        "_single",
        "_total",
        "_view",
        "bad",
        "first_bytes",
        "frames_cut",
        "is_blocked",
        "max_frame_bytes",
        "queued_bytes",
        "queued_frames",
    )

    def __init__(
        self,
        *,
        scratch: memoryview,
        max_frame_bytes: int,
        budget: "ByteBudget",
        pool: "BufferPool",
        owner: "BudgetOwner",
    ) -> None:
        if len(scratch) < SMALLEST_SCRATCH:
            raise ValueError(f"a scratch of {len(scratch)} bytes, {SMALLEST_SCRATCH} needed")
        self._scratch = scratch
        self._budget = budget
        self._pool = pool
        self._owner = owner
        self.max_frame_bytes = max_frame_bytes
        self.frames_cut = 0
        self.queued_frames = 0
        """Whole frames that ``next_frame`` has not given yet."""
        self.queued_bytes = 0
        """Sizes of frames that were cut and not yet reported by ``finished``."""
        self.bad: str | None = None
        """Why no more frames can be cut; None while they can."""
        self.first_bytes = b""
        """The bytes that were read as a bad size, for a hint in the log."""
        self.is_blocked = False
        """A large frame waits for the budget: read nothing until ``grow`` has returned True."""
        self._single: memoryview | None = None  # a frame that came alone, before all in _chunks
        self._chunks: list[memoryview] = []  # each holds whole frames with their sizes
        self._chunk: memoryview | None = None  # the one being given out, from _position on
        self._position = 0
        self._leftover = b""  # the beginning of a frame that has no buffer yet
        self._buffer: bytearray | None = None  # of a large frame that is arriving; _view limits it
        self._view: memoryview | None = None
        self._total = 0  # of that frame, its size field included
        self._filled = 0
        self._held = 0  # what the budget has counted for _leftover or _view

    @property
    def partial(self) -> int:
        """Bytes of a frame that has begun and not ended, its size field included."""
        return self._filled if self._view is not None else len(self._leftover)

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Where the next bytes are to be received; call ``received`` before anything else.

        ``sizehint`` is asyncio's, who may call this as a protocol's method; it says nothing.
        """
        if self._view is not None:
            if self._filled == len(self._view):  # blocked, yet the transport reads: make room
                capacity = min(self._total, self._filled + _AT_LEAST)
                self._budget.hold(capacity - self._held)
                self._resize(capacity)
            return self._view[self._filled :]
        if not self._leftover:
            return self._scratch
        leftover = len(self._leftover)
        self._scratch[:leftover] = self._leftover
        return self._scratch[leftover:]

    def received(self, size: int) -> None:
        """``size`` bytes have been put where ``get_buffer`` said."""
        if self.bad is not None:
            return
        view = self._view
        if view is None:
            self._cut(size + len(self._leftover))
            return
        self._filled += size
        if self._filled == self._total:
            self._buffer = self._view = None
            self._held = self._filled = 0
            self._chunks.append(view)
            self.frames_cut += 1
            self.queued_frames += 1
            self.queued_bytes += len(view)
        elif self._filled == len(view):
            self.grow()

    def feed(self, data: Buffer) -> None:
        """The same for bytes that arrived elsewhere."""
        view = memoryview(data)
        position = 0
        while position < len(view) and self.bad is None:
            target = self.get_buffer()
            count = min(len(target), len(view) - position)
            target[:count] = view[position : position + count]
            self.received(count)
            position += count

    def take_alone(self, size: int) -> memoryview | None:
        """The small frame that the ``size`` bytes in the scratch are, when nothing else is here.

        It is neither queued nor counted: ``hold`` does that when it has to wait. None: nothing has
        changed, ``received`` is to be called.
        """
        if (
            self.queued_frames
            or self._leftover
            or self._view is not None
            or self.bad is not None
            or not _SMALLEST_ALONE <= size <= _OWN_BUFFER_FROM
        ):
            return None
        (length,) = _SIZE.unpack_from(self._scratch)
        if length + 4 != size or length > self.max_frame_bytes:
            return None
        self.frames_cut += 1
        return memoryview(bytearray(self._scratch[4:size]))

    def hold(self, size: int) -> None:
        """A frame that was taken alone, of ``size`` bytes with its size field, waits after all."""
        self.queued_bytes += size
        self._budget.hold(size)

    def next_frame(self) -> memoryview:
        """The oldest whole frame, without its size; only while ``queued_frames`` is not 0."""
        single = self._single
        if single is not None:
            self._single = None
            self.queued_frames -= 1
            return single
        chunk = self._chunk
        if chunk is None:
            chunk = self._chunks.pop(0)
            self._position = 0
        position = self._position
        (size,) = _SIZE.unpack_from(chunk, position)
        stop = position + 4 + size
        if stop == len(chunk):
            self._chunk = None
        else:
            self._chunk = chunk
            self._position = stop
        self.queued_frames -= 1
        return chunk[position + 4 : stop]

    def finished(self, size: int) -> None:
        """Frames of ``size`` bytes, size fields included, are done with."""
        self.queued_bytes -= size
        self._budget.release(size)

    def finished_large(self, buffer: object, size: int) -> None:
        """The same for a large one; ``buffer``, which held it, may be used again."""
        self.finished(size)
        self._budget.forget(self._owner)
        if isinstance(buffer, bytearray):
            self._pool.give(buffer)

    def grow(self) -> bool:
        """Make room for more of the large frame; False: not now, the budget is spent."""
        if self._view is not None and self._filled == len(self._view):
            capacity = min(self._total, max(_FIRST_BUFFER, 2 * self._filled))
            if not self._budget.try_hold(self._owner, capacity - self._held):
                self.is_blocked = True
                return False
            self._resize(capacity)
        self.is_blocked = False
        return True

    def close(self, *, in_progress: int = 0) -> None:
        """Forget what has arrived and has not been taken, and take nothing more.

        ``in_progress`` bytes of frames, sizes included, are still to be reported as finished.
        """
        if self.bad is None:
            self.bad = "closed"
        held, self._held = self._held, 0
        self._leftover = b""
        self._buffer = self._view = self._chunk = self._single = None
        self._chunks.clear()
        self.queued_frames = 0
        self.is_blocked = False
        self._budget.release(held + self.queued_bytes - in_progress)
        self.queued_bytes = in_progress
        self._budget.forget(self._owner)

    def _cut(self, end: int) -> None:
        """Cut the first ``end`` bytes of the scratch."""
        scratch = self._scratch
        unpack = _SIZE.unpack_from
        limit = self.max_frame_bytes
        position = count = size = 0
        if end >= 4 and not self.queued_frames:  # mostly it is one whole frame
            (size,) = unpack(scratch)
            if 4 + size == end and size <= limit:
                self._single = memoryview(bytearray(scratch[4:end]))
                self.frames_cut += 1
                self.queued_frames = 1
                self.queued_bytes += end
                self._budget.used += end - self._held
                self._held = 0
                self._leftover = b""
                return
        while end - position >= 4:
            (size,) = unpack(scratch, position)
            if not 0 <= size <= limit:
                self._on_bad(size, position, end)
                end = position
                break
            stop = position + 4 + size
            if stop > end:
                break
            count += 1
            position = stop
        if count:
            self._chunks.append(memoryview(bytearray(scratch[:position])))
            self.frames_cut += count
            self.queued_frames += count
            self.queued_bytes += position
        rest = end - position
        self._budget.used += position + rest - self._held  # the old rest is in these
        self._held = rest
        if not rest:
            self._leftover = b""
        elif size >= _OWN_BUFFER_FROM and rest > min(size // _AHEAD, _FIRST_PART):
            self._leftover = b""
            self._begin_large(size + 4, scratch[position:end])
        else:
            self._leftover = bytes(scratch[position:end])

    def _begin_large(self, total: int, data: memoryview) -> None:
        """Give the frame a buffer and put its first bytes, counted already, there."""
        capacity = min(total, _FIRST_BUFFER)
        if self._budget.try_hold(self._owner, capacity - len(data)):
            self._held = capacity
        else:
            self.is_blocked = True
            capacity = len(data)
        self._buffer = self._pool.take(capacity)
        self._view = memoryview(self._buffer)[:capacity]
        self._view[: len(data)] = data
        self._total = total
        self._filled = len(data)

    def _resize(self, capacity: int) -> None:
        """Move the large frame to a buffer of ``capacity`` bytes, which are counted already."""
        old, old_view = self._buffer, self._view
        self._buffer = self._pool.take(capacity)
        view = memoryview(self._buffer)[:capacity]
        if old_view is not None:
            view[: self._filled] = old_view[: self._filled]
        self._view = view
        self._held = capacity
        del old_view
        if old is not None:
            self._pool.give(old)

    def _on_bad(self, size: int, position: int, end: int) -> None:
        self.bad = BAD_NEGATIVE_SIZE if size < 0 else BAD_TOO_LARGE
        self.first_bytes = bytes(self._scratch[position : min(end, position + 8)])


def looks_like(first_bytes: bytes) -> str | None:
    """What a peer seems to speak that sends such bytes instead of a size; None when unclear."""
    if len(first_bytes) >= 2 and first_bytes[0] == 0x16 and first_bytes[1] == 3:
        return "TLS"
    if first_bytes.startswith((b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"CONN", b"PRI ")):
        return "HTTP"
    if first_bytes.startswith((b"\r\n\r\n", b"PROX")):
        return "the PROXY protocol"
    return None
