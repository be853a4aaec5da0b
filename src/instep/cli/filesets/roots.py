"""The root of a new fileset: checked and marked for ``fileset add`` and its kin."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import Any

from instep.api.filesets import FilesetOffersCommand
from instep.cli.control import DaemonDown
from instep.cli.session import Session, absolute
from instep.errors import ConfigError, InstepError, RefusedError
from instep.model.counts import counted, which
from instep.model.ids import FilesetName
from instep.model.share import share_of
from instep.node.config.editing import edits
from instep.node.config.filesets import FilesetSettings
from instep.node.facts.owners import Foreign, foreign_in, of_written
from instep.node.facts.work_tree import git_words
from instep.tree.root.marker import check_marker, create_marker, read_marker
from instep.tree.root.place import resolve_place

OFFERS_S = 30.0


def root_of(typed: str) -> str:
    """The root as configuration keeps it. ``RefusedError`` for a directory of a file server, in any form: a path of a
    file server is no path of this machine, and a root that is not mounted must not look like an empty one."""
    share = share_of(typed)
    if share is None:
        return absolute(typed)
    place = f"/mnt/{share.path.strip('/').rpartition('/')[2] or 'files'}"
    raise RefusedError(
        f"{typed} is a directory of the file server {share.host}, and a root is a directory of this machine",
        hint=f"mount {quote(str(share))}, for example at {quote(place)}, and name that place",
        code="root_is_share",
        root=typed,
        server=share.host,
    )


def all_wrong(
    session: Session, name: str, root: str, given: dict[str, Any], refused: RefusedError
) -> InstepError:
    """The refusal of the root, together with all that is wrong with the other words: one error reports all."""

    def stop() -> None:
        raise refused

    try:
        edits.add_fileset(session.node, name, root, given, stop)
    except ConfigError as error:
        path = f"filesets.{name}.path"
        found = error.facts.get("problems")
        problems = [each for each in found if each["key"] != path] if isinstance(found, list) else []
        if not problems:
            return refused
        told = [{"line": None, "key": path, "value": root, "why": refused.reason}, *problems]
        return ConfigError(
            f"{name} is not added, {counted(len(told), 'thing')} {which(len(told), 'is', 'are')} wrong",
            hint=refused.hint,
            code=error.error_code,
            **{**refused.facts, **error.facts, "problems": told},
        )
    except InstepError as error:
        return error
    return refused


def check_root(session: Session, name: FilesetName, root: Path) -> None:
    """Whether a new fileset may lie there on this machine; ``RefusedError`` with the reason otherwise."""
    if not root.is_dir():
        raise RefusedError(
            f"{root} is not a directory",
            hint=f"mkdir -p {root}, or name the right one",
            code="root_missing",
            root=str(root),
        )
    settings = session.settings()
    others = [other.path for other in settings.filesets.values()]
    resolve_place(root, name, others=others, node_dir=session.node.path)
    owner = session.node.owner
    if read_marker(root, owner) is not None:
        check_marker(root, name, settings.name, owner=owner)


def require_no_writer(session: Session, name: FilesetName, root: Path, mode: str) -> None:
    """``RefusedError`` when a partner offers a fileset of this name: it would have two writers. In mode replicate it
    has as many as there are nodes, all of that mode. A stopped daemon knows no offers: once it runs, its status
    warns."""
    try:
        offers = session.call(FilesetOffersCommand(), OFFERS_S).offers
    except DaemonDown:
        return
    writers = sorted({offer.writer for offer in offers if offer.name == name and offer.mode != mode})
    if mode == "mirror":
        writers = sorted({offer.writer for offer in offers if offer.name == name})
    if writers and mode == "replicate":
        raise RefusedError(
            f"{name} is a mirror of {', '.join(writers)}: it has one writer",
            hint=f"to follow it: instep fileset accept {name} {quote(str(root))}; else choose another name",
            code="two_writers",
            writers=writers,
        )
    if writers:
        raise RefusedError(
            f"{name} is written on {', '.join(writers)}, and a name has one writer",
            hint=f"to follow it: instep fileset accept {name} {quote(str(root))}; else choose another name",
            code="two_writers",
            writers=writers,
        )


def mark_root(session: Session, name: FilesetName, root: Path) -> None:
    """Mark the root of a new fileset. Nothing marks it later: a missing marker means a missing disk (P10)."""
    owner = session.node.owner
    if read_marker(root, owner) is None:
        create_marker(root, name, session.settings().name, owner)


def foreign_owners(session: Session, root: Path) -> Foreign:
    """The owners of a tree besides the user of this node's daemon."""
    uid, _ = session.node.owner or (os.geteuid(), os.getegid())
    return foreign_in(root, uid) if root.is_dir() else Foreign()


def words_of_root(session: Session, fileset: FilesetSettings) -> tuple[list[str], list[str]]:
    """Warnings about the tree of a fileset that is written here, and a line where owners are carried."""
    foreign = foreign_owners(session, fileset.path)
    trouble = of_written(fileset, foreign)
    carried = [f"files belong to {foreign}: their owners are carried, by name"] if foreign.names else []
    warnings = [str(each) for each in (trouble, git_words(fileset)) if each is not None]
    return warnings, [] if trouble is not None else carried


def how_to_invite(session: Session, settings: Any) -> str:
    """The command that can work: a node that only this machine reaches needs an address first."""
    from instep.node.peers.reachability import check_invitation

    try:
        check_invitation(settings, ("NAME",), None, session.node.path)
    except RefusedError as error:
        return str(error.hint)
    return "instep invite NAME"
