"""ISO 8601 durations as ``java.time.Duration`` reads them, and so Kafka's tools and settings do."""

import re

_DURATION = re.compile(
    r"P(?=.)(?:(?P<days>\d+)D)?"
    r"(?:T(?=.)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?"
    r"(?:(?P<seconds>\d+)(?:[.,](?P<fraction>\d{0,9}))?S)?)?",
    re.ASCII | re.IGNORECASE,
)
_MAX_SECONDS = 2**63 - 1


def parse_duration(text: str) -> int:
    """A duration of days, of 24 hours each, to seconds -> ms, rounded down. Raises ValueError.

    No years, months or weeks, and nothing negative.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"no duration: {text!r}")
    days, hours, minutes, seconds = (
        int(found[unit] or 0) for unit in ("days", "hours", "minutes", "seconds")
    )
    whole = seconds + 60 * (minutes + 60 * (hours + 24 * days))
    if whole > _MAX_SECONDS:
        raise ValueError(f"no duration: {text!r} is too long")
    return 1000 * whole + int((found["fraction"] or "").ljust(3, "0")[:3])
