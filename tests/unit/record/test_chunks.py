import pytest

from kbroker.protocol.errors import KafkaError
from kbroker.record import chunks, compression
from kbroker.record.chunks import ChunkReader
from tests.unit.record.batches import COMPRESSED

DATA = b"0123456789abcdef" * 500


def reader(codec, data, *, cut=0):
    compressed = compression.compress(codec, data)
    source = memoryview(compressed)[: len(compressed) - cut]
    return ChunkReader(compression.open_inflater(codec, source, limit=1 << 20), [])


@pytest.fixture(params=COMPRESSED)
def codec(request):
    return request.param


def test_what_fits_one_chunk_is_known_to_be_all(codec):
    inflated = reader(codec, DATA)
    assert inflated.next() == DATA
    assert inflated.is_at_end
    assert inflated.next() == b""


def test_chunks_are_of_bounded_size_and_the_last_one_ends_it(codec, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 3000)
    inflated = reader(codec, DATA)
    seen = b""
    while not inflated.is_at_end:
        chunk = inflated.next()
        assert 0 < len(chunk) <= 3000
        seen += chunk
    assert seen == DATA


def test_an_end_that_falls_on_a_chunks_end_is_seen_by_the_next(codec, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_SIZE", len(DATA))
    inflated = reader(codec, DATA)
    assert inflated.next() == DATA
    assert not inflated.is_at_end
    assert inflated.next() == b""
    assert inflated.is_at_end


def test_an_error_comes_after_what_preceded_it_and_is_no_end(codec):
    inflated = reader(codec, DATA * 40, cut=1)
    with pytest.raises(KafkaError):
        while inflated.next():
            assert not inflated.is_at_end
    assert not inflated.is_at_end
