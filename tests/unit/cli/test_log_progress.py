"""One line on a terminal, now and then; nothing anywhere else."""

import io

from kbroker.cli.log_progress import ByteProgress
from kbroker.common.clock import ManualClock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_one_line():
    stream, clock = Terminal(), ManualClock()
    with ByteProgress("verifying", stream=stream, clock=clock) as progress:
        progress.show(500_000, 2_000_000)
        progress.show(600_000, 2_000_000)  # too soon after the last one
        clock.advance(1.0)
        progress.show(2_000_000, 2_000_000)
    assert stream.getvalue() == (
        "\r\x1b[Kverifying: 0.5 of 2.0 MB, 25 %\r\x1b[Kverifying: 2.0 of 2.0 MB, 100 %\r\x1b[K"
    )


def test_a_file_sees_nothing():
    stream = io.StringIO()
    with ByteProgress("verifying", stream=stream, clock=ManualClock()) as progress:
        progress.show(0, 0)
    assert stream.getvalue() == ""
