"""The guard on deletions over a window (P10): the real machine and the real survey on real files."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from random import Random

import msgspec
import pytest

from instep.core.guards.guards import DeletionPolicy
from instep.core.guards.losses import WINDOW_MS
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as p
from instep.core.publish.machine import PublishMachine
from instep.model.definition import Definition
from instep.model.ids import Digest, FilesetName, HeadRef, LineId, NodeName
from instep.node.trees.scanning.writer_scan import WriterScan
from instep.store.memory import MemoryStore
from instep.tree.root.marker import create_marker
from instep.tree.root.place import Place

FILESET = FilesetName("data")
MAIN = NodeName("main")


class _Writer:
    """One line by hand: no driver, no daemon, a clock that the test moves."""

    def __init__(
        self, tmp_path: Path, policy: DeletionPolicy | None = None, ignore: tuple[str, ...] = ()
    ) -> None:
        self.root = tmp_path / "root"
        self.root.mkdir()
        self.marker = create_marker(self.root, FILESET, MAIN)
        self.place = Place(self.root, tmp_path / "control", FILESET)
        self.store = MemoryStore()
        self.wall_ms = self.root.stat().st_mtime_ns // 1_000_000 + 10_000
        self.config = p.PublishConfig(MAIN, p.PublishMode.MANUAL, deletions=policy or DeletionPolicy())
        self.definition = Definition(ignore=ignore)
        self.saved = b""
        self.begin(None)

    def begin(self, facts: p.PublishFacts | None) -> None:
        self.machine = PublishMachine(LineId(FILESET, MAIN), self.config, Random(1), facts)
        for effect in self.machine.step(p.Started(), 0):
            if isinstance(effect, s.Recover):
                self.machine.step(s.TreeRecovered(effect.req), 0)

    def restart(self) -> None:
        self.begin(msgspec.msgpack.decode(self.saved, type=p.PublishFacts))

    def publish(self, *, accept: bool = False) -> p.Outcome:
        pending = list(self.machine.step(p.PublishAsked(1, accept_deletions=accept, is_full=True), 0))
        while pending:
            match pending.pop(0):
                case p.Scan() as effect:
                    survey = WriterScan(
                        self.place,
                        FILESET,
                        self.definition,
                        lambda: self.marker,
                        lambda *_: None,
                        since=effect.since,
                    )
                    base = None if effect.base is None else effect.base.root
                    summary = survey.everything(self.store, base, self.wall_ms, deep=False).summary
                    pending += self.machine.step(p.TreeScanned(effect.req, summary), 0)
                case p.Commit() as effect:
                    head = HeadRef(effect.epoch, effect.number, Digest(effect.root[::-1]), effect.root)
                    pending += self.machine.step(p.Committed(effect.req, head), 0)
                    self.saved = msgspec.msgpack.encode(self.machine.facts)
                case p.GiveAnswer() as answer:
                    return answer.outcome
        raise AssertionError("no answer")

    def refused(self) -> dict[str, object]:
        outcome = self.publish()
        assert isinstance(outcome, p.NotPublished), outcome
        assert outcome.trouble.code == "max_deletions"
        return dict(outcome.trouble.facts)

    def fill(self, directory: str, numbers: Iterable[int], size: int = 5) -> None:
        (self.root / directory).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            (self.root / directory / f"f{number}").write_bytes(
                f"{directory}{number}".encode().ljust(size, b".")
            )

    def remove(self, directory: str, numbers: Iterable[int]) -> None:
        for number in numbers:
            (self.root / directory / f"f{number}").unlink()


def _is_out(outcome: p.Outcome) -> bool:
    return isinstance(outcome, p.Published)


def test_an_emptied_tree_is_asked_about_however_small_it_is(tmp_path: Path) -> None:
    """Goal: the last paths are never removed unasked, in one step or in several; contents under other names have
    moved, and one path alone is a person's right."""
    writer = _Writer(tmp_path)
    writer.fill("d", range(5))
    assert _is_out(writer.publish())
    (writer.root / "d").rename(writer.root / "e")
    assert _is_out(writer.publish())
    writer.remove("e", range(3))
    assert _is_out(writer.publish())
    shutil.rmtree(writer.root / "e")
    assert writer.refused()["removed"] == 3
    assert _is_out(writer.publish(accept=True))
    (writer.root / "alone").write_text("alone")
    assert _is_out(writer.publish())
    (writer.root / "alone").unlink()
    assert _is_out(writer.publish())


@pytest.mark.parametrize("restarts", [False, True], ids=["one life", "restarted in between"])
def test_losses_add_up_over_ten_minutes(tmp_path: Path, restarts: bool) -> None:
    """Goal: losses in two steps within ten minutes count as one loss, also across a restart, and although
    other files came meanwhile; after ten minutes, and after an operator accepted them, they count no more."""
    writer = _Writer(tmp_path)
    writer.fill("kept", range(20))
    writer.fill("d", range(79))
    assert _is_out(writer.publish())
    writer.remove("d", range(37))
    assert _is_out(writer.publish())
    writer.fill("new", range(37))
    assert _is_out(writer.publish())
    writer.remove("d", range(37, 74))
    writer.wall_ms += WINDOW_MS // 2
    if restarts:
        writer.restart()
    assert writer.refused() == {"allowed": 50, "entries": 101, "removed": 74, "within_ms": WINDOW_MS}
    writer.wall_ms += WINDOW_MS // 2
    assert _is_out(writer.publish()), "37 of 101 alone"
    writer.remove("new", range(19))
    writer.refused()
    assert _is_out(writer.publish(accept=True))
    writer.remove("kept", range(15))
    assert _is_out(writer.publish()), "an accepted loss does not count again"


def test_what_comes_back_or_moves_is_no_loss(tmp_path: Path) -> None:
    """Goal: a build that is thrown away and made anew, three times within ten minutes, and a renamed top directory."""
    writer = _Writer(tmp_path)
    writer.fill("src", range(30))
    writer.fill("build", range(40))
    assert _is_out(writer.publish())
    for _ in range(3):
        writer.remove("build", range(35))
        assert _is_out(writer.publish())
        writer.fill("build", range(35))
        assert _is_out(writer.publish())
    (writer.root / "build").rename(writer.root / "built")
    assert _is_out(writer.publish())


def test_git_and_ignored_paths_count_for_nothing(tmp_path: Path) -> None:
    """Goal: a repository of 3,000 objects neither hides the loss of the pages nor is a loss itself."""
    writer = _Writer(tmp_path)
    writer.fill("pages/.git/objects", range(300))
    writer.fill("pages", range(60))
    writer.fill("rest", range(10))
    assert _is_out(writer.publish())
    writer.remove("pages/.git/objects", range(300))
    assert _is_out(writer.publish()), "git packs its objects"
    writer.fill("pages/.git/objects", range(300))
    assert _is_out(writer.publish())
    writer.remove("pages", range(45))
    assert writer.refused() == {"allowed": 36, "entries": 72, "removed": 45}
    writer.fill("pages", range(45))
    writer.definition = Definition(ignore=("pages/f*",))
    outcome = writer.publish()
    assert isinstance(outcome, p.Published | p.Unchanged), "released, not removed"


def test_a_top_directory_that_empties_is_a_mass_deletion(tmp_path: Path) -> None:
    """Goal: 20 of 520 paths pass, unless they are all that a top directory had; an exact number overrules."""
    writer = _Writer(tmp_path)
    writer.fill("big/a", range(500))
    writer.fill("small", range(20))
    assert _is_out(writer.publish())
    writer.remove("small", range(10))
    assert _is_out(writer.publish())
    shutil.rmtree(writer.root / "small")
    assert writer.refused() == {"directory": "small", "limit": 20, "removed": 20, "within_ms": WINDOW_MS}
    writer.config = p.PublishConfig(MAIN, p.PublishMode.MANUAL, deletions=DeletionPolicy(count=100))
    writer.restart()
    assert _is_out(writer.publish())


def test_bytes_count_as_paths_do(tmp_path: Path) -> None:
    """Goal: few paths with most of the bytes are a mass deletion, unless as many bytes came; a single file is not."""
    writer = _Writer(tmp_path)
    writer.fill("small", range(100))
    writer.fill("data", range(4), size=1 << 20)
    assert _is_out(writer.publish())
    writer.remove("data", [0])
    assert _is_out(writer.publish())
    writer.remove("data", [1, 2])
    facts = writer.refused()
    assert facts["removed_bytes"] == 2 << 20
    writer.fill("data", [7, 8, 9], size=1 << 20)
    assert _is_out(writer.publish()), "replaced under other names"


def test_the_rest_of_a_stopped_deletion_asks_too_while_files_come_back(tmp_path: Path) -> None:
    """Goal: an operator who copies files back after the guard stopped a mass deletion does not see the rest removed
    once few enough are missing, also across a restart; all back, and it goes on by itself; or an operator accepts
    it."""
    writer = _Writer(tmp_path)
    writer.fill("d", range(100))
    assert _is_out(writer.publish())
    writer.remove("d", range(90))
    writer.refused()
    writer.fill("d", range(80))
    writer.saved = msgspec.msgpack.encode(writer.machine.facts)
    writer.restart()
    assert writer.refused()["removed"] == 10, "few, but the rest of many"
    writer.fill("new", range(1))
    assert writer.refused()["removed"] == 10
    writer.fill("d", range(80, 90))
    assert _is_out(writer.publish()), "all of it is back"
    writer.remove("d", range(10))
    assert _is_out(writer.publish()), "and a small deletion is one again"
    writer.remove("d", range(10, 80))
    writer.refused()
    writer.fill("d", range(10, 70))
    writer.refused()
    assert _is_out(writer.publish(accept=True))
