"""The figures of a run, and the table that is printed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from statistics import median
from typing import Any

PEER = "apache-kafka"
OURS = "kbroker"


@dataclass
class Figure:
    """One line of the table: every value measured, by broker; ``best`` takes the least of them."""

    name: str
    unit: str
    digits: int = 1
    best: bool = False
    values: dict[str, list[float]] = field(default_factory=dict)
    target: str = ""

    def add(self, broker: str, value: float) -> None:
        self.values.setdefault(broker, []).append(value)

    def of(self, broker: str) -> float | None:
        """The median (or the best) of a broker's values; None when it was not measured."""
        values = self.values.get(broker)
        if not values:
            return None
        return min(values) if self.best else median(values)

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's."""
        ours, peers = self.of(OURS), self.of(PEER)
        return ours / peers if ours is not None and peers else None


class Figures:
    """All lines, in the order in which they were first asked for."""

    def __init__(self) -> None:
        self._figures: dict[str, Figure] = {}

    def line(
        self, name: str, unit: str, *, digits: int = 1, best: bool = False, target: str = ""
    ) -> Figure:
        """The line of that name, made when it is new."""
        return self._figures.setdefault(name, Figure(name, unit, digits, best, target=target))

    def render(self) -> str:
        """The table as text."""
        rows = [("", OURS, PEER, "ratio", "unit", "target")]
        for figure in self._figures.values():
            ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
            shown = [_number(figure.of(broker), figure.digits) for broker in (OURS, PEER)]
            rows.append((figure.name, shown[0], shown[1], ratio, figure.unit, figure.target))
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        return "\n".join(_row(row, widths) for row in rows)

    def as_json(self) -> str:
        """Every single value, for a look at their spread."""
        lines: list[dict[str, Any]] = [
            {"name": f.name, "unit": f.unit, "target": f.target, "values": f.values}
            for f in self._figures.values()
        ]
        return json.dumps(lines, indent=1)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _row(cells: tuple[str, ...], widths: list[int]) -> str:
    left, *numbers, unit, target = cells
    parts = [left.ljust(widths[0])]
    parts += [cell.rjust(width) for cell, width in zip(numbers, widths[1:4], strict=True)]
    parts += [unit.ljust(widths[4]), target]
    return "  ".join(parts).rstrip()
