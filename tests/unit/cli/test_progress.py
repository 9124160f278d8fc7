"""The line that says how far work has come."""

from __future__ import annotations

import io

from kbroker.cli.progress import Progress
from kbroker.common.clock import ManualClock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_that_is_written_over():
    clock, terminal = ManualClock(), Terminal()
    with Progress(total_bytes=1000, clock=clock, stream=terminal) as progress:
        progress.advance(records=1, input_bytes=100)
        clock.advance(0.1)
        progress.advance(records=1, input_bytes=100)  # too soon to be shown
        clock.advance(0.9)
        progress.advance(records=1998, input_bytes=300)
    assert terminal.getvalue().split("\r\x1b[K")[1:] == [
        "1 records, 0.0 MB, 10 %",
        "2,000 records, 0.0 MB, 2,000 records/s, 50 %",
        "",
    ]


def test_nothing_where_nobody_watches():
    for stream, shown in ((io.StringIO(), True), (Terminal(), False)):
        with Progress(stream=stream, clock=ManualClock(), shown=shown) as progress:
            progress.advance(records=1, input_bytes=1)
        assert stream.getvalue() == ""
