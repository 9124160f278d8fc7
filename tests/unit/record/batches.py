"""Records and batches for the tests, well-formed and not."""

from hypothesis import strategies as st

from kbroker.record import compression
from kbroker.record.batch import HEADER_SIZE, assemble_batch
from kbroker.record.encoding import encode_record, write_varint
from kbroker.record.record import Record

CODECS = (
    compression.NONE,
    compression.GZIP,
    compression.SNAPPY,
    compression.LZ4,
    compression.ZSTD,
)
COMPRESSED = CODECS[1:]

_small = st.binary(max_size=40)
records = st.lists(
    st.builds(
        Record,
        key=st.none() | _small,
        value=st.none() | _small | st.binary(min_size=100, max_size=300),
        headers=st.lists(st.tuples(st.text(max_size=5), st.none() | _small), max_size=3),
        timestamp=st.integers(-1, 2**62),
    ),
    min_size=1,
    max_size=20,
)


def numbered(items):
    """Records with offsets from 0, as they come back from a batch."""
    return [
        Record(
            key=item.key,
            value=item.value,
            headers=item.headers,
            timestamp=item.timestamp,
            offset=index,
        )
        for index, item in enumerate(items)
    ]


def record_bytes(value=b"v", *, key=b"k", index=0, timestamp_delta=0, headers=()):
    return encode_record(
        timestamp_delta=timestamp_delta,
        offset_delta=index,
        key=key,
        value=value,
        headers=headers,
    )


def raw_record(body, *, length=None):
    """A record of any body behind any length."""
    return write_varint(len(body) if length is None else length) + body


def batch_of(data, *, count, codec=0, compressed=None, **header):
    """A batch with a right CRC around any record data; ``compressed`` replaces its compression."""
    if compressed is None:
        compressed = compression.compress(codec, data) if codec else data
    settings = {"base_timestamp": 1000, "max_timestamp": 1000, **header}
    attributes = settings.pop("attributes", 0) | codec
    return assemble_batch(compressed, record_count=count, attributes=attributes, **settings)


def set_field(batch, position, fmt_struct, value):
    """A copy with one header field overwritten; the CRC is left as it is."""
    copy = bytearray(batch)
    fmt_struct.pack_into(copy, position, value)
    return copy


def record_data(batch):
    return bytes(batch[HEADER_SIZE:])
