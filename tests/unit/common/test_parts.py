"""What answers are made of."""

from kbroker.common.parts import LogSlice, gather, parts_size


class Slice:
    def __init__(self, *pieces):
        self.pieces = list(pieces)

    def __len__(self):
        return sum(map(len, self.pieces))

    def parts(self):
        return self.pieces

    def file_range(self):
        return None


def test_sizes_of_parts_of_all_kinds():
    parts = [b"ab", bytearray(b"c"), memoryview(b"def"), Slice(b"gh", b"i"), Slice()]
    assert parts_size(parts) == 9
    assert parts_size([]) == 0


def test_gathering_reads_the_slices_and_copies_nothing():
    large = memoryview(bytearray(100))
    gathered = gather([b"a", Slice(b"b", large), large, Slice()])
    assert gathered == [b"a", b"b", large, large]
    assert gathered[2] is large


def test_a_slice_is_known_by_its_methods():
    assert isinstance(Slice(), LogSlice)
    assert not isinstance(b"", LogSlice)
