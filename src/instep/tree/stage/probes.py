"""Looked at before a switch begins: whether each path that its steps touch can be changed at all.

An immutable file, a busy mount point or a directory that the daemon may not write would stop the switch in the middle.
Found here, it stops it before the first step, and the error names the path and the command that helps. An obstacle
that shows only later is undone (``tree/switch/undo.py``).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from instep.errors import ResourceError
from instep.model.paths import is_below, parent_of, shown
from instep.tree.journal.journal import Journal, Op, Step
from instep.tree.root.beneath import NOT_BENEATH, Root
from instep.tree.root.descriptors import Tolerated, closing_fd
from instep.tree.root.kernel import ignores_modes, mounts_in, set_flag
from instep.tree.root.os_errors import goes_on
from instep.tree.root.place import Place

_NAMED_MAX = 20
_displacing = frozenset({Op.CHANGE, Op.REMOVE, Op.META, Op.MOVE})


def refuse_stuck_paths(place: Place, journal: Journal, root: Root) -> None:
    """``ResourceError`` ``no_permission`` or ``mount_in_the_way`` for the first path that a step cannot change; the
    other paths are named in its facts. ``OSError``."""
    _refuse(_Probe(place, journal.steps(), root))


def refuse_stuck_changes(place: Place, steps: Iterable[Step], root: Root) -> None:
    """The same of a plan, before anything is staged. ``steps`` are made from its differences; the rights of
    directories are left to the switch, for only its journal says which of them it opens itself."""
    probe = _Probe(place, steps, root)
    probe.ignores_modes = True
    _refuse(probe)


def _refuse(probe: _Probe) -> None:
    found = None
    paths: list[str] = []
    for error, path in probe.run():
        found = found or error
        if len(paths) < _NAMED_MAX:
            paths.append(shown(path))
    if found is not None:
        if len(paths) > 1:
            found.facts["paths"] = paths
        raise found


class _Probe:
    def __init__(self, place: Place, steps: Iterable[Step], root: Root) -> None:
        self.place = place
        self.steps = steps
        self.root = root
        self.mounts = mounts_in(root)
        self.ignores_modes = ignores_modes()
        self.opened: set[bytes] = set()
        """Directories that get their write bits from the switch itself."""
        self.known: dict[bytes, ResourceError | None] = {}

    def run(self) -> Iterator[tuple[ResourceError, bytes]]:
        for step in self.steps:
            if step.op in (Op.MODE, Op.META):
                self.opened.add(step.path)
            if step.op in (Op.TIME, Op.MODE, Op.CARRY):
                continue
            for path in (step.path, *((step.source,) if step.source else ())):
                error = self._of(step, path)
                if error is not None:
                    yield error, path
                    break

    def _of(self, step: Step, path: bytes) -> ResourceError | None:
        parent = parent_of(path)
        if parent not in self.known:
            self.known[parent] = self._of_directory(parent)
        in_the_way = self.known[parent]
        if in_the_way is not None:
            return in_the_way
        if path in self.mounts:  # a removed directory with a mount in it simply stays
            return None if step.op is Op.REMOVE else mount_in_the_way(self.place, path, path)
        if step.op in _displacing and (step.op is not Op.MOVE or path == step.source):
            with Tolerated(*NOT_BENEATH):  # drift: the step sees to it
                return self._flagged(path, *self.root.open_parent(path))
        return None

    def _of_directory(self, path: bytes) -> ResourceError | None:
        for mount in self.mounts:
            if path == mount or is_below(path, mount):
                return mount_in_the_way(self.place, path, mount)
        with Tolerated(*NOT_BENEATH), closing_fd(self.root.open(path, os.O_PATH | os.O_DIRECTORY)) as fd:
            return self._flagged(path, fd, b"") or (
                None if self.ignores_modes else self._unwritable(path, fd)
            )
        return None

    def _unwritable(self, path: bytes, fd: int) -> ResourceError | None:
        found = os.fstat(fd)
        is_ours = found.st_uid == os.geteuid()
        if is_ours and (path in self.opened or stat.S_IMODE(found.st_mode) & 0o300 == 0o300):
            return None
        if os.access(b"/proc/self/fd/%d/." % fd, os.W_OK | os.X_OK, effective_ids=True):
            return None
        whole = _whole(self.place, path)
        helps = f"chmod u+wx {whole}" if is_ours else f"let uid {os.geteuid()} write {whole}"
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        reason = f"the directory {shown(path) or '.'}, uid {found.st_uid}, mode {mode}"
        return _stuck(self.place, path, "no_permission", f"uid {os.geteuid()} may not write {reason}", helps)

    def _flagged(self, path: bytes, dir_fd: int, name: bytes) -> ResourceError | None:
        flag = set_flag(dir_fd, name)
        if flag is None:
            return None
        what, letter = flag
        reason = f"{shown(path) or 'the root'} cannot be changed: it is {what} (chattr +{letter})"
        return _stuck(
            self.place, path, "no_permission", reason, f"chattr -{letter} {_whole(self.place, path)}"
        )


def mount_in_the_way(place: Place, path: bytes, mount: bytes) -> ResourceError:
    """``path`` cannot be changed, because something is mounted at ``mount``."""
    reason = f"{shown(path)} cannot be changed: something is mounted at {shown(mount)}"
    return _stuck(place, path, "mount_in_the_way", reason, f"umount {_whole(place, mount)}")


def _whole(place: Place, path: bytes) -> str:
    root = str(place.root)
    return f"{root}/{shown(path)}" if path else root


def _stuck(place: Place, path: bytes, code: str, reason: str, helps: str) -> ResourceError:
    return ResourceError(
        f"{place.fileset}: {reason}",
        hint=f"{helps}; {goes_on(place.fileset)}",
        code=code,
        path=shown(path),
    )
