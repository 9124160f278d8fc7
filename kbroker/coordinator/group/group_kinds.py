"""The kinds of groups that share ``__consumer_offsets``."""

from kbroker.coordinator.group.classic_group import ClassicGroup
from kbroker.coordinator.group.consumer_group import ConsumerGroup

Group = ClassicGroup | ConsumerGroup

CLASSIC = "classic"
CONSUMER = "consumer"


def type_of(group: Group) -> str:
    """The type as ListGroups shows and filters it."""
    return CLASSIC if isinstance(group, ClassicGroup) else CONSUMER


def state_of(group: Group) -> str:
    """The state as ListGroups shows and filters it."""
    return group.state.value if isinstance(group, ClassicGroup) else group.state_name


def protocol_type_of(group: Group) -> str:
    """The protocol type as ListGroups shows it."""
    return (group.protocol_type or "") if isinstance(group, ClassicGroup) else "consumer"
