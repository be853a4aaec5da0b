"""The jobs of a daemon of root's in a tree while its enemy of ``adversary.py`` swaps names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from instep.errors import InstepError
from instep.model.ids import FilesetName, NodeName
from instep.tree.archive.archive import Archive
from instep.tree.objects.abilities import probe_filesystem
from instep.tree.root.failpoints import arm, disarm_all
from instep.tree.root.marker import create_marker, remove_marker
from instep.tree.root.place import Place, prepare_place, resolve_place
from instep.tree.scan.scan import scan
from instep.tree.stage.next_tree import Exchange
from instep.tree.stage.stages import clear_stages
from instep.tree.switch.recover import put_back, recover
from instep.tree.switch.switch import finish, switch
from tests.support.adversary_ground import FIRST, SECOND, STRANGER, Ground
from tests.support.apply_world import START_NS, World

Act = Callable[[], object]
Scenario = Callable[[Ground], Act]


def _settled(ground: Ground) -> World:
    world = ground.world
    world.apply(FIRST)
    (world.root / "half" / "cache.tmp").write_bytes(b"ignored")
    return world


def _apply(ground: Ground) -> Act:
    world = _settled(ground)
    target = world.generation(SECOND)

    def act() -> None:
        journal = world.stage(target, live_row=None)
        switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=7)
        finish(world.place, switched.journal)

    return act


def _undo(ground: Ground) -> Act:
    """The disk fails in the middle of a switch, which is taken back."""
    world = _settled(ground)
    journal = world.stage(world.generation(SECOND))

    def act() -> None:
        arm("switch.step.before:9", "eio")
        try:
            switch(world.place, journal, local=world.local, get_page=world.page, now_ms=7)
        finally:
            disarm_all()
            recover(world.place, local=world.local, get_page=world.page, now_ms=8)

    return act


def _revert(ground: Ground) -> Act:
    """The tree drifted in modes; it is put right against what it holds."""
    world = _settled(ground)
    for name in ("dir", "moved", "closed", "gone"):
        (world.root / name).chmod(0o4511)
    world.live = None

    def act() -> None:
        journal = world.stage(world.generation(FIRST))
        switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=7)
        finish(world.place, switched.journal)

    return act


def _exchange(ground: Ground) -> Act:
    world = ground.world
    world.apply(FIRST)
    world.exchange = Exchange()
    return lambda: world.apply(SECOND)


def _recover(ground: Ground) -> Act:
    """A switch that was sealed and begun is finished by a restart."""
    world = _settled(ground)
    journal = world.stage(world.generation(SECOND))
    os.rename(world.place.control / os.fsdecode(journal.name), world.place.journal)
    return lambda: recover(world.place, local=world.local, get_page=world.page, now_ms=8)


def _put_back(ground: Ground) -> Act:
    world = _settled(ground)
    before = world.live
    world.apply(SECOND)
    assert before is not None
    assert world.live is not None
    after = world.live

    def act() -> None:
        put_back(world.place, before, after, world.page, world.definition, local=world.local, now_ns=START_NS)

    return act


def _restore(ground: Ground) -> Act:
    world = _settled(ground)
    (world.root / "gone/two/three").chmod(0o4755)
    world.apply(SECOND)
    to = ground.home / "to"
    to.mkdir()
    os.chown(to, STRANGER, STRANGER)

    def act() -> None:
        archive = Archive(world.place)
        for name in ("found/here", "other/place", "found/there"):
            for path in (b"gone", b"dir/a", b"dir/sub/x", b"closed/in"):
                with contextlib.suppress(InstepError, OSError):
                    archive.restore(path, to / name)

    return act


def _prune(ground: Ground) -> Act:
    world = _settled(ground)
    world.apply(SECOND)
    names = [batch.name for batch in Archive(world.place).batches()]

    def act() -> None:
        Archive(world.place).prune(names)
        clear_stages(world.place)

    return act


def _publish(ground: Ground) -> Act:
    world = _settled(ground)
    kept: list[bytes] = []

    def act() -> None:
        def keep(_: object, __: object, data: bytes) -> None:
            kept.append(bytes(data))

        found = scan(
            world.place,
            world.definition,
            lambda _: None,
            lambda *_: None,
            START_NS,
            local=world.local,
            deep=True,
        )
        for _ in found:
            pass

    return act


def _take(ground: Ground) -> Act:
    """A directory becomes a root, and is one no more."""
    _settled(ground)
    root, name = ground.home / "second", FilesetName("second")
    root.mkdir()

    def act() -> None:
        place = resolve_place(root, name)
        prepare_place(place)
        create_marker(root, name, NodeName("s1"))
        probe_filesystem(ground.home)
        other = Place(root, root / ".instep", name)
        with contextlib.suppress(InstepError, OSError):
            prepare_place(other)
        remove_marker(root, name, NodeName("s1"))

    return act


SCENARIOS: dict[str, Scenario] = {
    "apply": _apply,
    "undo": _undo,
    "revert": _revert,
    "exchange": _exchange,
    "recover": _recover,
    "put back": _put_back,
    "restore": _restore,
    "prune": _prune,
    "publish": _publish,
    "take": _take,
}
