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

    def __init__(self, families: "Sequence[Family]") -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        build = Metric("kbroker_build", "The version that runs", "info")
        build.add_sample("kbroker_build_info", {"version": kbroker.__version__}, 1)
        yield build
        for family in self._families:
            if family.samples:
                metric = Metric(family.name, family.text, family.kind)
                for suffix, labels, value in family.samples:
                    metric.add_sample(family.name + suffix, labels, value)
                yield metric


def new_renderer() -> "Callable[[Sequence[Family], str], tuple[bytes, str]]":
    """(families, Accept header) -> (body, content type); may be called by several threads at once.

    Registries are their own, never the global one, for there may be many brokers in a process, and
    last as long as one page: nothing of it is kept until the next.
    """

    process = ProcessCollector(registry=None)

    def render(families: "Sequence[Family]", accept: str) -> tuple[bytes, str]:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(families))
        registry.register(process)
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    return render
