"""The workers of a run: each part of the input has one at a time, whatever happens to it."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers.kafka_tools import SHORT_LIVED
from tests.peers.process import ChildProcess
from tests.reliability.transactions_history import Accounts, events_of
from tests.reliability.transactions_worker import FENCED_STATUS, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.peers.kafka_tools import KafkaTools

    Launch = Callable[[WorkerSettings], list[str]]

TRANSACTION_TIMEOUT_MS = 30_000
STOP_TIMEOUT_S = 60
STALLED_AFTER_S = 15.0
"""A worker that is so long in one transaction hangs in its client, and is killed."""
FENCING_TIMEOUT_S = 5
"""By then a zombie that has input has asked the broker."""


def confluent_worker(settings: WorkerSettings) -> list[str]:
    """The command line of a worker with confluent-kafka."""
    return [sys.executable, "-m", "tests.reliability.transactions_worker", settings.as_json()]


def member_worker(protocol: str) -> Launch:
    """The same as members of a group, which shares the input among them."""
    return lambda settings: confluent_worker(replace(settings, protocol=protocol))


def java_worker(tools: KafkaTools) -> Launch:
    """Workers with Kafka's own clients."""
    source = str(Path(__file__).with_name("TransactionsWorker.java"))
    return lambda settings: tools.command(source, *settings.as_words(), flags=SHORT_LIVED)


class WorkerFailed(Exception):
    """A worker ended with what it should never meet."""


class Life:
    """One worker process and its journal."""

    def __init__(self, name: str, command: list[str], journal: Path, error_log: Path) -> None:
        self.name = name
        self.journal = journal
        self.process = ChildProcess(command, error_log=error_log, environment=None)

    def events(self) -> list[tuple[str, str]]:
        return events_of(self.journal)

    @property
    def is_ready(self) -> bool:
        return ("ready", self.name) in self.events()

    @property
    def is_stalled(self) -> bool:
        """In a transaction, and nothing has happened for long."""
        events = self.events()
        if not events or events[-1][0] != "begun":
            return False
        return time.time() - self.journal.stat().st_mtime > STALLED_AFTER_S

    @property
    def commits(self) -> int:
        return sum(event == "committed" for event, _ in self.events())

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


class Post:
    """A transactional id and the input partitions that belong to it."""

    def __init__(self, number: int, partitions: list[int]) -> None:
        self.number = number
        self.partitions = partitions
        self.lives: list[Life] = []

    @property
    def life(self) -> Life:
        return self.lives[-1]


class Crew:
    """``posts`` workers over the input's partitions."""

    def __init__(
        self,
        folder: Path,
        bootstrap: str,
        *,
        posts: int,
        topics: tuple[str, str],
        partitions: tuple[int, int],
        group: str,
        launch: Launch,
    ) -> None:
        """``topics`` and ``partitions``: of the input, of the output."""
        self._folder = folder
        self._launch = launch
        self._bootstrap = bootstrap
        self._topics = topics
        self._partitions = partitions
        self._group = group
        self._zombies: list[tuple[Life, int]] = []
        self.accounts = Accounts()
        self.fenced = 0
        self.stalled = 0
        self.posts = [Post(n, list(range(n, partitions[0], posts))) for n in range(posts)]
        folder.mkdir(parents=True, exist_ok=True)
        for post in self.posts:
            self._engage(post)

    def _engage(self, post: Post) -> None:
        name = f"worker-{post.number}.{len(post.lives)}"
        journal = self._folder / f"{name}.journal"
        settings = WorkerSettings(
            name=name,
            bootstrap=self._bootstrap,
            transactional_id=f"worker-{post.number}",
            group=self._group,
            input_topic=self._topics[0],
            input_partitions=post.partitions,
            output_topic=self._topics[1],
            output_partitions=self._partitions[1],
            timeout_ms=TRANSACTION_TIMEOUT_MS,
            journal=str(journal),
        )
        error_log = self._folder / f"{name}.stderr.log"
        post.lives.append(Life(name, self._launch(settings), journal, error_log))

    # -- what happens to them

    def kill(self, post: Post) -> None:
        """kill -9 and a successor."""
        post.life.process.kill()
        self._engage(post)

    def freeze(self, post: Post) -> Life:
        """The worker stops in the middle of whatever it does, and a successor takes its post."""
        frozen = post.life
        frozen.freeze()
        self._engage(post)
        return frozen

    def thaw(self, zombie: Life) -> None:
        """It believes that nothing has happened. Only after its successor was ready."""
        self._zombies.append((zombie, len(zombie.events())))
        zombie.thaw()

    def bury_zombies(self) -> None:
        """Wait until each has noticed that it is fenced; note what it committed instead."""
        for zombie, known in self._zombies:
            deadline = time.monotonic() + FENCING_TIMEOUT_S
            while zombie.process.exit_status is None and time.monotonic() < deadline:
                if self._commits_behind(zombie, known):
                    break
                time.sleep(0.02)
            if zombie.process.exit_status is None:  # idle, or goes on as if nothing were
                zombie.process.kill()
            status = zombie.process.wait(timeout_s=STOP_TIMEOUT_S)
            self.accounts.zombie_commits |= self._commits_behind(zombie, known)
            if status not in (FENCED_STATUS, -signal.SIGKILL):
                raise WorkerFailed(f"{zombie.name}: {status}\n{zombie.process.report()}")
        self._zombies.clear()

    @staticmethod
    def _commits_behind(zombie: Life, known: int) -> set[str]:
        """What it has begun and committed since its journal had ``known`` lines."""
        later = zombie.events()[known:]
        begun = {name for event, name in later if event == "begun"}
        return begun & {name for event, name in later if event == "committed"}

    # -- looking after them

    def look_after(self) -> None:
        """Take over the journals; whoever was fenced by a timeout, or hangs, gets a successor."""
        for post in self.posts:
            for life in post.lives:
                self.accounts.add(life.events())
            status = post.life.process.exit_status
            if status == FENCED_STATUS:
                self.fenced += 1
                self._engage(post)
            elif status is not None:
                raise WorkerFailed(f"{post.life.name}: {status}\n{post.life.process.report()}")
            elif post.life.is_stalled:
                self.stalled += 1
                self.kill(post)

    @property
    def commits(self) -> int:
        """By all that ever worked."""
        return len(self.accounts.committed)

    def look_after_journals(self) -> None:
        """Take over what the journals say now."""
        for post in self.posts:
            for life in post.lives:
                self.accounts.add(life.events())

    def kill_all(self) -> None:
        """Whatever is left."""
        for post in self.posts:
            for life in post.lives:
                if life.process.exit_status is None:
                    life.process.kill()


def wait_until(what: str, is_done: Callable[[], bool], timeout_s: float) -> None:
    """Poll ``is_done()``; TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {timeout_s} s")
        time.sleep(0.02)
