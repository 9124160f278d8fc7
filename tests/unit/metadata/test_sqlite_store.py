"""What is SQLite's own: durability across opening, dead sessions, files that are not ours."""

import sqlite3
from pathlib import Path

import pytest

from kbroker.common.offload import InlineOffload, ThreadOffload
from kbroker.metadata.sqlite_store import SqliteStore
from kbroker.metadata.store import Compacted, Entry, NotSent, Put, StoreError

pytestmark = pytest.mark.anyio


async def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    path = str(tmp_path / "metadata.db")
    store = await SqliteStore.open(path, ThreadOffload())
    await store.txn([], [Put(b"a", b"1")])
    last = await store.txn([], [Put(b"a", b"2")])
    await store.close()

    store = await SqliteStore.open(path, ThreadOffload())
    revision, entries = await store.list(b"")
    assert revision == last.revision
    assert [entry async for entry in entries] == [Entry(b"a", b"2", 1, 2, 2)]
    with pytest.raises(Compacted):  # history does not survive, and the store says so
        await anext(store.watch(b"", revision))
    assert (await store.txn([], [Put(b"b", b"")])).revision == revision + 1
    await store.close()


async def test_keys_of_a_dead_process_are_gone(tmp_path: Path) -> None:
    path = str(tmp_path / "metadata.db")
    dead = await SqliteStore.open(path, InlineOffload())
    session = await dead.session(9.0)
    last = await dead.txn([], [Put(b"leased", b"", session.id), Put(b"kept", b"")])
    await dead.close()  # without closing the session, as a killed process would

    store = await SqliteStore.open(path, InlineOffload())
    revision, entries = await store.list(b"")
    assert [entry.key async for entry in entries] == [b"kept"]
    assert revision == last.revision + 1
    await store.close()


async def test_it_commits_to_disk_before_it_answers(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    store = await SqliteStore.open(str(path), InlineOffload())
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await store.txn([], [Put(b"a", b"1")])
    other = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    assert other.execute("SELECT value FROM kv WHERE key = ?", (b"a",)).fetchone() == (b"1",)
    other.close()
    await store.close()


async def test_a_new_file_is_on_the_disk_and_not_only_its_log(tmp_path: Path) -> None:
    """Of an empty file SQLite throws the log away, and with it what was committed."""
    path = tmp_path / "metadata.db"
    store = await SqliteStore.open(str(path), InlineOffload())
    without_log = tmp_path / "copy.db"
    without_log.write_bytes(path.read_bytes())
    copy = sqlite3.connect(without_log)
    assert copy.execute("SELECT value FROM counter").fetchall() == [(0,)]
    copy.close()
    await store.close()


@pytest.mark.parametrize(
    ("puts", "synchronous"),
    [
        ([(b"leased", 1)], 1),  # NORMAL
        ([(b"kept", 0)], 2),  # FULL
        ([(b"leased", 1), (b"kept", 0)], 2),
    ],
)
async def test_only_keys_that_end_with_the_process_do_not_wait_for_the_disk(
    tmp_path: Path, puts: list[tuple[bytes, int]], synchronous: int
) -> None:
    store = await SqliteStore.open(str(tmp_path / "metadata.db"), InlineOffload())
    await store.txn([], [Put(key, b"", session) for key, session in puts])
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
    await store.end_session(1)  # takes what was not synced before with it
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    await store.close()


async def test_files_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"this is no database, not at all " * 100)
    with pytest.raises(StoreError, match="cannot read"):
        await SqliteStore.open(str(junk), InlineOffload())

    foreign = tmp_path / "foreign.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE somebody (elses INTEGER)")
    connection.close()
    with pytest.raises(StoreError, match="not a metadata store"):
        await SqliteStore.open(str(foreign), InlineOffload())

    newer = tmp_path / "newer.db"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer"):
        await SqliteStore.open(str(newer), InlineOffload())

    with pytest.raises(StoreError, match="cannot open"):
        await SqliteStore.open(str(tmp_path / "no" / "such" / "folder.db"), InlineOffload())


async def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    store = await SqliteStore.open(str(tmp_path / "metadata.db"), InlineOffload())
    revision, _ = await store.list(b"")
    with pytest.raises(NotSent):
        await store.txn([], [Put(b"a", b"1"), Put(b"b", object())])  # type: ignore[arg-type]
    assert (await store.list(b""))[0] == revision
    assert (await store.txn([], [Put(b"c", b"1")])).revision == revision + 1
    _, entries = await store.list(b"")
    assert [entry.key async for entry in entries] == [b"c"]
    await store.close()


async def test_a_full_disk_refuses_changes_and_is_used_again_when_there_is_room(
    tmp_path: Path,
) -> None:
    store = await SqliteStore.open(str(tmp_path / "metadata.db"), InlineOffload())
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    before = await store.txn([], [Put(b"small", b"1")])
    for _ in range(2):
        with pytest.raises(NotSent, match="full"):
            await store.txn([], [Put(b"other", b""), Put(b"large", bytes(100_000))])
    assert (await store.list(b""))[0] == before.revision
    store._connection.execute("PRAGMA max_page_count = 100000")
    after = await store.txn([], [Put(b"large", bytes(100_000))])
    assert after.revision == before.revision + 1
    batch = await anext(store.watch(b"", after.revision))
    assert [event.key for event in batch.events] == [b"large"]
    await store.close()


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = await SqliteStore.open(str(tmp_path / "metadata.db"), InlineOffload())
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.txn([], [Put(b"a", b"1")])
    with pytest.raises(StoreError, match="closed"):
        await store.list(b"")
