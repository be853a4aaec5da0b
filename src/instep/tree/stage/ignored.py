"""Looked at before a partner's switch begins: whether ignored paths keep a directory from becoming a file or link.

Ignored paths are never touched, so such a generation cannot arrive as a whole. Found here, it stops the switch before
the first step, and the partner goes on with the generation that it has.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator

from instep.errors import RefusedError
from instep.model.definition import decode_definition
from instep.model.ids import HeadRef
from instep.model.manifest.entry import Kind
from instep.model.paths import is_below, parent_of, shown
from instep.tree.journal.journal import Journal, Op, Step
from instep.tree.root.beneath import Root
from instep.tree.root.kernel import mounts_in
from instep.tree.root.marker import open_marked
from instep.tree.root.place import Place
from instep.tree.scan.rules import Rules
from instep.tree.scan.subtree import holds_ignored
from instep.tree.stage.probes import mount_in_the_way
from instep.tree.stage.shortage import shortage_named

_NAMED_MAX = 20


def refuse_ignored_in_the_way(place: Place, journal: Journal) -> None:
    """``RefusedError`` ``ignored_in_the_way`` when a step would put a file or symlink where a directory with ignored
    paths lies, ``ResourceError`` ``mount_in_the_way`` when a mount lies below that directory.

    A switch by exchange of the whole root has its own look.
    """
    if journal.is_exchange:
        return
    with shortage_named(place, "switched"), open_marked(place.root, place.fileset) as root:
        paths = list(_in_the_way(place, journal, root))
    if paths:
        raise ignored_in_the_way(place, journal.header.target, paths)


def ignored_in_the_way(place: Place, target: HeadRef, paths: Iterable[bytes]) -> RefusedError:
    """These paths cannot become what ``target`` says."""
    every = [shown(path) for path in paths]
    more = f" and {len(every) - 1} more" if len(every) > 1 else ""
    return RefusedError(
        f"{every[0]}{more} cannot become what generation {target.number} says: ignored paths lie in it, which stay",
        hint=f"move the ignored paths out of {place.root}/{every[0]}, then: instep retry {place.fileset}",
        code="ignored_in_the_way",
        path=every[0],
        paths=every[:_NAMED_MAX],
    )


def _in_the_way(place: Place, journal: Journal, root: Root) -> Iterator[bytes]:
    rules = Rules(decode_definition(journal.header.definition))
    mounts = mounts_in(root)
    if not rules.has_patterns and not mounts:
        return
    for path in _replaced_directories(journal.steps(), root):
        for mount in mounts:
            if is_below(mount, path):
                raise mount_in_the_way(place, path, mount)
        if holds_ignored(root, rules, path):
            yield path


def _replaced_directories(steps: Iterable[Step], root: Root) -> Iterator[bytes]:
    """The live directories that a file or symlink is to replace. What lies in a directory that these steps make is not
    looked at."""
    made: set[bytes] = set()
    for step in steps:
        if step.op not in (Op.NEW, Op.CHANGE) or step.new is None or parent_of(step.path) in made:
            is_made = step.op is Op.NEW
        else:
            found = root.stat_or_none(step.path)
            is_directory = found is not None and stat.S_ISDIR(found.st_mode)
            if is_directory and step.new.kind is not Kind.DIR:
                yield step.path
            is_made = not is_directory
        if is_made and step.new is not None and step.new.kind is Kind.DIR:
            made.add(step.path)
