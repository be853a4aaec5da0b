"""Kill an apply at every failpoint, recover in another process, and say what was found; one JSON line a case.

Run as a program: ``killed_applies.py DIRECTORY [--no-renameat2] [--exchange|--compared]``. It forks before it uses any thread, so that a
child is cheap.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from instep.errors import InstepError
from instep.model.definition import Definition
from instep.model.statrow import StatRow
from instep.tree.archive.archive import Archive
from instep.tree.journal.journal import Compare
from instep.tree.journal.plan import object_key
from instep.tree.root import beneath, failpoints
from instep.tree.root.beneath import RenameUnsupportedError
from instep.tree.stage.next_tree import Exchange
from instep.tree.stage.stages import clear_stages
from instep.tree.switch import switch as switching
from instep.tree.switch.linger import lingering
from instep.tree.switch.recover import RecoveredKind, recover
from instep.tree.switch.rows import stat_rows
from instep.tree.switch.switch import finish, switch
from tests.support.apply_world import START_NS, Dir, File, Link, Tree, World, digest, expected, seen

OLD: Tree = {
    b"a/same": b"same",
    b"a/changed": b"old",
    b"a/removed": b"removed",
    b"a/old name": b"under another name",
    b"becomes-dir": b"file",
    b"becomes-file/x": b"x",
    b"gone/one": b"1",
    b"gone/two": b"2",
    b"half/cache.tmp": b"never carried",
    b"half/data": b"data",
    b"link": Link(b"a/same"),
    b"moved/p": b"p",
    b"moved/q/r": b"r",
    b"mode": Dir(0o700),
    b"touched": File(b"t" * 100_000),
}
NEW: Tree = {
    b"a/same": b"same",
    b"a/changed": b"new",
    b"a/added": b"added",
    b"a/new name": b"under another name",
    b"becomes-dir/in": b"in",
    b"becomes-file": b"now a file",
    b"fresh/deep/er": b"fresh",
    b"fresh/two": b"two",
    b"large": b"L" * 1_200_000,
    b"link": Link(b"a/changed"),
    b"renamed/p": b"p",
    b"renamed/q/r": b"r",
    b"mode": Dir(0o755, START_NS + 5),
    b"touched": File(b"t" * 100_000, 0o600),
}
IGNORED = b"half/cache.tmp"
DEFINITION = Definition(ignore=("*.tmp",))
HITS = (1, 2, 5)
LATE = "late"
COMPARED = "--compared" in sys.argv
EDITED = b"edited after it was staged"
"""Of ``a/removed``, which a compared switch then leaves as it is."""
OUTDATED = (b"a/removed", b"half")
"""``half`` holds an ignored file, so it is not removed as one."""


def old_tree() -> Tree:
    return {path: what for path, what in OLD.items() if path != IGNORED}


def prepare(at: Path) -> World:
    world = World.make(at, DEFINITION)
    if "--exchange" in sys.argv:
        world.exchange = Exchange(carry=(IGNORED,))
    world.apply(old_tree())
    (world.root / "half" / "cache.tmp").write_bytes(b"never carried")
    return world


def second(at: Path, world: World, spec: str) -> None:
    target = world.generation(NEW)
    path = b"touched"
    found = (world.root / "touched").lstat()
    times = (found.st_ctime_ns, found.st_mtime_ns)
    row = StatRow(path, found.st_ino, found.st_dev, *times, found.st_size, digest(b"t" * 100_000), b"", 0)
    rows = {path: row}
    if spec:
        failpoints.arm_from_text(spec)
    compare = Compare.EACH if COMPARED else Compare.NOTHING
    journal = world.stage(target, now_ns=START_NS + 9, live_row=rows.get, compare=compare)
    if COMPARED:
        (world.root / "a" / "removed").write_bytes(EDITED)
    if world.exchange is not None:
        switching.prepare(world.place, journal, local=world.local)
        (world.root / LATE).write_bytes(b"after the next tree was built")
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=9)
    list(stat_rows(world.place, switched.journal))
    finish(world.place, switched.journal)
    world.live = target
    world.end_linger()


def wanted(world: World, tree: Tree) -> dict[str, tuple[object, ...]]:
    """``half`` holds an ignored file: it stays, and its time is whatever that file's arrival made it."""
    found = expected(tree, world.contents)
    if COMPARED:
        found = {path: (*what[:2], -1) if what[0] == "dir" else what for path, what in found.items()}
        found["half/data"] = ("file", "0o644", START_NS, OLD[b"half/data"])
        found["a/removed"] = ("file", "edited")
    found["half"] = ("dir", "0o755", -1)
    found["half/cache.tmp"] = ("file", "ignored")
    return found


def observed(world: World) -> dict[str, tuple[object, ...]]:
    found = seen(world.root)
    found.pop(LATE, None)
    if "half/cache.tmp" in found:
        found["half/cache.tmp"] = ("file", "ignored")
    if "half" in found:
        found["half"] = (*found["half"][:2], -1)
    if COMPARED:
        found = {path: (*what[:2], -1) if what[0] == "dir" else what for path, what in found.items()}
        if found["a/removed"][-1] in (EDITED, OLD[b"a/removed"]):
            found["a/removed"] = ("file", "edited")
    return found


def torn(world: World) -> list[str]:
    """Paths that both generations have as a file, and that are missing or neither of the two (P2)."""
    found = seen(world.root)
    old, new = expected(old_tree(), world.contents), expected(NEW, world.contents)
    return [
        path
        for path in old.keys() & new.keys()
        if old[path][0] != "dir"
        and not (COMPARED and path == "a/removed")
        and new[path][0] != "dir"
        and (path not in found or found[path][-1] not in (old[path][-1], new[path][-1]))
    ]


def case(at: Path, spec: str) -> dict[str, object]:
    world = prepare(at)
    first_target = world.live
    pid = os.fork()
    if pid == 0:
        try:
            second(at, world, spec)
        except BaseException:  # noqa: BLE001  a child ends here, whatever it met
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not killed:
        return {"spec": spec, "killed": False, "status": status}
    pid = os.fork()
    result = at / "result.json"
    if pid == 0:
        try:
            result.write_text(json.dumps(after(at, world, first_target, spec)))
        except BaseException:  # noqa: BLE001  a child ends here, whatever it met
            result.write_text(json.dumps({"spec": spec, "killed": True, "error": traceback.format_exc()}))
        os._exit(0)
    os.waitpid(pid, 0)
    return dict(json.loads(result.read_text()))


def after(at: Path, world: World, first: object, spec: str) -> dict[str, object]:
    world.generation(NEW)
    world.number -= 1
    broken = torn(world)
    recovered = recover(world.place, local=world.local, get_page=world.page, now_ms=10)
    is_new = (
        recovered.kind is RecoveredKind.FINISHED
        and recovered.target is not None
        and recovered.target.number == 2
    )
    if COMPARED and recovered.journal is not None:
        assert recovered.journal.outdated == frozenset(map(object_key, OUTDATED)), "another answer"
    if recovered.journal is not None:
        list(stat_rows(world.place, recovered.journal))
        finish(world.place, recovered.journal)
    world.end_linger()
    exact = observed(world) == wanted(world, NEW if is_new else old_tree())
    if not is_new and observed(world) == wanted(world, NEW):
        # The journal was removed, which the node does last: everything had been recorded.
        is_new = exact = True
    if is_new:
        world.number += 1
        world.live = recovered.target
    else:
        second(at, world, "")
        assert observed(world) == wanted(world, NEW), "the second attempt did not arrive"
    clear_stages(world.place)
    left = [str(p) for p in world.place.stage.iterdir()]
    kept = {}
    if world.exchange is not None and not is_kept(world, at):
        kept[LATE] = "is neither in the tree nor in the archive"
    for path in (
        b"a/changed",
        b"a/removed",
        b"a/old name",
        b"gone/one",
        b"becomes-file/x",
        b"becomes-dir",
        b"half/data",
    ):
        if COMPARED and path in (b"a/removed", b"half/data"):
            continue  # they are in the tree
        try:
            where = Archive(world.place).restore(path, at / "restored", contents=world.of_tree)
        except InstepError as error:
            kept[path.decode()] = repr(error)
            continue
        data = OLD[path]
        if Path(os.fsdecode(where)).read_bytes() != data:
            kept[path.decode()] = "differs"
        os.rename(where, where + b".seen")
    return {
        "spec": spec,
        "killed": True,
        "kind": recovered.kind.value,
        "exact": exact,
        "torn": broken,
        "left": left,
        "not_kept": kept,
        "journal_left": world.place.journal.exists(),
        "trees_left": [name.decode() for name in lingering(world.place)],
    }


def is_kept(world: World, at: Path) -> bool:
    """Whether a file that came between the building of the next tree and the exchange is there, or archived."""
    with contextlib.suppress(InstepError):
        Archive(world.place).restore(LATE.encode(), at / "restored")
    return (world.root / LATE).exists() or (at / "restored" / LATE).exists()


def without_renameat2() -> None:
    """Make this process one of a kernel or file system that knows neither exchange nor rename without replacement."""

    def refuse(*_: object) -> None:
        raise RenameUnsupportedError(errno.ENOSYS, "renameat2 is off")

    vars(beneath).update(rename_exchange=refuse, rename_noreplace=refuse)


def main(base: Path) -> None:
    names = [name for name in failpoints.registered() if name.split(".")[0] in PREFIXES]
    for name in names:
        for hit in HITS:
            at = base / f"{name}-{hit}"
            at.mkdir()
            outcome = case(at, f"{name}:{hit}")
            sys.stdout.write(json.dumps(outcome) + "\n")
            if not outcome["killed"]:
                break


PREFIXES = (
    "stage",
    "journal",
    "switch",
    "renames",
    "archive",
    "compared",
    *(("exchange",) if "--exchange" in sys.argv else ()),
)

if __name__ == "__main__":
    begun = time.monotonic()
    if "--no-renameat2" in sys.argv:
        without_renameat2()
    main(Path(sys.argv[1]))
    sys.stderr.write(f"{time.monotonic() - begun:.1f} s\n")
