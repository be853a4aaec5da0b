"""Where a fileset lives on this node: its root, and the control folder for staging, journal and archive.

The control folder is ``../.instep-<fileset>/`` beside the root where that is the same mount and writable, so
that nothing that serves the root can serve it; else ``.instep/`` below the root; else where ``stage`` says.
Design, section 7 "Place".
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import msgspec

from instep.errors import ConfigError, DamagedError, RefusedError, ResourceError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import FilesetName
from instep.tree.root.descriptors import LIST, READ, REPLACE, Tolerated, closing_fd
from instep.tree.root.marker import open_root
from instep.tree.root.writable import unprepared

OWNER_FILE = "place"
"""Says in a control folder for which root it is."""
_OWNER_MAX = 8192
_NODE_SECRETS = ("pki", "state")
_CONTROL_CONTENTS = ("stage", "journal", "archive", "history")


class ControlFolder:
    """An open control folder, verified by ``tree.control_folder``."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @property
    def is_open(self) -> bool:
        return self.fd >= 0

    @property
    def path(self) -> Path:
        """Leads to the open folder, whatever its name leads to by now."""
        return Path(f"/proc/self/fd/{self.fd}")

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass(frozen=True, slots=True)
class Place:
    """``root`` is served; ``control`` is ours alone (mode 0700) and lies on the same mount as ``root``.

    The folders below ``control`` are reached through ``folder`` while that is open (``tree.control_folder.opened``).
    """

    root: Path
    control: Path
    fileset: FilesetName
    folder: ControlFolder | None = field(default=None, compare=False, repr=False)
    guard: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)
    """Called before each step that changes the tree; it raises when this node may not write there any more."""

    @property
    def opened(self) -> ControlFolder | None:
        """The control folder while it is open."""
        return self.folder if self.folder is not None and self.folder.is_open else None

    def _below(self, name: str) -> Path:
        return (self.control if self.opened is None else self.opened.path) / name

    @property
    def stage(self) -> Path:
        return self._below("stage")

    @property
    def journal(self) -> Path:
        return self._below("journal")

    @property
    def archive(self) -> Path:
        return self._below("archive")

    @property
    def history(self) -> Path:
        return self._below("history")

    def owner_text(self) -> str:
        """How the root is named in the control folder."""
        return os.fsencode(self.root).decode("utf-8", "replace")

    def by_name(self, path: bytes) -> bytes:
        """A path below the open folder as people know it."""
        if self.opened is None:
            return path
        prefix = os.fsencode(self.opened.path)
        is_below = path == prefix or path.startswith(prefix + b"/")
        return os.fsencode(self.control) + path[len(prefix) :] if is_below else path

    @property
    def is_control_inside(self) -> bool:
        """Whether the control folder lies below the root, so that a careless server might serve it."""
        return self.control.is_relative_to(self.root)


class Owner(msgspec.Struct, frozen=True):
    """Which root a control folder belongs to: several nodes of one machine may keep neighbouring roots."""

    root: str
    dev: int
    ino: int

    def is_for(self, place: Place, root: os.stat_result) -> bool:
        """By name or by inode: a root may be renamed, and may be another directory after a restore."""
        return self.root == place.owner_text() or (self.dev, self.ino) == (root.st_dev, root.st_ino)


def resolve_place(
    root: Path,
    fileset: FilesetName,
    stage: str = "auto",
    *,
    others: Iterable[Path] = (),
    node_dir: Path | None = None,
    node: str = "",
) -> Place:
    """Check ``root`` and choose the control folder; creates nothing. On shared storage each ``node`` has its own.

    ``others`` are the roots of this node's other filesets. ``stage`` is ``auto`` or a directory on the same
    mount. Errors: ``root_missing``, ``root_is_symlink``, ``root_not_directory``, ``roots_overlap``,
    ``root_holds_node``, ``stage_unusable``.
    """
    root = _absolute(root)
    _check_root(root)
    check_overlap(root, others, node_dir)
    own = f"node-{node}" if node else ""
    if stage != "auto":
        return Place(root, _chosen_stage(root, Path(stage), fileset) / own, fileset)
    beside = root.parent / f".instep-{fileset}"
    inside = root / ".instep"
    in_use_inside = any((inside / name).exists() for name in ((own,) if own else _CONTROL_CONTENTS))
    if in_use_inside and not (beside / own).exists():
        return Place(root, inside / own, fileset)
    usable = _same_mount(root, root.parent) and (
        _is_ours(beside, root) if beside.exists() else os.access(root.parent, os.W_OK | os.X_OK)
    )
    return Place(root, (beside if usable else inside) / own, fileset)


def prepare_place(place: Place) -> None:
    """Make the control folder (0700), durably; ``ResourceError`` when it cannot be made or is another's."""
    control = place.control
    try:
        with closing_fd(_open_above(control.parent)) as parent:
            with contextlib.suppress(FileExistsError):
                os.mkdir(control.name, 0o700, dir_fd=parent)
            with closing_fd(os.open(control.name, LIST, dir_fd=parent)) as fd:
                _prepare(place, fd, parent)
    except NotADirectoryError as error:
        raise _stage_unusable(control, "is not a directory") from error
    except OSError as error:
        raise unprepared(control, error) from error


def _open_above(folder: Path) -> int:
    """The directory that holds the control folder; that of a shared root is made, for the folders of all nodes."""
    if not folder.name.startswith(".instep"):
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with closing_fd(os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as above:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder.name, 0o700, dir_fd=above)
        return os.open(folder.name, LIST, dir_fd=above)


def _prepare(place: Place, fd: int, parent: int) -> None:
    control, found = place.control, os.fstat(fd)
    if found.st_uid != os.geteuid():
        raise _stage_unusable(control, f"belongs to another user, uid {found.st_uid}")
    with closing_fd(os.open(place.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        if _mount_of(fd) != _mount_of(root):
            raise _stage_unusable(control, "is not on the same mount as the root")
        top = os.fstat(root)
    owner = owner_of(fd, place)
    if owner is None and (others := [name for name in os.listdir(fd) if not _is_of_a_beginning(name)]):
        # Only one that is empty may be taken: another directory of ours may have been moved to this name.
        raise _stage_unusable(control, f"holds {others[0]!r} and does not say for which root it is")
    if owner is not None and not owner.is_for(place, top):
        raise _stage_unusable(control, "belongs to another root")
    if stat.S_IMODE(found.st_mode) != 0o700:
        os.fchmod(fd, 0o700)
    _drop_default_acl(fd)
    if owner is None:
        os.fsync(parent)  # before the owner is written, which says that the folder is durable
    wanted = Owner(place.owner_text(), top.st_dev, top.st_ino)
    if owner != wanted:
        _write_owner(fd, wanted)


def _is_of_a_beginning(name: str) -> bool:
    """Names that a folder may hold before it has an owner: the marker, where it lies in the root, and a torn
    attempt."""
    return name == f"{OWNER_FILE}.new" or name == "id" or name.startswith("id.")


def _absolute(path: Path) -> Path:
    return Path(os.path.normpath(os.path.abspath(path)))


def _check_root(root: Path) -> None:
    try:
        found = root.lstat()
    except OSError:
        found = None
    if found is not None and stat.S_ISLNK(found.st_mode):
        raise RefusedError(
            f"the root {root} is a symbolic link",
            hint=f"name the directory itself, {os.path.realpath(root)}; where a deploy turns the link, keep in step "
            f"the directory that holds the link and what it leads to: {root.parent}",
            code="root_is_symlink",
            root=str(root),
        )
    open_root(root).close()


def check_overlap(root: Path, others: Iterable[Path], node_dir: Path | None) -> None:
    """Whether ``root``, which need not exist yet, keeps clear of other roots and of the node directory.
    ``RefusedError`` ``roots_overlap``, ``root_holds_node``."""
    real = Path(os.path.realpath(root))
    for other in others:
        other_real = Path(os.path.realpath(other))
        if real.is_relative_to(other_real) or other_real.is_relative_to(real):
            raise RefusedError(
                f"the root {root} overlaps with the root {other} of another fileset",
                hint="choose directories of which none contains another",
                code="roots_overlap",
                root=str(root),
                other=str(other),
            )
    if node_dir is None:
        return
    node_real = Path(os.path.realpath(node_dir))
    secret = any(real.is_relative_to(node_real / name) for name in _NODE_SECRETS)
    if secret or node_real.is_relative_to(real):
        raise RefusedError(
            f"the root {root} would hold keys or state of the node directory {node_dir}",
            hint="choose another directory",
            code="root_holds_node",
            root=str(root),
            node_dir=str(node_dir),
        )


def _chosen_stage(root: Path, chosen: Path, fileset: FilesetName) -> Path:
    """``chosen`` holds the control folder of each fileset by name, so one setting serves several."""
    if not chosen.is_absolute():
        raise ConfigError(f"stage {chosen} is not an absolute path", code="stage_unusable")
    chosen = _absolute(chosen)
    if chosen.is_relative_to(root):
        raise RefusedError(
            f"stage {chosen} lies in the root {root}", hint='use "auto"', code="stage_unusable"
        )
    if not chosen.is_dir():
        raise _stage_unusable(chosen, "is not a directory")
    if not _same_mount(root, chosen):
        raise _stage_unusable(chosen, "is not on the same mount as the root")
    if not os.access(chosen, os.W_OK | os.X_OK):
        raise _stage_unusable(chosen, "is not writable")
    return chosen / f".instep-{fileset}"


def _stage_unusable(path: Path, why: str) -> ResourceError:
    return ResourceError(
        f"the control folder {path} {why}",
        hint='choose a directory on the file system of the root, or stage = "auto"',
        code="stage_unusable",
        path=str(path),
    )


def _same_mount(a: Path, b: Path) -> bool:
    """Whether a rename between two directories can work: same device and same mount."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    with contextlib.suppress(OSError), closing_fd(os.open(a, flags)) as x, closing_fd(os.open(b, flags)) as y:
        return _mount_of(x) == _mount_of(y)
    return False


def _mount_of(fd: int) -> tuple[int, str]:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
        mount = next((line for line in lines if line.startswith("mnt_id:")), "")
    return os.fstat(fd).st_dev, mount


def owner_of(fd: int, place: Place) -> Owner | None:
    """The owner record in the open control folder of ``place``; None when there is none. ``OSError``;
    ``DamagedError`` ``place_damaged``: the root's journal, archive and history may lie there: never passed by."""
    try:
        file = os.open(OWNER_FILE, READ, dir_fd=fd)
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(os.read(file, _OWNER_MAX), type=Owner)
    except DECODE_ERRORS as error:
        raise _place_damaged(place, str(error)) from error
    finally:
        os.close(file)


def _place_damaged(place: Place, why: str) -> DamagedError:
    path = place.control / OWNER_FILE
    anew = msgspec.json.encode(Owner(place.owner_text(), 0, 0)).decode()
    return DamagedError(
        f"{path}, which says for which root {place.control} is, cannot be read: {why}",
        hint=f"if {place.control} belongs to {place.root}, write it anew: echo {quote(anew)} > {quote(str(path))}",
        code="place_damaged",
        path=str(path),
    )


def _is_ours(control: Path, root: Path) -> bool:
    """Whether a control folder that exists was made for ``root``, or for no root yet. ``DamagedError`` when its own
    record of that cannot be read: its journal may be open, and another folder would not know of it."""
    try:
        fd = os.open(control, LIST)
    except OSError:
        return False
    try:
        place = Place(root, control, FilesetName(""))
        owner = owner_of(fd, place)
        return owner is None or owner.is_for(place, root.stat())
    except OSError:
        return False
    finally:
        os.close(fd)


def _write_owner(control: int, owner: Owner) -> None:
    temporary = f"{OWNER_FILE}.new"
    with closing_fd(os.open(temporary, REPLACE, 0o600, dir_fd=control)) as fd:
        os.write(fd, msgspec.json.encode(owner))
        os.fsync(fd)
    os.rename(temporary, OWNER_FILE, src_dir_fd=control, dst_dir_fd=control)
    os.fsync(control)


def _drop_default_acl(control: int) -> None:
    """A default ACL inherited from the parent would colour every staged object. Where there is none nothing is
    written: a root on a read-only file system can be read."""
    with Tolerated(errno.ENODATA, errno.ENOTSUP):
        os.getxattr(control, "system.posix_acl_default")
        os.removexattr(control, "system.posix_acl_default")
