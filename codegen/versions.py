"""Version-range algebra: what a schema's ``"3+"`` means, and which tests a reader must make.

A generated function knows at each point which versions are still possible. ``condition`` renders
only the part of a range that is not implied by that, and refuses a range that can never hold.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import TypeVar

HIGHEST = 32767  # versions travel as int16

Key = TypeVar("Key", bound=Hashable)


class VersionsError(ValueError):
    """A range that cannot be parsed, split or ever hold."""


@dataclass(frozen=True)
class Versions:
    """A contiguous range of versions, both ends included; empty when lowest > highest."""

    lowest: int
    highest: int

    @staticmethod
    def parse(text: str | None, default: Versions | None = None) -> Versions:
        """``"none"``, ``"3"``, ``"3+"`` or ``"3-7"``; ``default`` when there is no text."""
        if text is None:
            if default is None:
                raise VersionsError("no version range given")
            return default
        text = text.strip()
        if text == "none":
            return NONE
        try:
            if text.endswith("+"):
                return Versions(int(text[:-1]), HIGHEST)
            lowest, dash, highest = text.partition("-")
            versions = Versions(int(lowest), int(highest) if dash else int(lowest))
        except ValueError as error:
            raise VersionsError(f"not a version range: {text!r}") from error
        if versions.empty or versions.lowest < 0:
            raise VersionsError(f"not a version range: {text!r}")
        return versions

    @property
    def empty(self) -> bool:
        return self.lowest > self.highest

    def __contains__(self, version: int) -> bool:
        return self.lowest <= version <= self.highest

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.lowest, self.highest + 1))

    def __and__(self, other: Versions) -> Versions:
        both = Versions(max(self.lowest, other.lowest), min(self.highest, other.highest))
        return NONE if both.empty else both

    def __sub__(self, other: Versions) -> Versions:
        """What is left without ``other``; VersionsError when that is two ranges."""
        common = self & other
        if common.empty:
            return self
        if common == self:
            return NONE
        if common.lowest == self.lowest:
            return Versions(common.highest + 1, self.highest)
        if common.highest == self.highest:
            return Versions(self.lowest, common.lowest - 1)
        raise VersionsError(f"{self} without {other} is not one range")

    def hull(self, other: Versions) -> Versions:
        """The smallest range that holds both."""
        if self.empty:
            return other
        if other.empty:
            return self
        return Versions(min(self.lowest, other.lowest), max(self.highest, other.highest))

    def covers(self, other: Versions) -> bool:
        return other.empty or (self & other) == other

    def __str__(self) -> str:
        if self.empty:
            return "none"
        if self.lowest == self.highest:
            return str(self.lowest)
        if self.highest == HIGHEST:
            return f"{self.lowest}+"
        return f"{self.lowest}-{self.highest}"


NONE = Versions(1, 0)
ALL = Versions(0, HIGHEST)


def condition(wanted: Versions, possible: Versions) -> str | None:
    """The Python test for "version is in ``wanted``" where only ``possible`` can occur.

    None when the test is implied. VersionsError when it can never hold: a generator that asks for
    such a branch has misunderstood its schema.
    """
    common = wanted & possible
    if common.empty:
        raise VersionsError(f"versions {wanted} can never occur within {possible}")
    if common == possible:
        return None
    if common.lowest == common.highest:
        return f"version == {common.lowest}"
    if common.lowest == possible.lowest:
        return f"version <= {common.highest}"
    if common.highest == possible.highest:
        return f"version >= {common.lowest}"
    return f"{common.lowest} <= version <= {common.highest}"


def segments(possible: Versions, key: Callable[[int], Key]) -> list[tuple[Versions, Key]]:
    """Cut ``possible`` where ``key`` changes; newest segment first."""
    found: list[tuple[Versions, Key]] = []
    for version in possible:
        value = key(version)
        if found and found[-1][1] == value:
            found[-1] = (Versions(found[-1][0].lowest, version), value)
        else:
            found.append((Versions(version, version), value))
    return found[::-1]
