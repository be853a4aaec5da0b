"""Collisions of filesets of many homes and of sync profiles, in one list."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from os import fsdecode

from msgspec import UNSET
from msgspec.structs import asdict

from instep.api.changes import collisions as api
from instep.api.changes import sync as sync_api
from instep.core.sync.table import Listing
from instep.core.union.listing import ListedCollision
from instep.errors import ContentionError, InstepError, RefusedError
from instep.model.ids import FilesetName
from instep.model.manifest.entry import Kind
from instep.model.paths import path_fields
from instep.node.commands.changes.sync import SyncCommands
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.outcomes import author
from instep.node.commands.targets import service_of
from instep.node.config.filesets import FilesetSettings
from instep.node.lines.line_service import LineService
from instep.node.lines.snapshot import moment
from instep.node.replica.collision_list import CollisionSide
from instep.node.replica.own_line import OwnLine

KINDS = {Kind.FILE: "file", Kind.SYMLINK: "link", Kind.DIR: "directory"}
Found = tuple[OwnLine, ListedCollision]


class Collisions(CommandHandlers):
    async def collisions_list(
        self, asked: api.CollisionsListCommand, speaker: Speaker
    ) -> api.CollisionsDocument:
        lines = self._lines(asked.fileset)
        found = [
            _document(line.fileset.name, row)
            for line in lines
            for row in line.replica.collisions.listed
            if asked.all or not row.reviewed_by
        ]
        left_out = sum(line.replica.collisions.book.left_out for line in lines)
        if asked.fileset is not None:
            return api.CollisionsDocument(collisions=tuple(found), left_out=left_out)
        not_asked = []
        for profile in self._node.runtime.settings.sync:
            try:
                found += await self._of_profile(profile, speaker, is_all=asked.all)
            except InstepError as error:
                not_asked.append(api.NotAskedDocument(profile, error.reason))
        return api.CollisionsDocument(collisions=tuple(found), left_out=left_out, not_asked=tuple(not_asked))

    async def collisions_show(
        self, asked: api.CollisionsShowCommand, speaker: Speaker
    ) -> api.CollisionShownDocument:
        found = self._found(asked.id, asked.fileset)
        if found is None:
            document = await self._in_profiles(asked.id, speaker)
            return api.CollisionShownDocument(**asdict(document), next=tuple(_steps(document, ())))
        line, row = found
        collisions, fileset = line.replica.collisions, line.fileset
        sides = await line.worker.run(collisions.sides, row.collision)
        document = _document(fileset.name, row)
        shown = tuple(_side(fileset, side) for side in sides)
        return api.CollisionShownDocument(
            **asdict(document), sides=shown, next=tuple(_steps(document, shown))
        )

    async def collisions_reviewed(
        self, asked: api.CollisionsReviewedCommand, speaker: Speaker
    ) -> api.ReviewedDocument:
        found = self._found(asked.id, asked.fileset)
        if found is None:
            document = await self._in_profiles(asked.id, speaker)
            assert document.profile is not None
            again = sync_api.SyncCollisionsCommand(profile=document.profile, reviewed=asked.id)
            await SyncCommands(self._context).sync_collisions(again, speaker)
            return api.ReviewedDocument(asked.id, not document.reviewed)
        line, row = found
        await line.worker.run(line.replica.collisions.review, asked.id, author() or "unknown")
        self._node.runtime.tell()
        return api.ReviewedDocument(asked.id, not row.reviewed_by)

    # --- what is listed -------------------------------------------------------------------------------------------

    def _lines(self, fileset: str | None) -> list[OwnLine]:
        """The filesets of many homes here; the named one must be one."""
        if fileset is None:
            return [each for each in self._node.services.values() if isinstance(each, OwnLine)]
        return [of_many_homes(service_of(self._node, fileset))]

    def _found(self, which: str, fileset: str | None) -> Found | None:
        """The collision of this id in a fileset; None where no fileset has one."""
        found = [
            (line, row)
            for line in self._lines(fileset)
            for row in line.replica.collisions.listed
            if row.collision.tag == which
        ]
        collision_id, names = which, sorted({line.fileset.name for line, _ in found})
        if len(names) > 1:
            raise ContentionError(
                f"{which} is a collision of {' and of '.join(names)}",
                hint=f"say which: instep collisions show {collision_id} --fileset {names[0]}",
                code="several_collisions",
                id=which,
            )
        if found:
            return found[0]
        if fileset is not None:
            raise _unknown(which)
        return None

    async def _in_profiles(self, which: str, speaker: Speaker) -> api.CollisionDocument:
        trouble: InstepError | None = None
        for profile in self._node.runtime.settings.sync:
            try:
                listed = await self._of_profile(profile, speaker, is_all=True)
            except InstepError as error:
                trouble = error
                continue
            for each in listed:
                if each.id == which:
                    return each
        raise trouble or _unknown(which)

    async def _of_profile(
        self, profile: str, speaker: Speaker, *, is_all: bool
    ) -> list[api.CollisionDocument]:
        asked = sync_api.SyncCollisionsCommand(profile=profile, all=is_all)
        told = await SyncCommands(self._context).sync_collisions(asked, speaker)
        return [_of_sync(profile, each) for each in told.listed]


def of_many_homes(line: LineService) -> OwnLine:
    """The service of a fileset of many homes; ``RefusedError`` for another one."""
    if not isinstance(line, OwnLine):
        raise RefusedError(
            f"{line.fileset.name} has one home, and no lines of others beside it",
            hint="instep fileset list",
            code="of_one_home",
        )
    return line


def _document(fileset: FilesetName, row: ListedCollision) -> api.CollisionDocument:
    collision = row.collision
    copy = path_fields(collision.shown)
    return api.CollisionDocument(
        id=collision.tag,
        fileset=fileset,
        profile=None,
        why=Listing.COLLISION.value,
        winner=collision.winner,
        loser=collision.origin,
        copy=copy["path"],
        copy_b64=copy.get("path_b64", UNSET),
        entries=collision.entries,
        phase=row.phase.value,
        since=moment(row.since_ms),
        reviewed=bool(row.reviewed_by),
        reviewed_by=row.reviewed_by or None,
        reviewed_at=moment(row.reviewed_ms) if row.reviewed_by else None,
        **path_fields(collision.component),
    )


def _of_sync(profile: str, listed: sync_api.SyncListedDocument) -> api.CollisionDocument:
    return api.CollisionDocument(
        id=listed.id,
        fileset=None,
        profile=profile,
        path=listed.path,
        path_b64=listed.path_b64,
        why=listed.why,
        winner=None,
        loser=listed.loser,
        copy=listed.copy,
        renamed_to=listed.renamed_to,
        reviewed=listed.reviewed,
        reason=listed.reason,
    )


def _side(fileset: FilesetSettings, side: CollisionSide) -> api.CollisionSideDocument:
    entry = side.entry
    is_file = entry is not None and entry.kind is Kind.FILE
    return api.CollisionSideDocument(
        file=fsdecode(bytes(fileset.path) + b"/" + side.path).encode(errors="replace").decode(),
        homes=side.origins,
        kind=None if entry is None else KINDS[entry.kind],
        size=entry.size if entry is not None and is_file else None,
        modified_at=moment(entry.mtime_ns // 1_000_000) if entry is not None and is_file else None,
        digest=entry.digest.hex() if entry is not None and is_file else None,
        **path_fields(side.path),
    )


def _steps(document: api.CollisionDocument, sides: tuple[api.CollisionSideDocument, ...]) -> Iterator[str]:
    """What a person can do about it: compare, keep one, keep both."""
    collision_id, kinds = document.id, {side.kind for side in sides}
    if kinds == {"file"}:
        yield f"compare both: diff -u {shlex.join(side.file for side in sides)}"
    if sides and None not in kinds:
        yield "keep one: remove the other one here, or replace it; its home is asked to do the same"
    if not document.reviewed:
        yield f"when you have looked at it: instep collisions reviewed {collision_id}"


def _unknown(which: str) -> RefusedError:
    return RefusedError(
        f"no collision {which} is listed here",
        hint="instep collisions list --all",
        code="unknown_listing",
        id=which,
    )
