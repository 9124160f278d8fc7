"""Answers become buffers: in order, joined when small, in pieces when large."""

import os
import struct

import pytest

from kbroker.network.output import Output, ShortSliceError


class Slice:
    """A log slice over bytes, or over a file when a descriptor is given."""

    def __init__(self, data: bytes, *, descriptor: int | None = None, claims: int | None = None):
        self.data, self.descriptor = data, descriptor
        self.claims = len(data) if claims is None else claims
        self.reads = 0

    def __len__(self):
        return self.claims

    def parts(self):
        self.reads += 1
        half = len(self.data) // 2
        return [self.data[:half], self.data[half:]]

    def file_range(self):
        return None if self.descriptor is None else (self.descriptor, 0, self.claims)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "segment"
    path.write_bytes(bytes(range(256)) * 400)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor, path.read_bytes()
    os.close(descriptor)


def drain(output, **options):
    pieces = []
    while output.size:
        buffers = output.take(**options)
        if not buffers:
            break
        pieces.append(b"".join(buffers))
    return pieces


def test_small_answers_leave_as_one_buffer():
    output = Output(1000)
    output.add_answer([b"ab", bytearray(b"cd"), memoryview(b"ef")])
    output.add_answer([])
    assert output.size == 14
    assert output.take() == [b"\0\0\0\x06abcdef\0\0\0\0"]
    assert (output.size, output.take()) == (0, [])


def test_large_buffers_are_not_copied():
    output = Output(1000)
    large = bytearray(50_000)
    output.add_answer([b"head", large])
    taken = output.take()
    assert taken == [struct.pack(">i", 50_004), b"head", large]
    assert taken[2] is large


def test_slices_are_read_when_they_are_taken():
    output = Output(100_000)
    data = bytes(20_000)
    piece = Slice(data)
    output.add_answer([b"head", piece, b"tail", Slice(b"")])
    assert piece.reads == 0
    assert b"".join(output.take()) == struct.pack(">i", 20_008) + b"head" + data + b"tail"
    assert piece.reads == 1
    assert output.size == 0


def test_a_large_file_slice_is_read_piece_by_piece(file):
    descriptor, content = file
    output = Output(30_000)
    output.add_answer([b"head", Slice(content, descriptor=descriptor), b"tail"])
    output.add_answer([b"next"])
    pieces = drain(output)
    assert max(map(len, pieces)) <= 60_000
    assert b"".join(pieces)[4:] == b"head" + content + b"tail\0\0\0\x04next"


def test_a_large_slice_without_a_file_is_taken_at_once():
    output = Output(1000)
    output.add_answer([Slice(bytes(50_000)), b"tail"])
    assert sum(map(len, output.take())) == 50_004
    assert output.take() == [b"tail"]


def test_stopping_at_files(file):
    descriptor, content = file
    output = Output(1 << 20)
    output.add_answer([b"head", Slice(b"memory"), Slice(content, descriptor=descriptor), b"tail"])
    head, file_range = output.take_to_file()
    assert b"".join(head)[4:] == b"headmemory"
    assert file_range == (descriptor, 0, len(content))
    assert output.take_to_file() == ([], (descriptor, 0, len(content)))
    output.sent_from_file(1000)
    assert output.take_to_file() == ([], (descriptor, 1000, len(content) - 1000))
    output.sent_from_file(len(content) - 1000)
    assert output.take_to_file() == ([b"tail"], None)
    assert output.size == 0


def test_stopping_at_a_file_that_is_closed_meanwhile(file):
    descriptor, content = file
    output = Output(1 << 20)
    piece = Slice(content, descriptor=descriptor)
    output.add_answer([b"head", piece])
    output.take_to_file()
    output.sent_from_file(1000)
    piece.descriptor = None
    with pytest.raises(ShortSliceError):
        output.take_to_file()


@pytest.mark.parametrize("claims", [9, 11])
def test_a_slice_that_gives_other_than_it_announced(claims):
    output = Output(1000)
    output.add_answer([Slice(bytes(10), claims=claims)])
    with pytest.raises(ShortSliceError):
        output.take()


def test_a_file_that_is_shorter_than_announced(file):
    descriptor, content = file
    output = Output(30_000)
    output.add_answer([Slice(content, descriptor=descriptor, claims=len(content) + 1)])
    with pytest.raises(ShortSliceError):
        drain(output)


def test_a_file_that_is_closed_meanwhile(file):
    descriptor, content = file
    output = Output(30_000)
    piece = Slice(content, descriptor=descriptor)
    output.add_answer([piece])
    output.take()
    piece.descriptor = None
    with pytest.raises(ShortSliceError):
        drain(output)


def test_clear_forgets_everything():
    output = Output(1000)
    output.add_answer([b"a", Slice(b"b")])
    output.clear()
    assert (output.size, output.take(), output.take_to_file()) == (0, [], ([], None))
