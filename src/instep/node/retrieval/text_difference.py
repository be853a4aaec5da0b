"""The text of one path on both sides of a difference: of two generations, or of the head and the tree as it is now.

Contents come from where ``restore --to`` finds them. Only a path that differs is read, so no ignored file is shown.
"""

from __future__ import annotations

import asyncio
import base64
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET

from instep.api.looking import ChangeDocument
from instep.errors import RefusedError, UsageError
from instep.model.counts import sized
from instep.model.ids import HeadRef
from instep.model.manifest.entry import Kind
from instep.model.manifest.manifest import Change, diff
from instep.model.manifest.walk import Reader
from instep.model.paths import shown
from instep.node.lines.line_service import LineService
from instep.node.lines.partner_contents import PartnerContents
from instep.node.retrieval.fetching_out import FetchingOut
from instep.node.retrieval.line_difference import TEXT_MAX, difference, is_binary
from instep.node.retrieval.restoring_out import RestoringOut
from instep.node.trees.keeping.page_walk import must_have
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import closing_fd

SHOWN_CLASSES = ("metadata", "data")
"""The classes of filesets whose texts may be shown."""
CHANGES_MAX = 100_000
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class TextSide:
    """One side: ``why`` it has no text, else its bytes; without either there is no such path on this side."""

    raw: bytes | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class TextDifference:
    """``why`` is empty where both sides are texts, or one side is none at all."""

    lines: tuple[str, ...] = ()
    is_cut: bool = False
    why: str = ""


class TextDifferences:
    """Of one line's fileset."""

    def __init__(self, service: LineService) -> None:
        self._service = service
        self._get = must_have(lambda digest: service.runtime.store.get_page(digest))

    async def between(self, old: HeadRef, new: HeadRef, path: bytes) -> TextDifference:
        """Of two generations. ``UsageError`` ``no_difference``, ``no_such_path``."""
        self._require_class()
        await asyncio.to_thread(self._require_known, (old, new), path)
        after, before = await asyncio.gather(
            asyncio.to_thread(self._change, old, new, path), asyncio.to_thread(self._change, new, old, path)
        )
        if after is None or before is None:
            raise _no_difference(self._service.fileset.name, path)
        return await _compared(await self._side(old, before), await self._side(new, after))

    async def pending(self, head: HeadRef | None, path: bytes) -> TextDifference:
        """Of the head and the tree as it is now. ``UsageError`` ``no_difference``, ``no_such_path``."""
        self._require_class()
        changes = await self._service.worker.run(self._service.changes_now, CHANGES_MAX)
        if path not in map(_path_of, changes):
            await asyncio.to_thread(self._require_known, () if head is None else (head,), path)
            raise _no_difference(self._service.fileset.name, path)
        before = None if head is None else await asyncio.to_thread(self._change, None, head, path)
        old = TextSide() if before is None or head is None else await self._side(head, before)
        return await _compared(old, await self._service.worker.run(self._in_tree, path))

    def _require_class(self) -> None:
        definition = self._service.known_definition()
        if definition is None or definition.fileset_class.value not in SHOWN_CLASSES:
            raise RefusedError(
                f"the files of {self._service.fileset.name} are shown to no caller, for their class",
                hint="compare them on the nodes, as their owner",
                code="not_shown",
            )

    def _require_known(self, generations: tuple[HeadRef, ...], path: bytes) -> None:
        """Whether one of them has the path. The tree is not asked, for it has ignored paths, too."""
        reader = Reader(self._get)
        if all(reader.lookup(each.root, path) is None for each in generations):
            raise UsageError(
                f"neither side of the difference has {shown(path)}; paths are relative to the root",
                hint=f"see the paths that differ: instep diff {self._service.fileset.name}",
                code="no_such_path",
                path=shown(path),
            )

    def _change(self, old: HeadRef | None, new: HeadRef, path: bytes) -> Change | None:
        changes = diff(None if old is None else old.root, new.root, self._get)
        return next((change for change in changes if change.path == path), None)

    async def _side(self, ref: HeadRef, change: Change) -> TextSide:
        entry = change.new
        if entry is None:
            return TextSide()
        if entry.kind is Kind.DIR:
            return TextSide(why="a directory")
        if entry.size > TEXT_MAX:
            return TextSide(why=_too_large(entry.size))
        service = self._service
        fetching = FetchingOut(
            service, ref, PartnerContents(service.line, service.lenders()), sorted(service.sources)
        )
        await RestoringOut(fetching).require_contents([change])

        def read() -> bytes:
            with closing_fd(os.memfd_create("text", os.MFD_CLOEXEC)) as fd:
                fetching.put(change, entry, service.tree.contents(), fd)
                return os.pread(fd, entry.size, 0)

        return TextSide(await asyncio.to_thread(read))

    def _in_tree(self, path: bytes) -> TextSide:
        with Root(self._service.fileset.path) as root:
            found = root.stat_or_none(path)
            if found is None:
                return TextSide()
            if stat.S_ISLNK(found.st_mode):
                return TextSide(root.readlink(path))
            if not stat.S_ISREG(found.st_mode):
                return TextSide(why="a directory" if stat.S_ISDIR(found.st_mode) else "no file")
            with closing_fd(root.open(path, _READ)) as fd:
                size = os.fstat(fd).st_size
                return (
                    TextSide(why=_too_large(size)) if size > TEXT_MAX else TextSide(os.pread(fd, TEXT_MAX, 0))
                )


def relative_to(root: Path, path: bytes) -> bytes:
    """``path`` as a manifest has it, also where a person typed ``./`` or the absolute path."""
    plain, top = os.path.normpath(path), os.fsencode(root)
    return plain.removeprefix(top + b"/").strip(b"/")


def _path_of(change: ChangeDocument) -> bytes:
    return change.path.encode() if change.path_b64 is UNSET else base64.b64decode(str(change.path_b64))


async def _compared(old: TextSide, new: TextSide) -> TextDifference:
    why = old.why or new.why
    if not why and (is_binary(old.raw or b"") or is_binary(new.raw or b"")):
        why = "binary"
    if why:
        return TextDifference(why=why)
    if old.raw == new.raw:
        return TextDifference(why="the same contents; its mode, owner, time or attributes differ")
    lines, is_cut = await asyncio.to_thread(difference, old.raw or b"", new.raw or b"")
    return TextDifference(lines, is_cut)


def _too_large(size: int) -> str:
    return f"{sized(size)}, and texts up to {sized(TEXT_MAX)} are shown"


def _no_difference(fileset: str, path: bytes) -> UsageError:
    return UsageError(
        f"{shown(path)} does not differ",
        hint=f"see the paths that do: instep diff {fileset}",
        code="no_difference",
        path=shown(path),
    )
