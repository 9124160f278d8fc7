"""Times as the commands take them."""

import pytest

from kbroker.cli.cluster import parse_duration, parse_moment

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
    ],
)
def test_durations(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "P", "PT", "P1DT", "1h", "P1W", "P1M", "P1Y", "PT1.5H", "-PT1H", "PT1H ", "PT\u0661H"],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


def test_a_moment_is_never_before_the_first_one() -> None:
    assert parse_moment("1970-01-01T00:00:01Z") == 1000
    assert parse_moment("1950-01-01T00:00:00Z") == 0
