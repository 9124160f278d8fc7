"""The codecs that are compared do the same work."""

from __future__ import annotations

import io

from benchmarks import codec
from benchmarks.reflection import codec as reflection_codec
from tests.unit import reference_codec


def test_each_codec_gives_the_bytes_of_the_others():
    for make in (codec._ours, codec._reflection, codec._kafka_python):
        decode, encode = make(2, 3)
        assert encode() == codec._encoded(2, 3)
        assert decode() is not None


def test_the_reflective_codec_agrees_with_the_schema():
    schema = reference_codec.load("FetchRequest")
    data = codec._encoded(2, 3)
    message, size = reference_codec.decode(schema, codec.VERSION, data)
    assert size == len(data)
    read = reflection_codec("FetchRequest", codec.VERSION).read(io.BytesIO(data))
    for name, value in read.items():
        assert message[name] == value
