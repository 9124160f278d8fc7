"""Times as the commands take them."""

from kbroker.cli.cluster import parse_moment


def test_a_moment_is_never_before_the_first_one() -> None:
    assert parse_moment("1970-01-01T00:00:01Z") == 1000
    assert parse_moment("1950-01-01T00:00:00Z") == 0
