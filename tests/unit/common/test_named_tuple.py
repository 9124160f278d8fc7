"""Named tuples that are made without compiling are what typing's are."""

import copy
import pickle
import typing
from typing import Any

import pytest

from kbroker.common import named_tuple


class Quick(named_tuple.NamedTuple):
    """Three fields, the last with a default."""

    key: bytes
    value: "int | None"
    version: int = 7

    def doubled(self) -> int:
        return 2 * self.version


class Usual(typing.NamedTuple):
    key: bytes
    value: "int | None"
    version: int = 7

    def doubled(self) -> int:
        return 2 * self.version


class Nothing(named_tuple.NamedTuple):
    pass


class One(named_tuple.NamedTuple):
    field: int


class Eight(named_tuple.NamedTuple):
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int = 7
    h: int = 8


class Nine(named_tuple.NamedTuple):
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int
    h: int = 8
    i: int = 9


ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((b"k", 1), {}),
    ((b"k", 1, 2), {}),
    ((b"k",), {"value": None}),
    ((), {"version": 3, "key": b"", "value": 5}),
]


@pytest.mark.parametrize(("positional", "named"), ARGUMENTS)
def test_it_is_made_and_used_like_the_usual_one(
    positional: tuple[Any, ...], named: dict[str, Any]
) -> None:
    quick, usual = Quick(*positional, **named), Usual(*positional, **named)
    assert tuple(quick) == tuple(usual)
    assert quick == tuple(usual)
    assert hash(quick) == hash(usual)
    assert repr(quick) == repr(usual).replace("Usual", "Quick")
    assert (quick.key, quick.value, quick.version) == (usual.key, usual.value, usual.version)
    assert quick.doubled() == usual.doubled()
    assert quick._asdict() == usual._asdict()
    assert type(quick._replace(version=1)) is Quick
    assert quick._replace(version=1) == usual._replace(version=1)
    assert Quick._make(usual) == quick
    assert type(quick[1:]) is tuple


def test_what_the_class_tells() -> None:
    assert Quick._fields == Usual._fields == Quick.__match_args__
    assert Quick._field_defaults == Usual._field_defaults
    assert Quick.__doc__ == "Three fields, the last with a default."
    assert issubclass(Quick, tuple)
    assert not hasattr(Quick(b"", 0), "__dict__")


@pytest.mark.parametrize(
    ("positional", "named"),
    [((), {}), ((b"k",), {}), ((b"k", 1, 2, 3), {}), ((b"k", 1), {"key": b""}), ((1, 2), {"x": 1})],
)
def test_wrong_arguments_are_refused(positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    for kind in (Quick, Usual):
        with pytest.raises(TypeError):
            kind(*positional, **named)


def test_copies_are_of_the_same_class() -> None:
    for value in (Quick(b"k", None), Nothing(), Nine(1, 2, 3, 4, 5, 6, 7)):
        for made in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
            assert made == value
            assert type(made) is type(value)


def test_it_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Quick(b"k", 1).key = b"other"  # type: ignore[misc]
    with pytest.raises((TypeError, ValueError)):
        Quick(b"k", 1)._replace(nothing=1)  # type: ignore[call-arg]


def test_any_number_of_fields() -> None:
    assert Nothing() == ()
    assert One(1) == One(field=1) == (1,)
    assert Eight(1, 2, 3, 4, 5, f=6) == (1, 2, 3, 4, 5, 6, 7, 8)
    assert Nine(1, 2, 3, 4, 5, 6, 7) == (*range(1, 10),)
    assert Nine(1, 2, 3, 4, 5, f=6, i=1, g=7) == (1, 2, 3, 4, 5, 6, 7, 8, 1)
    for wrong in ({"j": 1}, {"a": 2}):
        with pytest.raises(TypeError):
            Nine(1, 2, 3, 4, 5, 6, 7, **wrong)
    with pytest.raises(TypeError):
        Nine(1, 2, 3, 4, 5, 6)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Nine(*range(10))


def test_matching_by_position() -> None:
    match Quick(b"k", 1):
        case Quick(key, value, version):
            assert (key, value, version) == (b"k", 1, 7)
