"""A root that lost its marker, or that is gone, is taken again: an operator's word that this is the directory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from shlex import quote

from msgspec import UNSET

from instep.api import filesets as api
from instep.core.vocabulary import RootBack
from instep.errors import RefusedError
from instep.model.ids import HeadRef
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.targets import service_of
from instep.node.config.filesets import FilesetSettings
from instep.node.facts.mounts import require_mount
from instep.node.lines.line_service import LineService
from instep.node.node import Node
from instep.node.runtime.driver import wall_ms
from instep.node.trees.placing import ADOPTABLE, known_marker, marked_node, take_root
from instep.node.trees.tree_comparison import Numbers, TreeComparison
from instep.tree.root.marker import check_marker, set_damaged_aside
from instep.tree.root.place import Place


class Adopting(CommandHandlers):
    async def adopt(self, asked: api.FilesetAdoptCommand, speaker: Speaker) -> api.AcceptedDocument:
        """Write the marker again, unless the directory holds nothing of the generation that it should hold."""
        service = service_of(self._node, asked.fileset or asked.name)
        fileset = service.fileset
        _require_own(fileset, asked.path)
        is_lost = await asyncio.to_thread(_is_marker_lost, self._node, fileset)
        head = service.head if service.is_written_here else service.live
        numbers, is_of_it, refusal = Numbers(), True, None
        if is_lost and head is not None:
            numbers, is_of_it = await asyncio.to_thread(_compared, service, head)
            if not is_of_it and not asked.empty:
                refusal = _nothing_of_it(fileset, head)
        if refusal is not None and not asked.dry_run:
            raise refusal
        why = "it has its marker already" if not is_lost else refusal.reason if refusal is not None else UNSET
        if is_lost and not asked.dry_run:
            await take_again(self._node, service)
        return api.AcceptedDocument(
            fileset=fileset.name, path=str(fileset.path), writer=fileset.writer,
            changed=is_lost and not asked.dry_run, why=why,
            next=(refusal.hint or "",) if refusal is not None else UNSET, empty=not is_of_it, only_here=numbers.extra,
            only_there=numbers.missing, differing=numbers.changed,
            generation=head.number if head is not None else UNSET,
        )  # fmt: skip


async def take_again(node: Node, service: LineService) -> None:
    """Make and mark the root, and begin the line anew on it, for its watch sees the directory of before. The whole
    tree is looked at before the line is in step again."""
    fileset = service.fileset
    await asyncio.to_thread(require_mount, fileset.name, fileset.path, fileset.expect_mount)
    if fileset.shared:
        raise RefusedError(
            f"{fileset.name} is on shared storage, and its marker is that of all nodes",
            hint=f"mount it; or, where the storage is new: instep fileset remove {fileset.name}; then accept it anew "
            "with --shared",
            code="shared_root_lost",
            fileset=fileset.name,
        )
    aside = await asyncio.to_thread(set_damaged_aside, fileset.path) if fileset.path.exists() else None
    definition = service.known_definition()
    is_secret = definition is not None and definition.is_secret
    take_root(node.runtime, fileset.name, fileset.path, make=True, is_secret=is_secret)
    kept = f"; what lay in the marker's place is {aside} now" if aside is not None else ""
    node.runtime.note("adopted", f"{fileset.path} is taken again as {fileset.name}{kept}", service.line)
    node.begin_again(fileset.name)
    node.services[fileset.name].driver.post(RootBack())


def _is_marker_lost(node: Node, fileset: FilesetSettings) -> bool:
    """Whether an adopt has something to do: no marker, none that can be read, or another one of this fileset. The
    marker of another fileset or node is a refusal."""
    name, runtime = fileset.name, node.runtime
    known = known_marker(runtime.store, name)
    try:
        check_marker(
            fileset.path,
            name,
            marked_node(fileset, runtime.name),
            known.random if known is not None else None,
        )
    except RefusedError as error:
        if error.error_code in ADOPTABLE:
            return True
        raise
    return False


def _require_own(fileset: FilesetSettings, path: str) -> None:
    name, why, hint = fileset.name, "", ""
    if Path(path) != fileset.path:
        why, hint = (
            f"{name} is in {fileset.path}, not in {path}",
            f"instep fileset adopt {name} {quote(str(fileset.path))}",
        )
    elif fileset.observe:
        why = f"{name} is only observed, and such a tree has no marker"
        hint = f"instep fileset accept {name} {quote(path)} --seed"
    if why:
        raise RefusedError(
            why, hint=hint, code="not_adopted", fileset=name, ours=str(fileset.path), asked=path
        )
    require_mount(name, fileset.path, fileset.expect_mount)


def _compared(service: LineService, head: HeadRef) -> tuple[Numbers, bool]:
    """How the directory differs from the generation, by stats; and whether anything of that is there."""
    tree, store, name = service.tree, service.runtime.store, service.fileset.name
    definition, path = tree.definition(head), service.fileset.path
    place, local = Place(path, path / ".instep", name), tree.local(definition)
    comparison = TreeComparison(store, place, name, definition, local, None, keep_rows=False)
    numbers = comparison.numbers(comparison.everything(head.root, wall_ms(), deep=False))
    signed = store.generation(head.id)
    entries = signed.body().entries if signed is not None else 0
    return numbers, not entries or numbers.missing < entries


def _nothing_of_it(fileset: FilesetSettings, head: HeadRef) -> RefusedError:
    name, at = fileset.name, quote(str(fileset.path))
    new = f"instep fileset accept {name} {at} --replace"
    if fileset.is_written_here:
        new = f"instep fileset adopt {name} {at} --empty; then: instep restore {name}"
    return RefusedError(
        f"{fileset.path} holds nothing of {name} generation {head.number}: its disk may not be mounted",
        hint=f"mount the disk; or, where it is new: {new}",
        code="nothing_of_it",
        fileset=name,
        generation=head.number,
    )


async def taken_again(node: Node, service: LineService, mode: str | None) -> bool:
    """Whether the root of a line that is followed here was lost, and is taken again now: only with a ``mode``. The
    root's own refusal otherwise."""
    try:
        await asyncio.to_thread(service.tree.place)
    except RefusedError as error:
        if mode not in ("replace", "seed") or error.error_code not in ("root_missing", "marker_missing"):
            raise
        await take_again(node, service)
        return True
    return False
