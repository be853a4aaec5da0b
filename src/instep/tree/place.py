"""Where a fileset lives on this node: its root, and the control folder for staging, journal and archive.

The control folder is ``../.instep-<fileset>/`` beside the root where that is the same mount and writable, so
that nothing that serves the root can serve it; else ``.instep/`` below the root; else where ``stage`` says.
Design, section 7 "Place".
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from instep.errors import ConfigError, RefusedError, ResourceError
from instep.model.ids import FilesetName
from instep.tree.marker import open_root

__all__ = ["Place", "check_overlap", "prepare_place", "resolve_place"]

_OWNER_FILE = "place"
_NODE_SECRETS = ("pki", "state")
_CONTROL_CONTENTS = ("stage", "journal", "archive", "history")


@dataclass(frozen=True, slots=True)
class Place:
    """``root`` is served; ``control`` is ours alone (mode 0700) and lies on the same mount as ``root``."""

    root: Path
    control: Path
    fileset: FilesetName

    @property
    def stage(self) -> Path:
        return self.control / "stage"

    @property
    def journal(self) -> Path:
        return self.control / "journal"

    @property
    def archive(self) -> Path:
        return self.control / "archive"

    @property
    def history(self) -> Path:
        return self.control / "history"

    @property
    def is_control_inside(self) -> bool:
        """Whether the control folder lies below the root, so that a careless server might serve it."""
        return self.control.is_relative_to(self.root)


class _Owner(msgspec.Struct, frozen=True):
    """Which root a control folder belongs to: several nodes of one machine may keep neighbouring roots."""

    root: str
    dev: int
    ino: int


def resolve_place(
    root: Path,
    fileset: FilesetName,
    stage: str = "auto",
    *,
    others: Iterable[Path] = (),
    node_dir: Path | None = None,
) -> Place:
    """Check ``root`` and choose the control folder; creates nothing.

    ``others`` are the roots of this node's other filesets. ``stage`` is ``auto`` or a directory on the same
    mount. Errors: ``root_missing``, ``root_is_symlink``, ``root_not_directory``, ``roots_overlap``,
    ``root_holds_node``, ``stage_unusable``.
    """
    root = _absolute(root)
    _check_root(root)
    check_overlap(root, others, node_dir)
    if stage != "auto":
        return Place(root, _chosen_stage(root, Path(stage), fileset), fileset)
    beside = root.parent / f".instep-{fileset}"
    inside = root / ".instep"
    in_use_inside = any((inside / name).exists() for name in _CONTROL_CONTENTS)
    if in_use_inside and not beside.exists():
        return Place(root, inside, fileset)
    usable = _same_mount(root, root.parent) and (
        _is_ours(beside, root) if beside.exists() else os.access(root.parent, os.W_OK | os.X_OK)
    )
    return Place(root, beside if usable else inside, fileset)


def prepare_place(place: Place) -> None:
    """Make the control folder (0700), durably; ``ResourceError`` when it cannot be made or is another's."""
    control = place.control
    try:
        control.mkdir(mode=0o700, exist_ok=True)
        found = control.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise _stage_unusable(control, "is not a directory")
        if found.st_uid != os.geteuid():
            raise _stage_unusable(control, "belongs to another user")
        if not _same_mount(place.root, control):
            raise _stage_unusable(control, "is not on the same mount as the root")
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.chmod(control, 0o700)
        _drop_default_acl(control)
        if not _is_ours(control, place.root):
            raise _stage_unusable(control, "belongs to another root")
        if not (control / _OWNER_FILE).exists():
            _sync_directory(
                control.parent
            )  # before the owner is written, which says that the folder is durable
        _write_owner(control, place.root)
    except OSError as error:
        raise ResourceError(
            f"the control folder {control} cannot be prepared: {error.strerror}",
            hint="make the parent writable for the daemon, or set stage to a directory on its file system",
            code="stage_unusable",
            path=str(control),
        ) from error


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
            hint=f"name the directory itself: {os.path.realpath(root)}",
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
    try:
        return _mount_of(a) == _mount_of(b)
    except OSError:
        return False


def _mount_of(path: Path) -> tuple[int, str]:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
            mount = next((line for line in lines if line.startswith("mnt_id:")), "")
        return os.fstat(fd).st_dev, mount
    finally:
        os.close(fd)


def _is_ours(control: Path, root: Path) -> bool:
    """Whether a control folder that exists was made for ``root``, or for nobody yet."""
    try:
        raw = (control / _OWNER_FILE).read_bytes()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        owner = msgspec.json.decode(raw, type=_Owner)
    except msgspec.DecodeError:
        return False
    found = root.stat()
    return owner.root == str(root) or (owner.dev, owner.ino) == (found.st_dev, found.st_ino)


def _write_owner(control: Path, root: Path) -> None:
    found = root.stat()
    text = msgspec.json.encode(
        _Owner(os.fsencode(root).decode("utf-8", "replace"), found.st_dev, found.st_ino)
    )
    path = control / _OWNER_FILE
    if path.exists() and path.read_bytes() == text:
        return
    temporary = control / f"{_OWNER_FILE}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    _sync_directory(control)


def _drop_default_acl(control: Path) -> None:
    """A default ACL inherited from the parent would colour every staged object."""
    try:
        os.removexattr(control, "system.posix_acl_default")
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
