"""Python source as indented lines, with the few layout rules that keep it readable."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

WIDTH = 100
_CALL = re.compile(r"(?P<head>.*\w\()(?P<arguments>[^()]+)(?P<tail>\):?)")
_CALL_IN_CALL = re.compile(r"(?P<outer>.*\w\()(?P<inner>\w+\()(?P<arguments>[^()]+)\)\)")


class Lines:
    """Collects lines; ``block`` indents what is added inside it."""

    def __init__(self, depth: int = 0) -> None:
        self.lines: list[str] = []
        self._depth = depth

    def fits(self, line: str) -> bool:
        """Whether a line that is added here is short enough."""
        return len("    " * self._depth + line) <= WIDTH

    def add(self, line: str) -> None:
        """One line; a call at its end is spread over several where the line is too long."""
        text = "    " * self._depth + line if line else ""
        fits = self.fits(line)
        nested = None if fits else _CALL_IN_CALL.fullmatch(line)
        call = None if fits else _CALL.fullmatch(line)
        if nested is not None:
            with self.block(nested["outer"]):
                self.add(f"{nested['inner']}{nested['arguments']})")
            self.add(")")
        elif call is not None:
            self.call(call["head"], call["arguments"].split(", "), call["tail"])
        else:
            self.lines.append(text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self._head(head)
        self._depth += 1
        yield
        self._depth -= 1

    def _head(self, head: str) -> None:
        """The head of a block; a long test is put in brackets, a line for each condition."""
        keyword, _, test = head.partition(" ")
        first, *others = test.removesuffix(":").split(" and ")
        if self.fits(head) or not others:
            self.add(head)
            return
        with self.block(f"{keyword} ("):
            self.add(first)
            for other in others:
                self._condition(f"and {other}")
        self.add("):")

    def _condition(self, test: str) -> None:
        first, *others = test.removeprefix("and (").removesuffix(")").split(" or ")
        if self.fits(test) or not others:
            self.add(test)
            return
        with self.block("and ("):
            self.add(first)
            for other in others:
                self.add(f"or {other}")
        self.add(")")

    def call(self, head: str, items: Sequence[str], tail: str, *, comma: bool = False) -> None:
        """``head(items)tail`` on one line, or the items on lines of their own where it is too long.

        ``comma``: a single item needs a comma after it, being a tuple.
        """
        indent = "    " * self._depth
        end = "," if comma and len(items) == 1 else ""
        flat = f"{head}{', '.join(items)}{end}{tail}"
        if len(indent) + len(flat) <= WIDTH:
            self.lines.append(indent + flat)
            return
        self.lines.append(indent + head)
        self.lines.extend(f"{indent}    {item}," for item in items)
        self.lines.append(indent + tail)

    def assign(self, target: str, value: str, otherwise: str) -> None:
        """``target = value if ... else ...`` on one line, or in brackets where it is too long."""
        indent = "    " * self._depth
        flat = f"{target} = {value} {otherwise}" if otherwise else f"{target} = {value}"
        if len(indent) + len(flat) <= WIDTH:
            self.add(flat)
            return
        with self.block(f"{target} = ("):
            if len(indent) + 4 + len(f"{value} {otherwise}") <= WIDTH:
                self.add(f"{value} {otherwise}")
            else:
                condition_at = value.index(" if ")
                self.add(value[:condition_at])
                self.add(value[condition_at + 1 :])
                self.add(otherwise)
        self.add(")")
