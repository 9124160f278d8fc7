"""``python -m benchmarks``: all figures in one table, beside Apache Kafka where it can be had.

The brokers run at the same time and are measured in turn, A-B-B-A, so that a noisy moment of the
machine falls on all. Each is warmed with 100,000 records and 20,000 requests first. Printed are
medians, half the spread in percent behind them (of starts: the best); a ratio is kbroker's over
Apache Kafka's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import client_cycle, codec, embedded, subjects
from benchmarks.brokers import (
    COMPILED,
    GATHERING,
    BrokerFactory,
    compiled_kbroker,
    gathering_kbroker,
    seconds_to_first_answer,
)
from benchmarks.circumstances import circumstances
from benchmarks.mock_cluster import MockCluster
from benchmarks.process_stats import StolenTime, idle_cpu_percent, rss_mb
from benchmarks.subjects import Size, Subject
from benchmarks.table import OURS, PEER, Figures
from tests.peers.apache_kafka import ApacheKafka
from tests.peers.kafka_tools import KafkaTools
from tests.peers.kbroker_process import KbrokerProcess
from tests.peers.require import PeerUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.brokers import MeasuredBroker

FIRST = ("embedded", "codec", "start", "idle")
"""Subjects of their own kind, before those of ``subjects``."""
MANY_EMBEDDED = 100


def main() -> int:
    options = _options()
    size = Size(full=options.full, share=options.share)
    if options.rounds:
        size.rounds = options.rounds
    only: list[str] = options.only
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="kbroker-benchmarks-", dir=options.dir) as scratch:
        folder = Path(scratch)
        shown = circumstances(folder)
        stolen = StolenTime()
        factories = _factories(folder, options.brokers.split(","))
        chosen = [s for s in subjects.subjects(_tools()) if _is_chosen(s.name, only)]
        if _is_chosen("embedded", only):
            _measure_embedded(figures, size)
        if _is_chosen("codec", only):
            _measure_codec(figures, size)
        if _is_chosen("start", only):
            _measure_starts(figures, factories, size)
        if chosen or _is_chosen("idle", only):
            _with_brokers(figures, factories, chosen, size, idle=_is_chosen("idle", only))
    shown.append(("processor time kept by the machine's host", f"{stolen.percent():.1f} %"))
    for what, value in shown:
        print(f"{what}: {value}")
    print(f"rounds: {size.rounds}\n\n{figures.render()}")
    if options.markdown:
        options.markdown.write_text(figures.as_markdown())
    if options.json:
        options.json.write_text(figures.as_json(shown))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--full", action="store_true", help="figures to publish: five rounds of larger counts")
    add("--rounds", type=int, help="how many times each subject is measured on each broker")
    add("--share", type=float, default=1.0, help="of all counts, such as 0.1")
    add(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help=f"subjects whose name begins with this ({', '.join(FIRST)}, throughput, round trip, "
        "small, groups, transactions, large, tools); may be repeated",
    )
    names = f"{OURS},{PEER},{MockCluster.name}"
    add("--brokers", default=names, help=f"comma between them; also {COMPILED}")
    add("--dir", type=Path, help="where the brokers keep their data")
    add("--markdown", type=Path, help="also write the table for a page to this file")
    add("--json", type=Path, help="also write every single value to this file")
    return parser.parse_args()


def _is_chosen(name: str, only: Sequence[str]) -> bool:
    return not only or any(name.startswith(text) for text in only)


def _tools() -> KafkaTools | None:
    try:
        return KafkaTools()
    except PeerUnavailable:
        return None


def _factories(folder: Path, names: list[str]) -> list[BrokerFactory]:
    """In the order of ``names``; Apache Kafka is left out, with a word, where it cannot be had."""
    factories = []
    for name in names:
        if name == OURS:
            factories.append(BrokerFactory(name, KbrokerProcess, folder))
        elif name == PEER:
            try:
                KafkaTools()
            except PeerUnavailable as missing:
                _progress(f"without Apache Kafka: {missing}")
                continue
            factories.append(BrokerFactory(name, ApacheKafka, folder))
        elif name == MockCluster.name:
            factories.append(BrokerFactory(name, MockCluster, folder))
        elif name == COMPILED:
            tree = folder / "compiled"
            _compile(tree)
            factories.append(BrokerFactory(name, compiled_kbroker(tree), folder))
        else:
            raise SystemExit(f"there is no broker {name!r}")
    return factories


def _compile(tree: Path) -> None:
    from codegen import compiled

    _progress("compiling")
    tree.mkdir()
    compiled.copy_tree(tree)
    compiled.write_native(tree)
    compiled.build(tree, "3")


def _measure_embedded(figures: Figures, size: Size) -> None:
    _progress("in-process brokers")
    for up_ms, down_ms in embedded.start_and_stop_ms(size.embedded + 1)[1:]:
        figures.line("in-process start", "ms", digits=2, target="<= 5").add(OURS, up_ms)
        figures.line("in-process stop", "ms", digits=2, target="<= 5").add(OURS, down_ms)
    line = figures.line(
        f"{MANY_EMBEDDED} in-process brokers, up and down", "s", digits=2, target="< 1"
    )
    for _ in range(max(3, size.rounds)):
        line.add(OURS, embedded.many_at_once_s(MANY_EMBEDDED))


def _measure_codec(figures: Figures, size: Size) -> None:
    _progress("codec")
    for name, codecs in codec.measure(max(3, size.rounds)).items():
        for one, us in codecs.items():
            line = figures.line(f"{name}, {one}", "us", digits=2)
            line.add(OURS, us)


def _measure_starts(figures: Figures, factories: list[BrokerFactory], size: Size) -> None:
    line = figures.line("start to first answer", "ms", digits=0, best=True, target="<= 150")
    for factory in factories:
        if factory.name == MockCluster.name:
            continue
        for number in range(size.starts):
            _progress(f"{factory.name}: start {number + 1}")
            line.add(factory.name, seconds_to_first_answer(factory) * 1000)


def _with_brokers(
    figures: Figures,
    factories: list[BrokerFactory],
    chosen: list[Subject],
    size: Size,
    *,
    idle: bool,
) -> None:
    """Start a broker of each kind, measure, end them."""
    brokers = [factory.make() for factory in factories]
    folder_of_extra = next((f for f in factories if f.name == OURS), None)
    if folder_of_extra is not None and any(GATHERING in subject.kinds for subject in chosen):
        brokers.append(BrokerFactory(GATHERING, gathering_kbroker, folder_of_extra.folder).make())
    try:
        for broker in brokers:
            broker.start()
            if idle and broker.name != MockCluster.name:
                _measure_idle(figures, broker, size)
        if not chosen:
            return
        for broker in brokers:
            _progress(f"{broker.name}: warm-up")
            subjects.warm_up(broker, size)
        for subject in chosen:
            try:
                _measure_subject(figures, brokers, subject, size)
            except Exception:  # a client gave up: an hour of other figures is not lost for that
                _progress(f"{subject.name} is left out:\n{traceback.format_exc()}")
        if idle:
            for broker in brokers:
                _rss(figures, "RSS at the end", broker, target="<= 64")
    finally:
        for broker in brokers:
            broker.kill()


def _measure_subject(
    figures: Figures, brokers: list[MeasuredBroker], subject: Subject, size: Size
) -> None:
    concerned = [broker for broker in brokers if broker.name in subject.kinds]
    for number in range(size.rounds):
        for broker in concerned if number % 2 == 0 else reversed(concerned):
            _progress(f"{broker.name}: {subject.name}, round {number + 1}")
            subject.measure(broker, figures, size)


def _measure_idle(figures: Figures, broker: MeasuredBroker, size: Size) -> None:
    _progress(f"{broker.name}: idle")
    line = partial(figures.line, unit="% of a core", target="< 1")
    _rss(figures, "RSS when ready", broker, target="<= 40")
    percent = idle_cpu_percent(broker.pid, seconds=size.idle_s)
    line("idle CPU when ready").add(broker.name, percent)
    _progress(f"{broker.name}: a cycle of each client")
    client_cycle.run_all(broker.bootstrap, "cycle")
    _rss(figures, "RSS after client cycles", broker)
    percent = idle_cpu_percent(broker.pid, seconds=size.idle_s)
    line("idle CPU after client cycles").add(broker.name, percent)


def _rss(figures: Figures, name: str, broker: MeasuredBroker, *, target: str = "") -> None:
    figures.line(name, "MB", target=target).add(broker.name, rss_mb(broker.pid))


def _progress(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
