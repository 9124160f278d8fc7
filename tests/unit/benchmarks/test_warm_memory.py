import io

from benchmarks import warm_memory


def test_more_than_a_run_writes_is_touched_and_nothing_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr(warm_memory, "_BESIDES", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert warm_memory.touch(3 * warm_memory.MIB) == 4 * warm_memory.MIB
    assert not list(tmp_path.iterdir())


def test_a_file_that_takes_less_than_it_was_given_is_written_on(monkeypatch):
    class Slow(io.BytesIO):
        def write(self, data):
            return super().write(data[:300_000])

    monkeypatch.setattr(warm_memory, "_BESIDES", 0)
    monkeypatch.setattr(warm_memory, "TemporaryFile", lambda **_: Slow())
    assert 900_000 <= warm_memory.touch(800_000) <= 1_200_000
