"""From the text of an expression to an automaton (Thompson's construction)."""

from collections.abc import Callable
from typing import Final

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

EPSILON: Final = 0
CHARACTERS: Final = 1
BEGIN: Final = 2
END: Final = 3
BOUNDARY: Final = 4
NOT_BOUNDARY: Final = 5

MAX_REPEAT: Final = 1_000
MAX_STATES: Final = 20_000
"""An expression needs at most so many states: what repetitions of repetitions could grow to."""
MAX_DEPTH: Final = 100
"""Groups within groups."""

Test = Callable[[str], bool]
Edge = tuple[int, Test | None, int]
Fragment = tuple[int, int]
"""(first state, last state); the last has no edges yet."""


class Program:
    """An automaton: edges by state, where it begins and where it accepts."""

    __slots__ = ("accept", "edges", "start")

    def __init__(self) -> None:
        self.edges: list[list[Edge]] = []
        self.start = 0
        self.accept = 0

    def state(self) -> int:
        """A new state. KafkaError when there are too many."""
        if len(self.edges) >= MAX_STATES:
            raise _invalid("the expression is too large")
        self.edges.append([])
        return len(self.edges) - 1

    def edge(self, source: int, target: int, kind: int = EPSILON, test: Test | None = None) -> None:
        """A way from one state to another."""
        self.edges[source].append((kind, test, target))


def _invalid(text: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REGULAR_EXPRESSION, text)


def parse(pattern: str) -> Program:
    """The automaton of an expression. KafkaError INVALID_REGULAR_EXPRESSION."""
    parser = _Parser(pattern)
    fragment = parser.alternatives(0)
    if not parser.at_end:
        raise _invalid(f"unexpected ) in {pattern!r}")
    parser.program.start, parser.program.accept = fragment
    return parser.program


_CLASS_NAMES: Final = {
    "alnum": str.isalnum,
    "alpha": str.isalpha,
    "ascii": str.isascii,
    "blank": " \t".__contains__,
    "cntrl": lambda c: ord(c) < 32 or ord(c) == 127,
    "digit": "0123456789".__contains__,
    "graph": lambda c: "!" <= c <= "~",
    "lower": str.islower,
    "print": lambda c: " " <= c <= "~",
    "punct": lambda c: "!" <= c <= "~" and not c.isalnum(),
    "space": "\t\n\v\f\r ".__contains__,
    "upper": str.isupper,
    "word": lambda c: c == "_" or c.isalnum(),
    "xdigit": "0123456789abcdefABCDEF".__contains__,
}
_SHORT_CLASSES: Final = {"d": "digit", "s": "space", "w": "word"}
_CONTROLS: Final = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_FLAGS: Final = "imsU"


def _named(name: str) -> Test:
    test = _CLASS_NAMES[name]
    return lambda character: character.isascii() and bool(test(character))


def _not(test: Test) -> Test:
    return lambda character: not test(character)


class _Parser:
    """Recursive descent over the text; builds states as it goes."""

    def __init__(self, pattern: str) -> None:
        self.program = Program()
        self._text = pattern
        self._position = 0
        self._flags = frozenset("")

    @property
    def at_end(self) -> bool:
        return self._position >= len(self._text)

    def _peek(self, size: int = 1) -> str:
        return self._text[self._position : self._position + size]

    def _take(self, size: int = 1) -> str:
        taken = self._peek(size)
        if len(taken) < size:
            raise _invalid(f"{self._text!r} ends too early")
        self._position += size
        return taken

    def _accept(self, text: str) -> bool:
        if self._text.startswith(text, self._position):
            self._position += len(text)
            return True
        return False

    # -- structure

    def alternatives(self, depth: int) -> Fragment:
        """``a|b|c``, to the end of the text or of the group."""
        if depth > MAX_DEPTH:
            raise _invalid("groups are nested too deeply")
        first, last = self.program.state(), self.program.state()
        while True:
            begin, end = self._sequence(depth)
            self.program.edge(first, begin)
            self.program.edge(end, last)
            if not self._accept("|"):
                return first, last

    def _sequence(self, depth: int) -> Fragment:
        first = last = self.program.state()
        while not self.at_end and self._peek() not in ("|", ")"):
            if self._accept("\\Q"):
                literal, _, rest = self._text[self._position :].partition("\\E")
                self._position = len(self._text) - len(rest)
                for character in literal:
                    last = self._append(last, self._characters(self._literal(character)))
                continue
            begin = self._position
            fragment = self._atom(depth)
            if fragment is not None:
                last = self._append(last, self._repeated(fragment, begin, depth))
        return first, last

    def _append(self, last: int, fragment: Fragment) -> int:
        self.program.edge(last, fragment[0])
        return fragment[1]

    # -- repetition

    def _repeated(self, fragment: Fragment, begin: int, depth: int) -> Fragment:
        """The fragment with what follows it: ``* + ? {n,m}``, lazy or not: it is all one here."""
        end = self._position
        bounds = self._bounds()
        if bounds is None:
            return fragment
        self._accept("?")
        after = self._position
        if self._peek() in ("*", "+", "?") and not self.at_end:
            raise _invalid(f"a repetition of a repetition in {self._text!r}")
        least, most = bounds
        copies = [fragment]
        flags = self._flags
        for _ in range(1, max(least, most if most is not None else least)):
            self._position = begin
            copy = self._atom(depth)
            assert copy is not None
            assert self._position == end
            copies.append(copy)
        self._flags = flags
        self._position = after
        return self._chain(copies, least, most)

    def _bounds(self) -> tuple[int, int | None] | None:
        if self.at_end:
            return None
        if self._accept("*"):
            return 0, None
        if self._accept("+"):
            return 1, None
        if self._accept("?"):
            return 0, 1
        if self._peek() != "{":
            return None
        inside, closed, _ = self._text[self._position + 1 :].partition("}")
        low, comma, high = inside.partition(",")
        if not closed or not low.isdecimal() or not (high == "" or high.isdecimal()):
            return None  # a literal brace, as in RE2
        self._position += len(inside) + 2
        least = int(low[:6])
        most: int | None = least if not comma else (int(high[:6]) if high else None)
        if least > MAX_REPEAT or (most is not None and (most > MAX_REPEAT or most < least)):
            raise _invalid(f"an invalid repetition in {self._text!r}")
        return least, most

    def _chain(self, copies: list[Fragment], least: int, most: int | None) -> Fragment:
        program = self.program
        first, last = program.state(), program.state()
        if most == 0:
            program.edge(first, last)
            return first, last
        at = first
        for number, (begin, end) in enumerate(copies):
            program.edge(at, begin)
            if number >= least:
                program.edge(at, last)
            at = end
        if most is None:
            program.edge(at, copies[-1][0])
        if least <= len(copies):
            program.edge(at, last)
        return first, last

    # -- atoms

    def _atom(self, depth: int) -> Fragment | None:
        """One character, class, assertion or group; None for what only sets flags."""
        character = self._take()
        if character == "(":
            return self._group(depth)
        if character == "[":
            return self._characters(self._class())
        if character == ".":
            return self._characters(
                (lambda c: True) if "s" in self._flags else (lambda c: c != "\n")
            )
        if character == "^":
            return self._assertion(BEGIN)
        if character == "$":
            return self._assertion(END)
        if character == "\\":
            return self._escape()
        if character in "*+?":
            raise _invalid(f"nothing to repeat in {self._text!r}")
        return self._characters(self._literal(character))

    def _characters(self, test: Test) -> Fragment:
        first, last = self.program.state(), self.program.state()
        self.program.edge(first, last, CHARACTERS, test)
        return first, last

    def _assertion(self, kind: int) -> Fragment:
        first, last = self.program.state(), self.program.state()
        self.program.edge(first, last, kind)
        return first, last

    def _literal(self, character: str) -> Test:
        if "i" in self._flags:
            folded = character.lower()
            return lambda c: c.lower() == folded
        return character.__eq__

    def _group(self, depth: int) -> Fragment | None:
        outer = self._flags
        if self._accept("?"):
            if self._accept("P<") or self._accept("<"):
                name, closed, _ = self._text[self._position :].partition(">")
                if not closed or not name.isidentifier():
                    raise _invalid(f"an invalid group in {self._text!r}")
                self._position += len(name) + 1
            elif self._group_flags():
                return None
        fragment = self.alternatives(depth + 1)
        if not self._accept(")"):
            raise _invalid(f"missing ) in {self._text!r}")
        self._flags = outer
        return fragment

    def _group_flags(self) -> bool:
        """Flags of a group; True when they hold for the rest of the group around."""
        flags = set(self._flags)
        negative = False
        while True:
            character = self._take()
            if character in (":", ")"):
                self._flags = frozenset(flags)
                return character == ")"
            if character == "-" and not negative:
                negative = True
            elif character in _FLAGS:
                (flags.discard if negative else flags.add)(character)
            else:
                raise _invalid(f"an unsupported group in {self._text!r}")

    def _escape(self) -> Fragment:
        character = self._peek()
        if character in ("A", "z", "b", "B"):
            self._take()
            kinds = {"A": BEGIN, "z": END, "b": BOUNDARY, "B": NOT_BOUNDARY}
            return self._assertion(kinds[character])
        test = self._class_escape()
        if test is not None:
            return self._characters(test)
        return self._characters(self._literal(self._escaped_character()))

    def _class_escape(self) -> Test | None:
        character = self._peek()
        name = _SHORT_CLASSES.get(character.lower()) if character else None
        if name is None:
            return None
        self._take()
        return _named(name) if character.islower() else _not(_named(name))

    def _escaped_character(self) -> str:
        character = self._take()
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character == "x":
            return self._hexadecimal()
        if character == "0":
            digits = ""
            while len(digits) < 2 and self._peek() and self._peek() in "01234567":
                digits += self._take()
            return chr(int(digits or "0", 8))
        if character.isalnum():
            raise _invalid(f"an invalid escape \\{character} in {self._text!r}")
        return character

    def _hexadecimal(self) -> str:
        if self._accept("{"):
            digits, closed, _ = self._text[self._position :].partition("}")
            self._position += len(digits) + 1
            if not closed:
                raise _invalid(f"an invalid escape in {self._text!r}")
        else:
            digits = self._take(2)
        try:
            return chr(int(digits, 16))
        except (ValueError, OverflowError):
            raise _invalid(f"an invalid escape in {self._text!r}") from None

    # -- classes

    def _class(self) -> Test:
        negated = self._accept("^")
        tests: list[Test] = []
        first = True
        while first or self._peek() != "]":
            first = False
            tests.append(self._class_item())
        self._take()
        folds = "i" in self._flags

        def test(character: str) -> bool:
            found = any(one(character) for one in tests)
            if not found and folds:
                swapped = character.swapcase()
                found = any(one(swapped) for one in tests)
            return found != negated

        return test

    def _class_item(self) -> Test:
        if self._peek(2) == "[:":
            name, closed, _ = self._text[self._position + 2 :].partition(":]")
            bare = name.removeprefix("^")
            if closed and bare in _CLASS_NAMES:
                self._position += len(name) + 4
                return _named(bare) if bare == name else _not(_named(bare))
            raise _invalid(f"an unknown class [:{name[:20]}:] in {self._text!r}")
        low = self._take()
        if low == "\\":
            test = self._class_escape()
            if test is not None:
                return test
            low = self._escaped_character()
        if self._peek() != "-" or self._peek(2) == "-]" or len(self._peek(2)) < 2:
            return low.__eq__
        self._take()
        high = self._take()
        if high == "\\":
            high = self._escaped_character()
        if high < low:
            raise _invalid(f"an invalid range {low}-{high} in {self._text!r}")
        return lambda character: low <= character <= high
