"""Packages of a staged union that name withheld files: they are withheld, too, until those come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from instep.core.union.packages import PACKAGE_BYTES_MAX, names_any
from instep.errors import UnavailableError
from instep.model.counts import counted
from instep.model.definition import Definition
from instep.model.ids import Digest, FilesetName, NodeName
from instep.model.manifest.entry import Kind
from instep.model.manifest.manifest import diff
from instep.model.replication.union import Withheld
from instep.node.replica.laid import Laid
from instep.node.replica.stand import paths_named
from instep.tree.root.beneath import Root
from instep.tree.stage.package_order import packages_of
from instep.tree.stage.stages import staged_slot


def waiting_packages(
    stage: bytes | None,
    me: NodeName,
    target: Laid,
    now: Laid,
    definition: Definition,
    get_page: Callable[[Digest], bytes],
) -> tuple[Withheld, ...]:
    """The new and changed packages of other homes in ``target``, staged there, that name a file which it withholds. In
    the worker thread."""
    packages, missing = packages_of(definition), [each.wanted.path for each in target.withheld]
    if packages is None or not missing or stage is None:
        return ()
    found = []
    with Root(stage) as tree:
        for change in diff(now.united.root, target.united.root, get_page):
            if change.new is None or change.new.kind is not Kind.FILE:
                continue
            for source in target.ownership.of(change.path):
                if source.origin == me or not packages.ignored(source.path, is_dir=False):
                    continue
                slot = staged_slot(tree, change.path)
                if slot is None or not names_any(_contents(stage + b"/" + slot), missing):
                    continue
                line = now.lines.by_origin.get(source.origin)
                kept = line.lookup(source.path) if line is not None else None
                kept = None if kept is None or kept.kind is Kind.DIR or kept == source.entry else kept
                found.append(Withheld(source.origin, source.entry, kept))
    return tuple(found)


def _contents(path: bytes) -> bytes:
    """Of a staged file as much as shows whether it is too large."""
    with Path(path.decode("utf-8", "surrogateescape")).open("rb") as file:
        return file.read(PACKAGE_BYTES_MAX + 1)


def packages_wait(name: FilesetName, held: tuple[Withheld, ...]) -> UnavailableError:
    return UnavailableError(
        f"{counted(len(held), 'package')} of {name} wait for files that cannot be had: {paths_named(held)}",
        hint=f"instep retry {name}",
        code="package_waits",
    )
