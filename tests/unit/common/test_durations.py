"""Durations as commands and settings take them."""

import pytest

from kbroker.common.durations import parse_duration

_HOUR = 3_600_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PT0S", 0),
        ("PT1H30M", 90 * 60_000),
        ("P2D", 48 * _HOUR),
        ("p1dt1h", 25 * _HOUR),
        ("PT10.25S", 10_250),
        ("PT0,5S", 500),
        ("PT100M", 100 * 60_000),
        ("P1DT2H3M4.005S", 26 * _HOUR + 184_005),
        ("PT1.S", 1000),
        ("PT0.999999999S", 999),
        (f"PT{2**63 - 1}S", 1000 * (2**63 - 1)),
    ],
)
def test_durations(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "PT0.0000000001S",
        f"PT{2**63}S",
        "",
        "P",
        "PT",
        "P1DT",
        "1h",
        "P1W",
        "P1M",
        "P1Y",
        "PT1.5H",
        "-PT1H",
        "PT1H ",
        "PT\u0661H",
    ],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)
