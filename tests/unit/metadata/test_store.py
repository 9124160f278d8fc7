"""The contract of a metadata store, the same for every implementation."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from kbroker.common.offload import InlineOffload
from kbroker.metadata.memory_store import MemoryStore
from kbroker.metadata.sqlite_store import SqliteStore
from kbroker.metadata.store import (
    Batch,
    Compacted,
    CreateRevision,
    Delete,
    DeletePrefix,
    Entry,
    MetadataStore,
    ModRevision,
    Put,
    ValueIs,
    absent,
)
from kbroker.metadata.watch_history import WatchHistory

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MetadataStore]:
    made: MetadataStore
    if request.param == "memory":
        made = MemoryStore()
    else:
        made = await SqliteStore.open(str(tmp_path / "metadata.db"), InlineOffload())
    yield made
    await made.close()


async def everything(store: MetadataStore, prefix: bytes = b"") -> list[Entry]:
    _, entries = await store.list(prefix)
    return [entry async for entry in entries]


async def value_of(store: MetadataStore, key: bytes) -> bytes | None:
    return next((e.value for e in await everything(store, key) if e.key == key), None)


async def first_batches(store: MetadataStore, prefix: bytes, start: int, count: int) -> list[Batch]:
    found: list[Batch] = []
    async for batch in store.watch(prefix, start):
        found.append(batch)
        if len(found) == count:
            break
    return found


async def test_a_put_counts_revisions_and_versions(store: MetadataStore) -> None:
    first = await store.txn([], [Put(b"a", b"1")])
    second = await store.txn([], [Put(b"a", b"2"), Put(b"b", b"x")])
    assert first.succeeded
    assert second == (True, first.revision + 1)
    assert await everything(store) == [
        Entry(b"a", b"2", first.revision, second.revision, 2),
        Entry(b"b", b"x", second.revision, second.revision, 1),
    ]


async def test_a_key_made_again_starts_anew(store: MetadataStore) -> None:
    await store.txn([], [Put(b"a", b"1")])
    await store.txn([], [Put(b"a", b"2")])
    await store.txn([], [Delete(b"a")])
    again = await store.txn([], [Put(b"a", b"3")])
    assert await everything(store) == [Entry(b"a", b"3", again.revision, again.revision, 1)]


async def test_conditions(store: MetadataStore) -> None:
    made = (await store.txn([], [Put(b"a", b"1")])).revision
    changed = (await store.txn([], [Put(b"a", b"2")])).revision
    for holds, condition in (
        (True, CreateRevision(b"a", made)),
        (False, CreateRevision(b"a", changed)),
        (True, ModRevision(b"a", changed)),
        (False, ModRevision(b"a", made)),
        (True, ValueIs(b"a", b"2")),
        (False, ValueIs(b"a", b"1")),
        (False, absent(b"a")),
        (True, absent(b"b")),
        (True, ModRevision(b"b", 0)),
        (False, ValueIs(b"b", b"")),
    ):
        result = await store.txn([condition], [])
        assert result.succeeded is holds, condition
        assert result.revision == changed  # nothing was changed, so there is no new revision


async def test_all_conditions_must_hold_or_the_other_branch_is_done(store: MetadataStore) -> None:
    await store.txn([], [Put(b"a", b"1")])
    result = await store.txn(
        [absent(b"b"), absent(b"a")], [Put(b"then", b"")], [Put(b"else", b""), Delete(b"a")]
    )
    assert not result.succeeded
    assert [entry.key for entry in await everything(store)] == [b"else"]


async def test_a_key_changed_twice_is_refused_and_nothing_is_done(store: MetadataStore) -> None:
    with pytest.raises(ValueError, match="twice"):
        await store.txn([], [Put(b"a", b"1"), Put(b"a", b"2")])
    with pytest.raises(ValueError, match="twice"):
        await store.txn([], [Put(b"pp", b"1"), DeletePrefix(b"p")])
    assert await everything(store) == []
    assert (await store.txn([], [Put(b"a", b"1")])).succeeded


@pytest.mark.parametrize("prefix", [b"p/", b"p\xff", b"\xff\xff", b""])
async def test_a_prefix_is_listed_and_deleted_as_one(store: MetadataStore, prefix: bytes) -> None:
    inside = sorted(prefix + tail for tail in (b"1", b"2", b"\xff", b"\x00"))
    outside = [key for key in (b"o", b"p.", b"q", b"\xfe") if not key.startswith(prefix)]
    await store.txn([], [Put(key, b"v") for key in (*inside, *outside)])
    assert [entry.key for entry in await everything(store, prefix)] == inside
    await store.txn([], [DeletePrefix(prefix)])
    assert [entry.key for entry in await everything(store)] == sorted(outside)


async def test_a_list_is_of_one_revision(store: MetadataStore) -> None:
    await store.txn([], [Put(b"a", b"1"), Put(b"b", b"1")])
    revision, entries = await store.list(b"")
    first = await anext(entries)
    await store.txn([], [Put(b"b", b"2")])
    second = await anext(entries)
    assert (first.value, second.value) == (b"1", b"1")
    with pytest.raises(Compacted):
        await store.list(b"", rev=revision)


async def test_watch_sees_whole_revisions_in_order(store: MetadataStore) -> None:
    start = (await store.txn([], [Put(b"before", b"")])).revision + 1
    await store.txn([], [Put(b"p/a", b"1"), Put(b"other", b""), Put(b"p/b", b"1")])
    await store.txn([], [Put(b"other", b"2")])
    await store.txn([], [DeletePrefix(b"p/")])
    batches = await first_batches(store, b"p/", start, 2)
    assert [batch.revision for batch in batches] == [start, start + 2]
    made, removed = batches
    assert [event.key for event in made.events] == [b"p/a", b"p/b"]
    assert [event.entry for event in removed.events] == [None, None]
    assert made.events[0].entry == Entry(b"p/a", b"1", start, start, 1)


async def test_watch_waits_for_what_comes(store: MetadataStore) -> None:
    revision, _ = await store.list(b"")
    seen: list[Batch] = []

    async def follow() -> None:
        seen.extend(await first_batches(store, b"", revision + 1, 3))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            for number in range(3):
                await store.txn([], [Put(b"a", b"%d" % number)])
    assert [batch.revision for batch in seen] == [revision + 1, revision + 2, revision + 3] * 2


async def test_a_watcher_that_lags_too_far_is_told(
    store: MetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision, _ = await store.list(b"")
    monkeypatch.setattr(store, "_history", WatchHistory(revision, limit=2))
    for number in range(3):
        await store.txn([], [Put(b"a", b"%d" % number)])
    with pytest.raises(Compacted) as told:
        await first_batches(store, b"", revision + 1, 1)
    assert told.value.revision == revision + 2
    batches = await first_batches(store, b"", revision + 2, 2)
    assert [batch.revision for batch in batches] == [revision + 2, revision + 3]


async def test_keys_vanish_with_their_session(store: MetadataStore) -> None:
    session = await store.session(9.0)
    other = await store.session(9.0)
    assert session.id not in (0, other.id)
    await store.txn([], [Put(b"mine", b"", session.id), Put(b"moved", b"", session.id)])
    await store.txn([], [Put(b"moved", b"", other.id), Put(b"free", b"")])
    start = (await store.list(b""))[0] + 1
    assert session.valid()
    await session.close()
    await session.close()
    assert not session.valid()
    with anyio.fail_after(1):
        await session.wait_lost()
    assert [entry.key for entry in await everything(store)] == [b"free", b"moved"]
    (batch,) = await first_batches(store, b"", start, 1)
    assert [(event.key, event.entry) for event in batch.events] == [(b"mine", None)]
    await other.close()
    assert [entry.key for entry in await everything(store)] == [b"free"]


async def test_one_of_many_wins_a_key(store: MetadataStore) -> None:
    winners: list[int] = []

    async def compete(number: int) -> None:
        result = await store.txn([absent(b"k")], [Put(b"k", b"%d" % number)])
        if result.succeeded:
            winners.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(compete, number)
    assert len(winners) == 1
    assert await value_of(store, b"k") == b"%d" % winners[0]


async def test_counters_incremented_by_many_lose_nothing(store: MetadataStore) -> None:
    async def increment() -> None:
        while True:
            found = await everything(store, b"n")
            number, seen = (int(found[0].value), found[0].mod_revision) if found else (0, 0)
            put = Put(b"n", b"%d" % (number + 1))
            if (await store.txn([ModRevision(b"n", seen)], [put])).succeeded:
                return

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(increment)
    assert await value_of(store, b"n") == b"8"


async def test_a_cancelled_caller_leaves_the_store_usable(store: MetadataStore) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.txn([], [Put(b"a", b"1")])
    result = await store.txn([], [Put(b"b", b"1")])
    assert result.succeeded
    assert await value_of(store, b"b") == b"1"
    batches = await first_batches(store, b"b", result.revision, 1)
    assert batches[0].revision == result.revision
