"""The newest offset of each key, for compaction, in bounded memory."""

from hashlib import blake2b

_DIGEST_SIZE = 16
BYTES_PER_KEY = 160
"""What an entry costs: dictionary slot, key of up to 16 bytes, offset."""


class OffsetMap:
    """Key to newest offset, of at most ``max_keys`` keys.

    Keys of 16 bytes and more are kept as a digest of 16 bytes, which no shorter key can equal.
    """

    __slots__ = ("_max_keys", "_offsets", "latest_offset")

    def __init__(self, max_keys: int) -> None:
        if max_keys < 1:
            raise ValueError("an offset map that takes no key makes no progress")
        self._max_keys = max_keys
        self._offsets: dict[bytes, int] = {}
        self.latest_offset = -1
        """The newest offset that was looked at, with a key or without."""

    def __len__(self) -> int:
        return len(self._offsets)

    def put(self, key: bytes, offset: int) -> bool:
        """Note the key; False when the map is full and does not know it."""
        short = _short(key)
        if short not in self._offsets and len(self._offsets) >= self._max_keys:
            return False
        self._offsets[short] = offset
        return True

    def get(self, key: bytes) -> int:
        """The newest offset of the key, -1 when it was not put."""
        return self._offsets.get(_short(key), -1)


def _short(key: bytes) -> bytes:
    if len(key) < _DIGEST_SIZE:
        return key
    return blake2b(key, digest_size=_DIGEST_SIZE).digest()
