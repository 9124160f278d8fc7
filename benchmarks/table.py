"""The figures of a run, and the table that is printed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

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

    def spread(self, broker: str) -> float | None:
        """Half the way from the lowest to the highest value, over the median."""
        values = self.values.get(broker)
        if not values or len(values) < 2 or not median(values):
            return None
        return (max(values) - min(values)) / 2 / median(values)

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

    @property
    def brokers(self) -> list[str]:
        """Whose values there are: ours and the peer first."""
        seen = {broker for figure in self._figures.values() for broker in figure.values}
        return [OURS, PEER, *sorted(seen - {OURS, PEER})]

    def render(self) -> str:
        """The table as text; a spread stands behind its median."""
        rows = self._rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(_row(row, widths) for row in rows)

    def as_markdown(self) -> str:
        """The same table, without the targets, for a page."""
        rows = [["" if cell == "-" else cell for cell in row[:-1]] for row in self._rows()]
        rows.insert(1, ["---", *("---:" for _ in rows[0][1:-1]), "---"])
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def _rows(self) -> list[tuple[str, ...]]:
        brokers = self.brokers
        rows = [("", *brokers, "ratio", "unit", "target")]
        for figure in self._figures.values():
            ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
            shown = (_shown(figure, broker) for broker in brokers)
            rows.append((figure.name, *shown, ratio, figure.unit, figure.target))
        return rows

    def as_json(self, circumstances: Iterable[tuple[str, str]] = ()) -> str:
        """Every single value, for a look at their spread, and what they were measured on."""
        lines: list[dict[str, Any]] = [
            {"name": f.name, "unit": f.unit, "target": f.target, "values": f.values}
            for f in self._figures.values()
        ]
        return json.dumps({"circumstances": dict(circumstances), "figures": lines}, indent=1)


def _shown(figure: Figure, broker: str) -> str:
    value, spread = figure.of(broker), figure.spread(broker)
    if value is None:
        return "-"
    text = f"{value:,.{figure.digits}f}"
    return text if spread is None or figure.best else f"{text} ±{100 * spread:.0f}%"


def _row(cells: tuple[str, ...], widths: list[int]) -> str:
    left, *numbers, unit, target = cells
    parts = [left.ljust(widths[0])]
    parts += [cell.rjust(width) for cell, width in zip(numbers, widths[1:-2], strict=True)]
    parts += [unit.ljust(widths[-2]), target]
    return "  ".join(parts).rstrip()
