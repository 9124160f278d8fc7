"""Names of the keys in the metadata store, all under ``/kb/<cluster name>/``.

    meta                          cluster id, format, incarnation
    controller                    who is the controller; vanishes with its session
    b/reg/<id>  b/act/<id>        a broker's registration, its admission; vanish with its session
    b/epoch/<id>                  the last epoch under which the broker was admitted; stays
    t/<name>  ti/<uuid>           topic id of a name; name and partition count of an id
    p/<uuid>/<partition>          one partition's state
    cfg/<type>/<name>             overrides of one configuration resource
    pid                           first producer id that was never handed out

A topic exists once its ``ti`` key does: partitions without one are remains of an unfinished change.
"""

from enum import IntEnum


class ConfigResourceType(IntEnum):
    """Kinds of configuration resources; the numbers are the wire protocol's."""

    UNKNOWN = 0
    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


class Keys:
    """Builds the keys of one cluster and takes them apart."""

    __slots__ = ("controller", "meta", "prefix", "producer_ids")

    def __init__(self, cluster_name: str = "default") -> None:
        self.prefix = f"/kb/{cluster_name}/".encode()
        self.meta = self.prefix + b"meta"
        self.controller = self.prefix + b"controller"
        self.producer_ids = self.prefix + b"pid"

    def registration(self, node_id: int) -> bytes:
        return self.prefix + b"b/reg/%d" % node_id

    def admission(self, node_id: int) -> bytes:
        return self.prefix + b"b/act/%d" % node_id

    def last_epoch(self, node_id: int) -> bytes:
        return self.prefix + b"b/epoch/%d" % node_id

    def topic_name(self, name: str) -> bytes:
        return self.prefix + b"t/" + name.encode()

    def topic_id(self, topic_id: bytes) -> bytes:
        return self.prefix + b"ti/" + topic_id.hex().encode()

    def partitions(self, topic_id: bytes) -> bytes:
        """Prefix of a topic's partitions."""
        return self.prefix + b"p/" + topic_id.hex().encode() + b"/"

    def partition(self, topic_id: bytes, partition: int) -> bytes:
        return self.partitions(topic_id) + b"%08x" % partition

    def config(self, resource_type: int, name: str) -> bytes:
        return self.prefix + b"cfg/%d/" % resource_type + name.encode()

    def split(self, key: bytes) -> tuple[bytes, bytes]:
        """(kind, rest): (b"p", b"<uuid>/<partition>"), (b"b/reg", b"1"), (b"meta", b"")."""
        kind, _, rest = key[len(self.prefix) :].partition(b"/")
        if kind == b"b":
            kind, _, rest = rest.partition(b"/")
            kind = b"b/" + kind
        return kind, rest


def parse_partition(rest: bytes) -> tuple[bytes, int]:
    """(topic id, partition index) of the rest of a ``p`` key."""
    topic_id, _, index = rest.partition(b"/")
    return bytes.fromhex(topic_id.decode()), int(index, 16)


def parse_config(rest: bytes) -> tuple[int, str]:
    """(resource type, resource name) of the rest of a ``cfg`` key."""
    resource_type, _, name = rest.partition(b"/")
    return int(resource_type), name.decode()
