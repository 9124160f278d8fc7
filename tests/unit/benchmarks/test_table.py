"""The table of figures."""

from __future__ import annotations

import json

from benchmarks.table import OURS, PEER, Figures


def test_medians_and_the_ratio_of_ours_over_theirs() -> None:
    figures = Figures()
    for value in (10.0, 30.0, 20.0):
        figures.line("produce", "records/s", target="ratio >= 1").add(OURS, value)
    figures.line("produce", "records/s").add(PEER, 8.0)

    line = figures.line("produce", "records/s")

    assert (line.of(OURS), line.of(PEER), line.ratio) == (20.0, 8.0, 2.5)
    row = figures.render().splitlines()[1]
    assert row.split() == [
        *("produce", "20.0", "±50%", "8.0", "2.50", "records/s", "ratio", ">=", "1")
    ]


def test_the_best_of_several() -> None:
    figures = Figures()
    for value in (150.0, 95.0, 120.0):
        figures.line("start", "ms", best=True, digits=0).add(OURS, value)

    assert figures.line("start", "ms").of(OURS) == 95.0


def test_a_broker_that_was_not_measured_is_a_dash() -> None:
    figures = Figures()
    figures.line("stop", "ms").add(OURS, 1.25)

    assert figures.render().splitlines()[1].split() == ["stop", "1.2", "-", "ms"]
    assert figures.line("stop", "ms").ratio is None


def test_every_value_is_in_the_json() -> None:
    figures = Figures()
    figures.line("stop", "ms", target="<= 5").add(OURS, 1.0)
    figures.line("stop", "ms").add(OURS, 2.0)

    assert json.loads(figures.as_json([("cores", "2")])) == {
        "circumstances": {"cores": "2"},
        "figures": [{"name": "stop", "unit": "ms", "target": "<= 5", "values": {OURS: [1.0, 2.0]}}],
    }


def test_other_brokers_have_columns_of_their_own() -> None:
    figures = Figures()
    figures.line("stop", "ms").add("third", 3.0)
    figures.line("stop", "ms").add(OURS, 1.0)

    header, row = figures.render().splitlines()
    assert header.split() == [OURS, PEER, "third", "ratio", "unit", "target"]
    assert row.split() == ["stop", "1.0", "-", "3.0", "ms"]


def test_a_table_for_a_page() -> None:
    figures = Figures()
    figures.line("stop", "ms", target="<= 5").add(OURS, 1.0)

    assert figures.as_markdown().splitlines() == [
        f"|  | {OURS} | {PEER} | ratio | unit |",
        "| --- | ---: | ---: | ---: | --- |",
        "| stop | 1.0 |  |  | ms |",
    ]
