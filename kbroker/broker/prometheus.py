"""Families as prometheus_client writes them. Importing this needs the extra ``metrics``."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

import kbroker

if TYPE_CHECKING:
    from kbroker.broker.metrics import Family


class _Families:
    """A collector over what was collected before."""

    def __init__(self) -> None:
        self.families: Sequence[Family] = ()

    def collect(self) -> Iterator[Metric]:
        build = Metric("kbroker_build", "The version that runs", "info")
        build.add_sample("kbroker_build_info", {"version": kbroker.__version__}, 1)
        yield build
        for family in self.families:
            if family.samples:
                metric = Metric(family.name, family.text, family.kind)
                for suffix, labels, value in family.samples:
                    metric.add_sample(family.name + suffix, labels, value)
                yield metric


def new_renderer() -> "Callable[[Sequence[Family], str], tuple[bytes, str]]":
    """(families, Accept header) -> (body, content type). A registry of its own, never the global
    one: there may be many brokers in a process."""
    registry = CollectorRegistry(auto_describe=False)
    collector = _Families()
    registry.register(collector)
    ProcessCollector(registry=registry)

    def render(families: "Sequence[Family]", accept: str) -> tuple[bytes, str]:
        collector.families = families
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    return render
