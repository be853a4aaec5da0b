"""Taking a directory as a fileset's root on this node, and finding it again at every start.

``take_root`` is an operator's act (``fileset add``, ``accept``, ``join --accept``): it makes the control folder
and the marker. ``find_root`` only looks: a marker that is missing is never made anew, because then a disk that
is not mounted would look like an empty tree (P10).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import msgspec

from instep.errors import InstepError, RefusedError
from instep.model.ids import FilesetName, NodeName
from instep.node.config.filesets import FilesetSettings
from instep.node.facts.daemon_rights import may_give_away
from instep.node.facts.mounts import require_mount
from instep.node.runtime.runtime import Runtime
from instep.store.port import NodeStore
from instep.tree.root.marker import (
    MARKER_DAMAGED,
    MARKER_PATH,
    MARKER_REPLACED,
    NO_NODE,
    Marker,
    check_marker,
    create_marker,
    open_root,
    read_marker,
    remove_marker,
)
from instep.tree.root.place import Place, check_overlap, prepare_place, resolve_place
from instep.tree.root.resolving import resolved
from instep.tree.root.writable import require_writable_folder
from instep.tree.scan.touched import Identity, identity_of


@dataclass(frozen=True, slots=True)
class Taken:
    place: Place
    marker: Marker | None
    """None while only observing: then nothing of ours is in the tree."""
    seen: tuple[object, ...] = ()
    """What shows at a glance that ``place`` need not be chosen anew."""


def _key(fileset: FilesetName) -> str:
    return f"marker/{fileset}"


def _others(runtime: Runtime, fileset: FilesetName) -> list[Path]:
    """The roots of the other filesets, which a root must not overlap."""
    return [other.path for name, other in runtime.settings.filesets.items() if name != fileset]


def _resolve(
    runtime: Runtime, fileset: FilesetName, path: Path, stage: Path | None = None, *, is_shared: bool = False
) -> Place:
    chosen, node = "auto" if stage is None else str(stage), runtime.name if is_shared else ""
    return resolve_place(
        path, fileset, chosen, others=_others(runtime, fileset), node_dir=runtime.directory.path, node=node
    )


ADOPTABLE = ("marker_missing", MARKER_DAMAGED, MARKER_REPLACED)
"""Refusals of a marker that ``fileset adopt`` ends, by an operator's word that this is the directory."""


def take_root(
    runtime: Runtime,
    fileset: FilesetName,
    path: Path,
    *,
    make: bool = False,
    cluster: str = "",
    is_secret: bool = False,
) -> None:
    """Make ``path`` the root of ``fileset`` here; again is harmless. ``make`` creates the last component of a
    path that is missing; where it ``is_secret``, other users cannot list it. With a ``cluster`` the root is that of all
    its nodes: the first one marks it. Refusals as ``resolve_place`` and ``create_marker``; ``shared_root_foreign``,
    ``root_of_other_node``."""
    _refuse_inside_other(path, runtime.name)
    if make:
        check_new_root(runtime, fileset, path)
        if not path.exists():
            os.mkdir(path, _secret_mode() if is_secret else 0o755)
    place, node = _resolve(runtime, fileset, path, is_shared=bool(cluster)), runtime.name
    if cluster:
        node = NO_NODE
    marker = read_marker(path)
    if marker is not None:
        check_marker(path, fileset, node)
        _refuse_other_cluster(marker, path, cluster)
    prepare_place(place)
    require_writable_folder(place.control)
    if marker is None:
        marker = create_marker(path, fileset, node, cluster=cluster)
    runtime.store.put(_key(fileset), msgspec.json.encode(marker))


def _secret_mode() -> int:
    """Of a root for keys: an application's account, which may own them, goes through the root and lists nothing."""
    return 0o711 if may_give_away() else 0o700


def listed_by_others(path: Path) -> str | None:
    """A warning where other users may list a root that is for keys, or write there."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o066:
        return None
    why = f"{path} is for keys, and its mode {mode:o} lets other users list it or write there"
    return f"{why}: chmod 711 {quote(str(path))}"


def _refuse_other_cluster(marker: Marker, path: Path, cluster: str) -> None:
    if marker.cluster != cluster:
        raise RefusedError(
            f"{path} is the shared root of {marker.fileset} in another cluster, whose database is {marker.cluster[:8]}",
            hint="choose another directory: two clusters would replace each other's files",
            code="shared_root_foreign",
            root=str(path),
        )


def _refuse_inside_other(path: Path, node: NodeName) -> None:
    """No directory above ``path`` is marked as the root of another node: that node would take the files of this one for
    local changes."""
    for above in Path(os.path.realpath(path)).parents:
        marker = read_marker(above) if os.path.lexists(above / os.fsdecode(MARKER_PATH)) else None
        if marker is not None and marker.node != node:
            raise RefusedError(
                f"{path} lies in {above}, the root of {marker.fileset} of {marker.node or 'several nodes'}",
                hint="choose a directory outside it: two nodes would replace each other's files",
                code="root_of_other_node",
                root=str(path),
                other=str(above),
            )


def check_new_root(runtime: Runtime, fileset: FilesetName, path: Path) -> None:
    """Whether ``path`` may become the root of ``fileset`` here; nothing is made. Refusals as ``take_root``."""
    check_overlap(path, _others(runtime, fileset), runtime.directory.path)
    _refuse_inside_other(path, runtime.name)
    if path.exists():
        _resolve(runtime, fileset, path)
    elif not path.parent.is_dir():
        raise RefusedError(
            f"neither {path} nor its parent {path.parent} exists",
            hint=f"mount the disk, or: mkdir -p {path}",
            code="root_missing",
            root=str(path),
        )


def find_root(runtime: Runtime, fileset: FilesetSettings, last: Taken | None = None) -> Taken:
    """The root as it was taken; a tree that is only observed has no marker. ``RefusedError`` ``mount_missing``,
    ``root_missing``, ``marker_missing``, ``marker_damaged``, ``marker_foreign``, ``marker_replaced``.

    ``last`` was found before: an apply asks five times. Its place holds while root, control folder and settings are
    those that it was chosen by; mount and marker are looked at each time."""
    name, path, store = fileset.name, fileset.path, runtime.store
    require_mount(name, resolved(path), fileset.expect_mount)
    if fileset.observe:
        return Taken(Place(path, path / ".instep", name), None)
    known = known_marker(store, name)
    with _naming_the_way_back(fileset):
        is_same = last is not None and last.seen != () and last.seen == _seen(runtime, fileset, last.place)
        place = (
            last.place
            if last is not None and is_same
            else _resolve(runtime, name, path, fileset.stage, is_shared=fileset.shared)
        )
        owner = marked_node(fileset, runtime.name)
        marker = check_marker(path, name, owner, known.random if known is not None else None)
    if known is None:
        store.put(_key(name), msgspec.json.encode(marker))
    if not is_same:
        prepare_place(place)
    return Taken(place, marker, _seen(runtime, fileset, place))


def _seen(runtime: Runtime, fileset: FilesetSettings, place: Place) -> tuple[object, ...]:
    """What ``place`` was chosen by: settings, and which root and control folder lie there. Empty when one is gone."""
    try:
        found = [os.stat(each, follow_symlinks=False) for each in (fileset.path, place.control)]
    except OSError:
        return ()
    which = [(each.st_dev, each.st_ino, each.st_mode, each.st_uid) for each in found]
    return fileset.path, fileset.stage, tuple(_others(runtime, fileset.name)), *which


def marked_node(fileset: FilesetSettings, node: NodeName) -> NodeName:
    """The node that the marker of a root names; a shared root's names none."""
    return NO_NODE if fileset.shared else node


def known_marker(store: NodeStore, fileset: FilesetName) -> Marker | None:
    """The marker that this node made, or found first."""
    raw = store.get(_key(fileset))
    return msgspec.json.decode(raw, type=Marker) if raw is not None else None


def see_root(fileset: FilesetSettings, node: NodeName, known: Marker | None) -> Identity:
    """The directory in the root's place when it is the one that was taken; it is opened, and nothing else is done.
    Refusals as ``find_root``, and ``OSError``."""
    name, path = fileset.name, fileset.path
    require_mount(name, resolved(path), fileset.expect_mount)
    with _naming_the_way_back(fileset):
        with open_root(path) as root:
            found = identity_of(root)
        if not fileset.observe:
            check_marker(path, name, marked_node(fileset, node), known.random if known is not None else None)
    return found


@contextlib.contextmanager
def _naming_the_way_back(fileset: FilesetSettings) -> Iterator[None]:
    try:
        yield
    except RefusedError as error:
        error.hint = _way_back(fileset, error) or error.hint
        raise


def _way_back(fileset: FilesetSettings, error: RefusedError) -> str | None:
    """The commands that bring a lost root back; None for another refusal. A disk that is not mounted looks the same."""
    name, at = fileset.name, quote(str(fileset.path))
    anew = f"instep fileset accept {name} {at} --replace"
    if fileset.is_written_here:
        anew = f"mkdir -p {at} && instep fileset adopt {name} {at} --empty && instep restore {name}"
    if error.error_code == "root_missing":
        return f"mount it, it goes on by itself; or, where the disk is new: {anew}"
    if error.error_code == "marker_missing" and _is_bare(fileset.path):
        return f"mount the disk; or, where it is new and empty: {anew}"
    if error.error_code in ADOPTABLE:
        first = (
            "find out which program changed it" if error.error_code == MARKER_DAMAGED else "mount the disk"
        )
        return f"{first}; or, where this is the directory: instep fileset adopt {name} {at}"
    return None


def _is_bare(path: Path) -> bool:
    """A directory as a new file system has it."""
    try:
        return not set(os.listdir(path)) - {"lost+found"}
    except OSError:  # the hint is about a marker that was missing a moment ago
        return False


def forget_root(fileset: FilesetName, path: Path, node: NodeName) -> None:
    """After ``fileset remove``: take the marker away so that the directory can be used anew. Content stays, and so
    does a marker that cannot be read or is another's."""
    with contextlib.suppress(InstepError):
        remove_marker(path, fileset, node)


def forget_marker(store: NodeStore, fileset: FilesetName) -> None:
    """The fileset is not in the settings any more: the marker that it gets next may be another."""
    store.delete(_key(fileset))
