"""Which partition of an internal topic a key belongs to, as Kafka computes it."""


def java_string_hash(text: str) -> int:
    """``String.hashCode``: over UTF-16 code units, as a signed 32-bit number."""
    value = 0
    if text.isascii():
        for unit in text.encode("ascii"):
            value = (31 * value + unit) & 0xFFFFFFFF
    else:
        encoded = text.encode("utf-16-be", "surrogatepass")
        for index in range(0, len(encoded), 2):
            unit = encoded[index] << 8 | encoded[index + 1]
            value = (31 * value + unit) & 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def partition_for(key: str, partition_count: int) -> int:
    """abs(hash) % partitions, where the absolute value of the smallest integer is 0."""
    value = java_string_hash(key)
    if value == -(1 << 31):
        return 0
    return abs(value) % partition_count
