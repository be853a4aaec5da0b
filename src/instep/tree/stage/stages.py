"""Which stage directories there are: resume the target's own, adopt another target's, remove the rest."""

from __future__ import annotations

import contextlib
import os

from instep.errors import DamagedError
from instep.model.ids import Digest
from instep.model.manifest.manifest import GetPage, PageMissing, diff
from instep.tree.journal.journal import Header, Journal, decode_record, encode_record, stage_name
from instep.tree.journal.plan import object_key
from instep.tree.objects.inode import let_owner
from instep.tree.objects.laying import remove_object
from instep.tree.root.beneath import Root
from instep.tree.root.control_folder import on_opened, opened
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.kernel import ignores_modes
from instep.tree.root.place import Place
from instep.tree.root.records import RecordWriter, read_records
from instep.tree.stage.next_tree import NEXT, holding_next, take_apart


@on_opened
def open_stage(place: Place, base: Header, get_page: GetPage) -> tuple[bytes, bool]:
    """The stage directory for ``base.target``, made if needed, and whether it holds an earlier attempt.

    An attempt for the same target and base is resumed; one for another target against the same base is
    adopted, less the paths in which the targets differ; every other stage is removed.
    """
    stages = os.fsencode(place.stage)
    name = stage_name(base.target)
    os.makedirs(stages, 0o700, exist_ok=True)
    for other in prepared_stages(place):
        take_apart(place, other)
    found = _base_of(stages + b"/" + name)
    is_own = found is not None and _same_base(found, base) and found.target == base.target
    is_resumed = is_own or _adopt(place, base, name, get_page)
    clear_stages(place, name if is_resumed else b"")
    path = stages + b"/" + name
    if is_resumed:
        _open_directories(path)
    else:
        os.mkdir(path, 0o700)
    for below in (b"o", b"v"):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path + b"/" + below, 0o700)
    # A journal that was sealed before is written anew; a switch cannot have begun with it.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + b"/journal")
    if not is_resumed:
        _write_base(path, base)
    # Nothing is synced here: until the seal syncs it, a stage that a crash tears is none (no base, or a torn one).
    return path, is_resumed


def list_stages(place: Place) -> list[bytes]:
    try:
        with opened(place) as there:
            return sorted(os.listdir(os.fsencode(there.stage)))
    except FileNotFoundError:
        return []


def prepared_stages(place: Place) -> list[bytes]:
    """The stages that hold the next tree of an exchange, less the one of a switch that runs."""
    names = _idle_stages(place)
    if not names:
        return []
    with opened(place) as there:
        return holding_next(os.fsencode(there.stage), names)


def _idle_stages(place: Place) -> list[bytes]:
    journal = Journal.load(place)
    busy = journal.stage_name if journal is not None and not journal.is_switched else None
    return [name for name in list_stages(place) if name != busy]


def _base_of(path: bytes) -> Header | None:
    try:
        fd = os.open(path + b"/base", READ)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        for payload in read_records(fd):
            record = decode_record(payload)
            return record if isinstance(record, Header) else None
        return None
    except DamagedError:
        return None
    finally:
        os.close(fd)


def _same_base(a: Header, b: Header) -> bool:
    return (a.version, a.fileset, a.base_root) == (b.version, b.fileset, b.base_root)


def _adopt(place: Place, base: Header, name: bytes, get_page: GetPage) -> bool:
    """Make the stage of another target ours: remove where the targets differ, then rename."""
    stages = os.fsencode(place.stage)
    for other in list_stages(place):
        path = stages + b"/" + other
        found = _base_of(path)
        if other == name or found is None or not _same_base(found, base):
            continue
        if found.definition != base.definition:
            continue
        _open_directories(path)
        try:
            _remove_differences(path, found.target.root, base.target.root, get_page)
        except PageMissing:
            continue
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + b"/journal")
        clear_stages(place, other)
        # The base goes last: until it names the new target, this is the old target's stage, with holes.
        _write_base(path, base)
        os.rename(path, stages + b"/" + name)
        return True
    return False


def _open_directories(stage: bytes) -> None:
    """Staged directories whose modes would keep their owner out of them are opened; the seal closes them again."""
    if ignores_modes():
        return
    with Root(stage) as tree:
        pending = [b"o"]
        while pending:
            directory = pending.pop()
            for name in tree.names(directory):
                path = directory + b"/" + name
                if let_owner(*tree.open_parent(path), 0o700):
                    pending.append(path)


def _remove_differences(path: bytes, old_root: Digest, new_root: Digest, get_page: GetPage) -> None:
    with Root(path) as tree:
        for change in diff(old_root, new_root, get_page):
            old, new = change.old, change.new
            if old is None or (new is not None and old.kind is new.kind and old.digest == new.digest):
                continue  # nothing staged for it, or used again after hashing, with metadata set anew
            slot = staged_slot(tree, change.path)
            if slot is not None:
                tree.forget(slot)
                remove_object(*tree.open_parent(slot))


def staged_slot(tree: Root, path: bytes) -> bytes | None:
    """Where ``path`` is staged: in the next tree of an exchange, else in the object of itself or of one of its
    ancestors; None when it is not."""
    if tree.stat_or_none(NEXT) is not None:
        slot = NEXT + b"/" + path
        return slot if tree.stat_or_none(slot) is not None else None
    end = -1
    while True:
        end = path.find(b"/", end + 1)
        top = path if end < 0 else path[:end]
        slot = b"o/" + object_key(top) + path[len(top) :]
        if tree.stat_or_none(slot) is not None:
            return slot
        if end < 0:
            return None


def _write_base(path: bytes, base: Header) -> None:
    with closing_fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        with RecordWriter(b"base.new", fd) as writer:
            writer.add(encode_record(base))
            writer.flush()
        os.rename(b"base.new", b"base", src_dir_fd=fd, dst_dir_fd=fd)


def clear_stages(place: Place, keep: bytes = b"") -> None:
    """Remove every stage but ``keep``, and never the one of a switch that runs."""
    names = [name for name in _idle_stages(place) if name != keep]
    if not names:
        return
    with opened(place) as there:
        fd = os.open(there.stage, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with closing_fd(fd):
        for name in names:
            remove_object(fd, name)
