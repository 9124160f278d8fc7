"""``NamedTuple`` for the modules that every start imports.

typing's writes the source of a function for each class and compiles it, which takes a tenth of a
millisecond: a twentieth of a broker's start, in all. Here the function's code is copied from one
that is there, with the names of the fields. To a type checker both are the same; classes of more
than eight fields are slower to instantiate than typing's.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING or sys.version_info >= (3, 14):  # there annotations come by a call
    from typing import NamedTuple as NamedTuple
else:
    from collections import _tuplegetter
    from types import FunctionType

    _new = tuple.__new__

    _PATTERNS = (
        lambda _cls: _new(_cls, ()),
        lambda _cls, a: _new(_cls, (a,)),
        lambda _cls, a, b: _new(_cls, (a, b)),
        lambda _cls, a, b, c: _new(_cls, (a, b, c)),
        lambda _cls, a, b, c, d: _new(_cls, (a, b, c, d)),
        lambda _cls, a, b, c, d, e: _new(_cls, (a, b, c, d, e)),
        lambda _cls, a, b, c, d, e, f: _new(_cls, (a, b, c, d, e, f)),
        lambda _cls, a, b, c, d, e, f, g: _new(_cls, (a, b, c, d, e, f, g)),
        lambda _cls, a, b, c, d, e, f, g, h: _new(_cls, (a, b, c, d, e, f, g, h)),
    )
    _GLOBALS = {"_new": _new, "__builtins__": {}}

    def _new_of_many(_cls, *values, **named):
        missing = object()
        given = [
            *values,
            *(
                named.pop(field, _cls._field_defaults.get(field, missing))
                for field in _cls._fields[len(values) :]
            ),
        ]
        if named or missing in given or len(given) != len(_cls._fields):
            raise TypeError(f"{_cls.__name__} takes {', '.join(_cls._fields)}")
        return _new(_cls, given)

    class _NamedTupleType(type):
        def __new__(mcs, name, bases, namespace):
            if not bases:
                return type.__new__(mcs, name, (tuple,), namespace)
            fields = tuple(namespace.get("__annotations__", ()))
            defaults = {field: namespace[field] for field in fields if field in namespace}
            if tuple(defaults) != fields[len(fields) - len(defaults) :]:
                raise TypeError(f"{name}: a field without a default follows one that has one")
            for index, field in enumerate(fields):
                if field.startswith("_"):
                    raise ValueError(f"{name}: fields cannot start with an underscore: {field!r}")
                namespace[field] = _tuplegetter(index, f"Alias for field number {index}")
            if len(fields) < len(_PATTERNS):
                code = _PATTERNS[len(fields)].__code__
                code = code.replace(co_varnames=("_cls", *fields), co_name="__new__")
                made = FunctionType(code, _GLOBALS, "__new__", tuple(defaults.values()))
            else:
                made = _new_of_many
            namespace.update(
                __slots__=(),
                __match_args__=fields,
                __new__=made,
                _fields=fields,
                _field_defaults=defaults,
            )
            return type.__new__(mcs, name, bases, namespace)

    class NamedTuple(metaclass=_NamedTupleType):
        """What ``typing.NamedTuple`` is to those who make classes of it and use them."""

        __slots__ = ()

        @classmethod
        def _make(cls, values):
            made = _new(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
            return made

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **changes):
            made = self._make(map(changes.pop, self._fields, self))
            if changes:
                raise ValueError(f"Got unexpected field names: {list(changes)!r}")
            return made

        __replace__ = _replace  # copy.replace, from Python 3.13 on

        def __repr__(self):
            fields = zip(self._fields, self, strict=True)
            return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in fields)})"

        def __getnewargs__(self):
            return tuple(self)
