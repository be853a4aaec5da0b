"""Kill a layout move at every failpoint and at random moments, move again, and say what was found; a JSON line a case.

Run as a program: ``killed_moves.py DIRECTORY``. It forks before it uses any thread, so that a child is cheap.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from instep.node.layouts.moving import MoveRequest, Moving
from instep.node.recipes.layout_file import read_layout
from instep.node.recipes.shelf import PACKAGED
from instep.tree.root import failpoints

FILE = PACKAGED.with_name("layouts") / "deploy-server.toml"
LAYOUT = read_layout("deploy-server", FILE.read_text(), FILE)
ITEMS: dict[str, tuple[int, bytes | str]] = {
    "var/plugins/one/plugin.xml": (0o644, b"<plugin/>"),
    "var/plugins/two.jar": (0o640, os.urandom(300_000)),
    "var/plugins/again.jar": (0o640, "hard:var/plugins/two.jar"),
    "var/repository/deep/er/blob": (0o600, b"b" * 70_000),
    "logs/server.log": (0o644, b"started\n"),
    "logs/newest.log": (0o777, "server.log"),
    "conf/server/notification-templates/mail.vm": (0o644, b"Dear $user"),
    "conf/encryption.keystore": (0o600, b"\xfe\xed\xfe\xed"),
    "conf/server.keystore": (0o600, b"\xfe\xed"),
    "conf/collectors/c.xml": (0o644, b"<c/>"),
    "patches/fix.jar.off": (0o644, b"PK"),
}
"""Eight of the ten items: ``var/sa`` and ``conf/server/log4j.properties`` do not exist yet."""
STAYS = "conf/installed.version"
PROPERTIES = b"# kept\r\nserver.appdata.dir = /opt/old\r\n! kept too\r\nserver.url=https\\://x/\r\n"
MTIME_NS = 1_600_000_000_123_456_789
HITS = (1, 2, 7)
RANDOM_MOMENTS = 50


def make(at: Path) -> tuple[Path, Path]:
    source = at / "server"
    for name, (mode, what) in ITEMS.items():
        file = source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, bytes):
            file.write_bytes(what)
            file.chmod(mode)
            os.utime(file, ns=(MTIME_NS, MTIME_NS))
        elif what.startswith("hard:"):
            file.hardlink_to(source / what[5:])
        else:
            file.symlink_to(what)
            os.utime(file, ns=(MTIME_NS, MTIME_NS), follow_symlinks=False)
    (source / "conf/server/installed.properties").write_bytes(PROPERTIES)
    (source / STAYS).write_bytes(b"7.3.2")
    (source / "var/temp").mkdir()
    (source / "var/temp/not an item").write_bytes(b"stays")
    (source / "conf").chmod(0o750)
    return source, at / "shared"


def listing(top: Path) -> dict[str, list[object]]:
    """Every object: kind, mode, owner, and of files and links their bytes and time."""
    found: dict[str, list[object]] = {}
    for path in sorted(top.rglob("*")):
        about = path.lstat()
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = ["link", about.st_mtime_ns, os.readlink(path)]
        elif path.is_dir():
            found[name] = ["dir", about.st_mode & 0o7777]
        else:
            found[name] = ["file", about.st_mode & 0o7777, about.st_mtime_ns, path.read_bytes().hex()]
    return found


def wanted(source: Path) -> dict[str, list[object]]:
    """The destination's listing: the items, and the directories above them."""
    everything = listing(source)
    items = {*ITEMS, STAYS, "patches"}
    above = {str(parent) for name in items for parent in Path(name).parents} - {"."}
    return {name: what for name, what in everything.items() if name in items or name in above}


def pointed(dest: Path) -> bytes:
    return PROPERTIES.replace(b"/opt/old", os.fsencode(dest))


def move(source: Path, dest: Path, *, deletes: bool) -> dict[str, object]:
    return Moving(MoveRequest(LAYOUT, source, dest, deletes), lambda _: None).run()


def killed_child(source: Path, dest: Path, *, deletes: bool, spec: str, after_s: float) -> bool:
    """Whether the move was killed before its end."""
    pid = os.fork()
    if pid == 0:
        try:
            if spec:
                failpoints.arm_from_text(spec)
            if after_s:
                signal.setitimer(signal.ITIMER_REAL, after_s)  # SIGALRM ends this process at once
            move(source, dest, deletes=deletes)
        except BaseException:  # noqa: BLE001  a child ends here, whatever it met
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"the move failed: {status}"
    return os.WIFSIGNALED(status)


def case(at: Path, *, deletes: bool, spec: str = "", after_s: float = 0.0) -> dict[str, object]:
    at.mkdir()
    source, dest = make(at)
    before, goal = listing(source), wanted(source)
    killed = killed_child(source, dest, deletes=deletes, spec=spec, after_s=after_s)
    wrong: list[str] = []
    setting = (source / "conf/server/installed.properties").read_bytes()
    now, there = listing(source), listing(dest) if dest.exists() else {}
    if setting not in (PROPERTIES, pointed(dest)):
        wrong.append(f"half a setting: {setting!r}")
    wrong += [
        f"{name} was deleted too early"
        for name in before
        if name not in now and (setting == PROPERTIES or there.get(name) != before[name])
    ]
    move(source, dest, deletes=deletes)
    if listing(dest) != goal:
        wrong.append(f"not the listed layout: {difference(listing(dest), goal)}")
    if (dest / "var/plugins/again.jar").stat().st_ino != (dest / "var/plugins/two.jar").stat().st_ino:
        wrong.append("the hard link became a file of its own")
    if (source / "conf/server/installed.properties").read_bytes() != pointed(dest):
        wrong.append("the setting is not as it should be")
    left = {*listing(source)} - {"conf/server/installed.properties"}
    stay = {"bin", "conf", "conf/server", STAYS, "var", "var/temp", "var/temp/not an item"} & {*before}
    if left != (stay if deletes else {*before} - {"conf/server/installed.properties"}):
        wrong.append(f"the source holds {sorted(left)}")
    shutil.rmtree(at)
    return {"spec": spec or f"after {after_s:.6f} s", "deletes": deletes, "killed": killed, "wrong": wrong}


def difference(a: dict[str, list[object]], b: dict[str, list[object]]) -> list[str]:
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def main(base: Path) -> None:
    begun = time.monotonic()
    cases = [case(base / "whole", deletes=True)]
    lasts_s = time.monotonic() - begun
    for name in failpoints.registered():
        for hit in HITS if name.startswith("layout.") else ():
            cases.append(case(base / f"{name}-{hit}", deletes=True, spec=f"{name}:{hit}"))
            if not cases[-1]["killed"]:
                break
    chance = random.Random(7)
    for number in range(RANDOM_MOMENTS):
        moment = chance.uniform(0.0001, lasts_s)
        cases.append(case(base / f"moment-{number}", deletes=number % 2 == 0, after_s=moment))
    for each in cases:
        sys.stdout.write(json.dumps(each) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
