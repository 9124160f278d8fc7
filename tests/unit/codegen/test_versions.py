"""The algebra of version ranges, against brute force over small ranges."""

from itertools import product

import pytest

from codegen.versions import ALL, HIGHEST, NONE, Versions, VersionsError, condition, segments

SMALL = [Versions(low, high) for low, high in product(range(5), range(5)) if low <= high]


PAIRS = list(product(SMALL, SMALL))


def members(versions):
    return set(versions) if not versions.empty else set()


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("none", NONE),
        ("3", Versions(3, 3)),
        ("3+", Versions(3, HIGHEST)),
        ("0-4", Versions(0, 4)),
        (" 2-2 ", Versions(2, 2)),
    ],
)
def test_parse(text, versions):
    assert Versions.parse(text) == versions
    assert Versions.parse(str(versions)) == versions


@pytest.mark.parametrize("text", ["", "x", "3-1", "-1", "1-", "1-2-3", "++"])
def test_parse_nonsense(text):
    with pytest.raises(VersionsError):
        Versions.parse(text)


def test_parse_nothing():
    assert Versions.parse(None, ALL) == ALL
    with pytest.raises(VersionsError):
        Versions.parse(None)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_set_operations(one, other):
    assert members(one & other) == members(one) & members(other)
    assert members(one) | members(other) <= members(one.hull(other))
    assert one.covers(other) == (members(other) <= members(one))
    left = members(one) - members(other)
    if left and max(left) - min(left) + 1 != len(left):
        with pytest.raises(VersionsError):
            one - other
    else:
        assert members(one - other) == left


def test_nothing_is_covered_and_widens_nothing():
    assert Versions(3, 4).covers(NONE)
    assert NONE.hull(Versions(3, 4)) == Versions(3, 4) == Versions(3, 4).hull(NONE)


@pytest.mark.parametrize(("wanted", "possible"), PAIRS)
def test_condition_holds_exactly_where_wanted(wanted, possible):
    common = members(wanted) & members(possible)
    if not common:
        with pytest.raises(VersionsError):
            condition(wanted, possible)
        return
    test = condition(wanted, possible)
    if test is None:
        assert common == members(possible)
        return
    assert common != members(possible)
    for version in possible:
        assert eval(test, {"version": version}) is (version in wanted)


@pytest.mark.parametrize(
    ("wanted", "possible", "test"),
    [
        (Versions(3, HIGHEST), Versions(0, 9), "version >= 3"),
        (Versions(0, 3), Versions(0, 9), "version <= 3"),
        (Versions(0, 3), Versions(2, 9), "version <= 3"),
        (Versions(2, 5), Versions(0, 9), "2 <= version <= 5"),
        (Versions(2, 5), Versions(2, 9), "version <= 5"),
        (Versions(4, 4), Versions(0, 9), "version == 4"),
        (Versions(0, HIGHEST), Versions(4, 9), None),
        (Versions(3, 12), Versions(4, 9), None),
    ],
)
def test_condition_is_one_sided_where_that_is_enough(wanted, possible, test):
    assert condition(wanted, possible) == test


def test_segments_are_cut_at_changes_only():
    assert segments(Versions(2, 9), lambda version: version >= 7) == [
        (Versions(7, 9), True),
        (Versions(2, 6), False),
    ]
    assert segments(Versions(2, 3), lambda version: "same") == [(Versions(2, 3), "same")]
    assert segments(NONE, lambda version: version) == []
