"""Where the enemy of ``adversary.py`` lives: a root in a directory of his, and a decoy that is root's and must not
change."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from instep.model.definition import Definition, Preserve
from instep.model.manifest.entry import Extra
from instep.tree.objects.fidelity import Allow, Local
from tests.support.apply_world import START_NS, Dir, File, Tree, World

STRANGER = 65_534
SECRET = b"only root reads this"
MODES = (0o4777, 0o2777, 0o777, 0o0)

OWNED = Extra(owner=str(STRANGER), group=str(STRANGER))


def _file(data: bytes, mode: int = 0o644) -> File:
    return File(data, mode, extra=OWNED)


FIRST: Tree = {
    b"dir": Dir(0o755),
    b"dir/a": _file(b"a"),
    b"dir/large": _file(b"l" * 80_000),
    b"dir/sub/x": _file(b"x"),
    b"gone/one": _file(b"1"),
    b"gone/two/three": _file(b"3"),
    b"half/data": _file(b"data"),
    b"moved/p": _file(b"p"),
    b"moved/q/r": _file(b"r"),
    b"closed": Dir(0o755),
    b"closed/in": _file(b"in"),
}
SECOND: Tree = {
    b"dir": Dir(0o750, START_NS + 5),
    b"dir/a": _file(b"aa"),
    b"dir/large": _file(b"l" * 80_000, 0o600),
    b"dir/sub/x": _file(b"x", 0o4755),
    b"dir/new": _file(b"new"),
    b"fresh/deep/er": _file(b"er"),
    b"renamed/p": _file(b"p"),
    b"renamed/q/r": _file(b"r"),
    b"closed": Dir(0o555),
    b"closed/in": _file(b"changed"),
}
IGNORED = b"half/cache.tmp"
DEFINITION = Definition(ignore=("*.tmp",), preserve=(Preserve.OWNER, Preserve.XATTR))


def local() -> Local:
    return Local(frozenset(DEFINITION.preserve), frozenset((Allow.OWNER,)))


@dataclass
class Ground:
    """``home`` belongs to the stranger: in it lie the root, and the control folder beside it. ``decoy`` is root's."""

    top: Path
    world: World = field(init=False)

    def __post_init__(self) -> None:
        os.umask(0o022)
        self.top.chmod(0o755)
        self.home.mkdir()
        self._make_decoy()
        self.world = World.make(self.home, DEFINITION)
        self.world.local = local()

    @property
    def home(self) -> Path:
        return self.top / "home"

    @property
    def decoy(self) -> Path:
        return self.top / "decoy"

    def _make_decoy(self) -> None:
        for name in (
            "program",
            "dir/a",
            "gone/one",
            "stage/x/o/y",
            "archive/x/index",
            "sub/x",
            "a",
            "in",
            "id",
        ):
            path = self.decoy / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(SECRET)
            path.chmod(0o600)
        (self.decoy / "program").write_bytes(b"a program that anybody may read")
        (self.decoy / "program").chmod(0o755)
        (self.decoy / "large").write_bytes(b"l" * 80_000)
        os.utime(self.decoy / "large", ns=(START_NS, START_NS))

    def give_away(self) -> None:
        """The tree and the directory beside it become the stranger's; the control folder stays ours."""
        os.chown(self.home, STRANGER, STRANGER)
        for where, folders, files in os.walk(self.world.root):
            for name in (*folders, *files):
                if name != ".instep":
                    os.chown(os.path.join(where, name), STRANGER, STRANGER, follow_symlinks=False)
            folders[:] = [name for name in folders if name != ".instep"]
        os.chown(self.world.root, STRANGER, STRANGER)

    def outside(self) -> dict[str, tuple[object, ...]]:
        """The state that must not change: contents, modes, owners, times and attributes of all that is root's own."""
        return {str(path.relative_to(self.decoy)): _state(path) for path in sorted(self.decoy.rglob("*"))}

    def broken(self) -> list[str]:
        """Set-id files that are not the stranger's own, and secrets in files that others may read."""
        found = []
        for path in sorted(self.top.rglob("*")):
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                continue
            if status.st_mode & 0o6000 and status.st_uid != STRANGER:
                found.append(f"{path} has mode {stat.S_IMODE(status.st_mode):04o} of uid {status.st_uid}")
            if status.st_size == len(SECRET) and path.read_bytes() == SECRET:
                is_open = status.st_uid != 0 or status.st_mode & 0o044
                if is_open:
                    found.append(f"{path} shows a secret: mode {status.st_mode:o}, uid {status.st_uid}")
        control = self.world.place.control
        if control.is_dir() and control.lstat().st_uid == 0 and control.lstat().st_mode & 0o077:
            found.append(f"{control} is open")
        return found


def _state(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
    names = sorted(os.listdir(path)) if stat.S_ISDIR(status.st_mode) else []
    attributes = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    return (
        stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid,
        status.st_mtime_ns, status.st_ino, content, names, attributes,
    )  # fmt: skip
