"""The marker ``.instep/id`` that says: this directory is the root of that fileset on that node.

A missing mount, an emptied disk or a restored foreign copy lacks it or carries another's; then scan and apply
refuse (P10). It is created once, when the fileset is added or accepted, and never recreated by itself.
"""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from shlex import quote

import msgspec

from instep.errors import RefusedError, ResourceError
from instep.model.ids import FilesetName, NodeName
from instep.tree.root.beneath import RenameUnsupportedError, Root, rename_noreplace
from instep.tree.root.descriptors import CREATE, Tolerated, closing_fd

CONTROL_NAME = b".instep"
MARKER_PATH = b".instep/id"
MARKER_DAMAGED = "marker_damaged"
MARKER_REPLACED = "marker_replaced"
_MARKER_MAX = 4096


class Marker(msgspec.Struct, frozen=True):
    """``random`` is 32 hex digits, drawn when the fileset was added or accepted here. A root on shared storage belongs
    to a ``cluster``, by the id of its database, and to no ``node``."""

    fileset: FilesetName
    node: NodeName
    random: str
    cluster: str = ""


NO_NODE = NodeName("")
"""The node in the marker of a shared root."""


def open_root(root: Path) -> Root:
    """The root, opened; ``RefusedError`` ``root_missing``, ``root_not_directory``; ``ResourceError``."""
    try:
        return Root(root)
    except FileNotFoundError as error:
        raise RefusedError(
            f"the root {root} does not exist",
            hint="mount it, or restore it from a backup; nothing was changed",
            code="root_missing",
            root=str(root),
        ) from error
    except NotADirectoryError as error:
        raise RefusedError(
            f"the root {root} is not a directory", code="root_not_directory", root=str(root)
        ) from error
    except OSError as error:
        raise ResourceError(
            f"the root {root} cannot be opened: {error.strerror}", code="root_unreadable", root=str(root)
        ) from error


def open_marked(root: Path, fileset: FilesetName) -> Root:
    """The root, opened, if beneath that very descriptor lies the marker of ``fileset``: a directory that a user moved
    to the root's name meanwhile has none. Refusals as ``open_root`` and ``check_marker``."""
    opened = open_root(root)
    try:
        marker = _read(opened, root)
        if marker is None:
            raise _missing(root, fileset)
        _refuse_foreign(marker, root, fileset, marker.node)
    except BaseException:
        opened.close()
        raise
    return opened


def create_marker(
    root: Path,
    fileset: FilesetName,
    node: NodeName,
    owner: tuple[int, int] | None = None,
    cluster: str = "",
) -> Marker:
    """Write a new marker durably; an existing one is an error (``marker_foreign`` or ``marker_exists``). ``owner`` is
    the uid and gid of the daemon where root makes the marker for it: the daemon works in the marker's folder."""
    marker = Marker(fileset, node, secrets.token_hex(16), cluster)
    with open_root(root) as opened:
        existing = _read(opened, root, owner)
        if existing is not None:
            _refuse_foreign(existing, root, fileset, node)
            raise RefusedError(
                f"{root} already carries the marker of {fileset}", code="marker_exists", root=str(root)
            )
        try:
            os.mkdir(CONTROL_NAME, 0o700, dir_fd=opened.fd)
        except FileExistsError:
            pass  # left by an earlier fileset or attempt; open_dir below refuses anything but a directory
        with closing_fd(opened.open_dir(CONTROL_NAME)) as control:
            if owner is not None:
                os.fchown(control, *owner)
            _write_durably(control, marker, owner)
            with closing_fd(opened.open_dir(b"")) as top:
                os.fsync(top)
    return marker


def rename_in_marker(
    root: Path, fileset: FilesetName, old: NodeName, new: NodeName, owner: tuple[int, int] | None = None
) -> None:
    """The node has another name from now on: put it into the marker, if there is one. Refusals as ``check_marker``."""
    with open_root(root) as opened:
        marker = _read(opened, root, owner)
        if marker is None or marker.node in (new, NO_NODE):
            return
        _refuse_foreign(marker, root, fileset, old)
        with closing_fd(opened.open_dir(CONTROL_NAME)) as control:
            _write_durably(control, Marker(fileset, new, marker.random), owner, is_there=True)


def _write_durably(
    control: int, marker: Marker, owner: tuple[int, int] | None, *, is_there: bool = False
) -> None:
    text = msgspec.json.encode(marker) + b"\n"
    temporary = b"id." + secrets.token_hex(4).encode()
    with closing_fd(os.open(temporary, CREATE, 0o600, dir_fd=control)) as fd:
        if owner is not None:
            os.fchown(fd, *owner)
        os.write(fd, text)
        os.fsync(fd)
    try:
        if is_there:
            os.rename(temporary, b"id", src_dir_fd=control, dst_dir_fd=control)
        else:
            rename_noreplace(control, temporary, control, b"id")
    except RenameUnsupportedError:
        # A link never replaces: of two nodes that mark a shared root at once one is refused.
        os.link(temporary, b"id", src_dir_fd=control, dst_dir_fd=control, follow_symlinks=False)
        os.unlink(temporary, dir_fd=control)
    os.fsync(control)


def read_marker(root: Path, owner: tuple[int, int] | None = None) -> Marker | None:
    """The marker, None when there is none; ``marker_damaged`` when what is there is not a marker. ``owner`` is the
    daemon's uid and gid where root reads it."""
    with open_root(root) as opened:
        return _read(opened, root, owner)


def _read(opened: Root, root: Path, owner: tuple[int, int] | None = None) -> Marker | None:
    try:
        fd = opened.open(MARKER_PATH, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _not_a_marker(root, error.strerror) from error
    try:
        raw = os.read(fd, _MARKER_MAX)
        uid, top = os.fstat(fd).st_uid, os.fstat(opened.fd).st_uid
    except OSError as error:
        raise _not_a_marker(root, error.strerror) from error
    finally:
        os.close(fd)
    if uid not in (0, top, os.geteuid(), *(owner or ())[:1]):
        # In a directory that every user may write, every user can make a marker.
        raise _not_a_marker(root, f"it belongs to uid {uid}, the directory to uid {top}")
    try:
        return msgspec.json.decode(raw, type=Marker)
    except msgspec.DecodeError as error:
        raise _not_a_marker(root, str(error)) from error


def _not_a_marker(root: Path, why: str | None) -> RefusedError:
    control = root / os.fsdecode(CONTROL_NAME)
    found = control / "id" if control.is_dir() and not control.is_symlink() else control
    return RefusedError(
        f"{found} is not the marker that this node made: {why}",
        hint=f"find out which program changed it; then: mv {quote(str(found))} {quote(f'{found}-damaged')}",
        code=MARKER_DAMAGED,
        root=str(root),
    )


def set_damaged_aside(root: Path) -> str | None:
    """Rename what lies in the marker's place and is none, so that a marker can be made; its new name, None when the
    place is free or holds a marker. The new name is reserved as the marker's is: no scan takes it for content."""
    with open_root(root) as opened:
        try:
            _read(opened, root)
            return None
        except RefusedError as error:
            if error.error_code != MARKER_DAMAGED:
                raise
        ending = b"-damaged-" + secrets.token_hex(4).encode()
        control, held, name = None, opened.fd, CONTROL_NAME
        with Tolerated(errno.ENOTDIR, errno.ELOOP):
            control = opened.open_dir(CONTROL_NAME)
        try:
            if control is not None:
                held, name = control, b"id"
            rename_noreplace(held, name, held, name + ending)
        finally:
            if control is not None:
                os.close(control)
    return os.fsdecode((MARKER_PATH if control is not None else CONTROL_NAME) + ending)


def check_marker(
    root: Path,
    fileset: FilesetName,
    node: NodeName,
    random: str | None = None,
    owner: tuple[int, int] | None = None,
) -> Marker:
    """The marker when it is ours; ``RefusedError`` ``marker_missing``, ``marker_damaged``, ``marker_foreign`` or
    ``marker_replaced`` otherwise.

    ``random`` is the number that the node recorded at creation; None leaves that comparison out.
    """
    marker = read_marker(root, owner)
    if marker is None:
        raise _missing(root, fileset)
    _refuse_foreign(marker, root, fileset, node)
    if random is not None and marker.random != random:
        raise RefusedError(
            f"{root} carries another marker of {fileset} than the one that this node made",
            hint="mount the disk that was here before",
            code=MARKER_REPLACED,
            root=str(root),
        )
    return marker


def remove_marker(root: Path, fileset: FilesetName, node: NodeName) -> None:
    """Remove the marker if it belongs to ``fileset`` on ``node``, and its folder if nothing else lies there."""
    with open_root(root) as opened:
        marker = _read(opened, root)
        if marker is None or (marker.fileset, marker.node) != (fileset, node):
            return
        with closing_fd(opened.open_dir(CONTROL_NAME)) as control:
            os.unlink(b"id", dir_fd=control)
        with Tolerated(errno.ENOTEMPTY, errno.EEXIST):
            os.rmdir(CONTROL_NAME, dir_fd=opened.fd)


def _missing(root: Path, fileset: FilesetName) -> RefusedError:
    return RefusedError(
        f"{root} does not carry the marker of {fileset}: the disk may not be mounted, or was emptied",
        hint="mount the disk, or restore the directory with its .instep/id; nothing was changed",
        code="marker_missing",
        root=str(root),
        fileset=fileset,
    )


def _refuse_foreign(marker: Marker, root: Path, fileset: FilesetName, node: NodeName) -> None:
    if (marker.fileset, marker.node) != (fileset, node):
        ours, found = (f"of node {each}" if each else "on shared storage" for each in (node, marker.node))
        hint = "choose another directory, or remove that fileset first"
        if marker.fileset == fileset and not marker.node:
            hint = f"to use it beside the nodes that do: instep fileset accept {fileset} {quote(str(root))} --shared"
        raise RefusedError(
            f"{root} belongs to fileset {marker.fileset} {found}, not to {fileset} {ours}",
            hint=hint,
            code="marker_foreign",
            root=str(root),
            found_fileset=marker.fileset,
            found_node=marker.node,
        )
