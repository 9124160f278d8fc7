"""The difference between two transcripts of a scenario, field by field."""

from tests.wire.normalize import MESSAGES

ABSENT = "<absent>"
NO_STEP = "<no more steps>"
KEYS = (
    "Name",
    "ApiKey",
    "Topic",
    "TopicName",
    "PartitionIndex",
    "Partition",
    "GroupId",
    "MemberId",
)
MOST = 40
"""Differences of one scenario that are worth telling."""


def compare(recorded, seen):
    """(path, recorded, seen) for each field that differs; texts meant for people do not count."""
    recorded, seen = _without_texts(recorded), _without_texts(seen)
    differences = []
    for i, (a, b) in enumerate(zip(recorded, seen, strict=False)):
        _diff(a, b, f"#{i + 1} {_label(a)}", differences)
    if len(recorded) != len(seen):
        i = min(len(recorded), len(seen))
        sides = [_label(steps[i]) if i < len(steps) else NO_STEP for steps in (recorded, seen)]
        differences.append((f"#{i + 1}", *sides))
    return differences


def _without_texts(value):
    if isinstance(value, dict):
        return {k: _without_texts(v) for k, v in value.items() if k not in MESSAGES}
    if isinstance(value, list):
        return [_without_texts(v) for v in value]
    return value


def _diff(a, b, path, out):
    if len(out) > MOST:
        return
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(k for k in b if k not in a)]:
            _diff(a.get(key, ABSENT), b.get(key, ABSENT), f"{path}.{key}", out)
    elif isinstance(a, list) and isinstance(b, list):
        _diff_lists(a, b, path, out)
    elif a != b:
        out.append((path, a, b))


def _diff_lists(a, b, path, out):
    key = _common_key(a, b)
    if key is None:
        for i in range(max(len(a), len(b))):
            left = a[i] if i < len(a) else ABSENT
            right = b[i] if i < len(b) else ABSENT
            _diff(left, right, f"{path}[{i}]", out)
        return
    x, y = {v[key]: v for v in a}, {v[key]: v for v in b}
    for name in [*x, *(n for n in y if n not in x)]:
        _diff(x.get(name, ABSENT), y.get(name, ABSENT), f"{path}[{name}]", out)
    if list(x) != list(y) and set(x) == set(y):
        out.append((f"{path} order", list(x), list(y)))


def _common_key(a, b):
    """The field by which two lists of structs can be matched up."""
    if not a or not b or not all(isinstance(v, dict) for v in a + b):
        return None
    for key in KEYS:
        if all(isinstance(v.get(key), (str, int)) for v in a + b) and all(
            len({v[key] for v in side}) == len(side) for side in (a, b)
        ):
            return key
    return None


def _label(step):
    name = step.get("api") or step.get("raw") or step.get("note") or "end"
    version = f" v{step['v']}" if "v" in step else ""
    label = f" ({step['label']})" if step.get("label") else ""
    return f"{name}{version}{label}"
