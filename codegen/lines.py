"""Python source as indented lines, with the few layout rules that keep it readable."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

WIDTH = 100


class Lines:
    """Collects lines; ``block`` indents what is added inside it."""

    def __init__(self, depth: int = 0) -> None:
        self.lines: list[str] = []
        self._depth = depth

    def add(self, line: str) -> None:
        self.lines.append("    " * self._depth + line if line else "")

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.add(head)
        self._depth += 1
        yield
        self._depth -= 1

    def call(self, head: str, items: Sequence[str], tail: str, *, comma: bool = False) -> None:
        """``head(items)tail`` on one line, or the items on lines of their own where it is too long.

        ``comma``: a single item needs a comma after it, being a tuple.
        """
        indent = "    " * self._depth
        end = "," if comma and len(items) == 1 else ""
        flat = f"{head}{', '.join(items)}{end}{tail}"
        if len(indent) + len(flat) <= WIDTH:
            self.add(flat)
            return
        self.add(head)
        self.lines.extend(f"{indent}    {item}," for item in items)
        self.add(tail)

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
                self.add(value)
                self.add(otherwise)
        self.add(")")
