"""Compare and set against a program that saves the same file as fast as it can: no save is overwritten unseen."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from instep.model.ids import Digest, HeadRef
from instep.model.manifest.manifest import edit
from instep.tree.archive.archive import Archive
from instep.tree.journal.journal import Compare, Why
from instep.tree.journal.plan import object_key
from instep.tree.root.beneath import Root
from instep.tree.scan.whole_object import read_object
from instep.tree.switch.switch import finish, switch
from tests.support.apply_world import START_NS, File, World, digest, entries

ROUNDS = 60
PATH = b"file"


class Editor:
    """Saves whole files by rename until it is ended, each with other bytes."""

    def __init__(self, root: Path) -> None:
        self.path = root / "file"
        self.saved = 0
        self._ended = threading.Event()
        self._go_on = threading.Event()
        self._thread = threading.Thread(target=self._edit)

    def __enter__(self) -> Editor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._go_on.set()
        self._thread.join()

    def some(self) -> None:
        """Let it save for a while from now on."""
        self._go_on.set()

    def _edit(self) -> None:
        while not self._ended.is_set():
            self._go_on.wait()
            self._go_on.clear()
            for _ in range(3):
                self.saved += 1
                new = self.path.with_name("saved.tmp")
                new.write_bytes(b"saved %d" % self.saved)
                new.rename(self.path)


def test_a_change_displaces_its_base_and_nothing_else(tmp_path: Path) -> None:
    """Goal: each taken change displaced exactly the object that its base says, bit by bit; each other one left the
    path alone. Method: an editor saves by rename while changes are staged and switched, again and again."""
    world = World.make(tmp_path)
    world.apply({PATH: b"saved 0"})
    taken: list[bytes] = []
    with Editor(world.root) as editor:
        for number in range(ROUNDS):
            if number % 3:
                editor.some()
            with Root(world.root) as root:
                base = read_object(root, PATH, PATH, world.local)
            assert base is not None
            mine = b"change %d" % number
            world.contents[digest(mine)] = mine
            assert world.live is not None

            def put(page: Digest, raw: bytes) -> None:
                world.pages[page] = raw

            found = edit(world.live.root, [(PATH, base)], world.page, put)
            (new,) = entries({PATH: File(mine, mtime_ns=START_NS + number)})
            target = HeadRef(1, 1, digest(b"set %d" % number), edit(found, [(PATH, new)], world.page, put))
            before = world.live
            world.live = HeadRef(1, 1, before.id, found)
            journal = world.stage(target, now_ns=START_NS + number * 1_000_000, compare=Compare.EACH)
            done = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=number).journal
            world.live = before
            finish(world.place, done)
            if object_key(PATH) not in done.outdated:
                taken.append(bytes(base.digest))
            elif os.path.exists(world.root / "file"):
                assert (world.root / "file").read_bytes() != mine
        assert editor.saved > ROUNDS
    items = [item for item in Archive(world.place).list_items() if item.why is Why.REPLACED]
    displaced = [
        digest((world.place.archive / item.batch / "o" / os.fsdecode(item.object)).read_bytes())
        for item in items
    ]
    assert displaced == taken
    assert 0 < len(taken) < ROUNDS, "neither side always won"
    assert len(list(Archive(world.place).list_items())) - len(items) < ROUNDS // 10
