"""Regular expressions over topic names, matched in time linear in the name.

Members of KIP-848 groups subscribe by expressions in RE2 syntax, which the broker evaluates. A
backtracking engine would let one client stall everybody with ``(a+)+$``; this one runs a
nondeterministic automaton whose state sets are remembered, up to a limit, as RE2 does.

Supported: literals and escapes, ``.``, classes with ranges, negation, ``[:alpha:]`` names and
``\\d \\s \\w``, groups (capturing, named, ``(?:...)``, flags ``i m s U``), alternation, all
repetitions up to 1,000, ``^ $ \\A \\z \\b \\B``, ``\\Q...\\E``. Not supported: ``\\p{...}`` (topic
names are ASCII) and what RE2 has neither, back references and look-around. An expression must
match the whole name.
"""

from kbroker.coordinator.group.regex_parser import (
    BEGIN,
    BOUNDARY,
    CHARACTERS,
    END,
    EPSILON,
    NOT_BOUNDARY,
    Program,
    parse,
)

_REMEMBERED_STATES = 1_000
"""State sets of one expression that are remembered; beyond that all are forgotten."""

_States = frozenset[int]


class TopicRegex:
    """A compiled expression. KafkaError INVALID_REGULAR_EXPRESSION when it cannot be."""

    __slots__ = ("_program", "_start", "_transitions", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._program: Program = parse(pattern)
        self._transitions: dict[tuple[_States, str, str], _States] = {}
        self._start: _States = frozenset({self._program.start})

    def matches(self, name: str) -> bool:
        """Whether the whole name matches."""
        states = self._start
        before = ""
        for character in name:
            key = (states, before, character)
            following = self._transitions.get(key)
            if following is None:
                following = self._step(states, before, character)
                if len(self._transitions) >= _REMEMBERED_STATES:
                    self._transitions.clear()
                self._transitions[key] = following
            if not following:
                return False
            states = following
            before = character
        return self._program.accept in self._closure(states, before, "")

    def _step(self, states: _States, before: str, character: str) -> _States:
        program = self._program
        following: set[int] = set()
        for state in self._closure(states, before, character):
            for kind, argument, target in program.edges[state]:
                if kind == CHARACTERS and argument is not None and argument(character):
                    following.add(target)
        return frozenset(following)

    def _closure(self, states: _States, before: str, after: str) -> set[int]:
        """All states reached without a character, between ``before`` and ``after``."""
        edges = self._program.edges
        reached = set(states)
        to_visit = list(states)
        while to_visit:
            for kind, _, target in edges[to_visit.pop()]:
                if target in reached or kind == CHARACTERS:
                    continue
                if kind == EPSILON or _holds(kind, before, after):
                    reached.add(target)
                    to_visit.append(target)
        return reached


def _holds(kind: int, before: str, after: str) -> bool:
    """Whether an assertion is true between two characters, "" standing for the ends."""
    if kind == BEGIN:
        return before == ""
    if kind == END:
        return after == ""
    is_boundary = _is_word(before) != _is_word(after)
    if kind == BOUNDARY:
        return is_boundary
    assert kind == NOT_BOUNDARY
    return not is_boundary


def _is_word(character: str) -> bool:
    return character == "_" or (character.isascii() and character.isalnum())
