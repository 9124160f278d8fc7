"""The only source of randomness. Everything else is handed an ``Entropy``."""

import os
from typing import Protocol


class Entropy(Protocol):
    """Unpredictable in the product, repeatable from a seed in tests."""

    def uuid_bytes(self) -> bytes:
        """16 bytes of a version 4 UUID."""
        ...

    def uuid_text(self) -> str:
        """A version 4 UUID as 8-4-4-4-12 hexadecimal digits."""
        ...

    def randint(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        ...

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


def _as_version_4(random_bytes: bytes) -> bytes:
    """RFC 9562, 5.4: the version and the variant over 6 of 128 random bits.

    The standard library's uuid would do it, but costs a start 3 ms.
    """
    data = bytearray(random_bytes)
    data[6] = data[6] & 0x0F | 0x40
    data[8] = data[8] & 0x3F | 0x80
    return bytes(data)


def _as_text(uuid: bytes) -> str:
    digits = uuid.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


class SystemEntropy:
    """The operating system's randomness."""

    __slots__ = ()

    def uuid_bytes(self) -> bytes:
        return _as_version_4(os.urandom(16))

    def uuid_text(self) -> str:
        return _as_text(self.uuid_bytes())

    def randint(self, low: int, high: int) -> int:
        return low + int.from_bytes(os.urandom(8), "big") % (high - low + 1)

    def random(self) -> float:
        return (int.from_bytes(os.urandom(7), "big") >> 3) / (1 << 53)


class SeededEntropy:
    """The same sequence for the same seed."""

    __slots__ = ("_random",)

    def __init__(self, seed: int) -> None:
        import random  # 1 ms that a start does not need

        self._random = random.Random(seed)

    def uuid_bytes(self) -> bytes:
        return _as_version_4(self._random.getrandbits(128).to_bytes(16, "big"))

    def uuid_text(self) -> str:
        return _as_text(self.uuid_bytes())

    def randint(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def random(self) -> float:
        return self._random.random()
