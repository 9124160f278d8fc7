"""The only source of randomness. Everything else is handed an ``Entropy``."""

import os
import random
import uuid
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


class SystemEntropy:
    """The operating system's randomness."""

    __slots__ = ()

    def uuid_bytes(self) -> bytes:
        return uuid.uuid4().bytes

    def uuid_text(self) -> str:
        return str(uuid.uuid4())

    def randint(self, low: int, high: int) -> int:
        return low + int.from_bytes(os.urandom(8), "big") % (high - low + 1)

    def random(self) -> float:
        return (int.from_bytes(os.urandom(7), "big") >> 3) / (1 << 53)


class SeededEntropy:
    """The same sequence for the same seed."""

    __slots__ = ("_random",)

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def uuid_bytes(self) -> bytes:
        return uuid.UUID(int=self._random.getrandbits(128), version=4).bytes

    def uuid_text(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def randint(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def random(self) -> float:
        return self._random.random()
