"""The words of commands for paths that a writer's scans could not carry: each with the reason and the next step."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instep.api.parts import HeldDocument, ReportedDocument
from instep.core.guards.held import IGNORED_INSIDE, MOVED_ON, HeldPaths, ScanProblem, is_held, words_of
from instep.core.publish.vocabulary import PublishFacts
from instep.model.counts import counted
from instep.model.paths import path_fields
from instep.node.config.filesets import FilesetSettings
from instep.tree.root.os_errors import help_for, number_of
from instep.tree.scan.listing import NOT_KEPT

SHOWN_MAX = 200

_WHY = {
    "mount": "another file system is mounted here",
    "pipe": "it is a named pipe",
    "socket": "it is a socket",
    "device": "it is a device",
    "unreadable": "it cannot be read",
    "unstable": "it is being written",
    "hot": "it changes all the time, so it is published now and then",
    "open": "a program has it open for writing",
    IGNORED_INSIDE: "it is not what the generation says: ignored paths lie in it, and those are never touched",
    MOVED_ON: "it is not what the generation says: a program changed it while the tree was brought back",
}


_WRITTEN = ("unstable", "open", "hot")
"""Problems that a program's writing causes. Removing the file at the partners helps no one, so that is not offered."""


_MAKE_ROOM = "free space on the file system of the fileset, or make it writable; it goes on by itself"


def _why_of(problem: ScanProblem) -> str:
    """Why a path is not carried, and the partners' entry instead."""
    why = _WHY.get(problem.what, "")
    if problem.detail in NOT_KEPT.values():
        why = problem.detail
    elif not why or (problem.detail and problem.what in ("unreadable", "unstable", "open", "hot")):
        why = f"{why}: {problem.detail}" if why else problem.detail or problem.what
    if not is_held(problem) or problem.what in (IGNORED_INSIDE, MOVED_ON):
        return why
    if not problem.entries:
        return f"{why}; it was never published and stays out"
    below = f" with {counted(problem.entries - 1, 'path')} below it" if problem.entries > 1 else ""
    return f"{why}; it keeps its last entry{below}"


def _next_of(fileset: FilesetSettings, problem: ScanProblem) -> list[str]:
    """The steps that free a path: commands that work as they are typed, and otherwise sentences."""
    at = _typed(str(fileset.path / problem.path.decode("utf-8", "surrogateescape")))
    steps = {
        "mount": f"umount {at}" if at else "unmount it",
        "bad_time": f"touch {at}" if at else "touch it",
        "pipe": "put a file there again",
        "socket": "put a file there again",
        "device": "put a file there again",
        "unstable": "wait until the program that writes it is done",
        "open": "wait until the program that writes it is done",
        "hot": "publish a snapshot that its program makes, and ignore the file itself",
        "bad_name": "rename it",
        "too_long": "move it to a shorter path",
        "too_deep": "move it up in the tree",
        IGNORED_INSIDE: f"move the ignored paths out of {at or 'it'}, then repeat the command",
        MOVED_ON: "repeat the command",
    }
    found = [steps.get(problem.what, "put it right")]
    if problem.what == "unreadable":
        found = [
            _readable_again(fileset.path / problem.path.decode("utf-8", "surrogateescape"), problem.detail)
        ]
    if problem.what in _WRITTEN:
        return [*found, *_ignoring(fileset, problem.path)]
    if is_held(problem) and problem.entries:
        typed = _typed(problem.path.decode("utf-8", "surrogateescape"))
        found.append(f"instep publish {fileset.name} --accept-held {typed}".rstrip())
    return found


def _readable_again(path: Path, detail: str) -> str:
    if detail in NOT_KEPT.values():
        return _MAKE_ROOM
    number = number_of(detail)
    if number in (0, errno.EACCES, errno.EPERM):
        return "make it readable for the user that instep runs as, or ignore it"
    return help_for(number, path)[1]


def _ignoring(fileset: FilesetSettings, path: bytes) -> list[str]:
    """The command that ignores a path beside what is ignored already; none where it cannot be typed."""
    before = fileset.definition.ignore if fileset.definition is not None else ()
    text = "/" + path.decode("utf-8", "surrogateescape")
    if any(character in each for each in (*before, text) for character in ",*?[]\\!"):
        return []
    typed = _typed(",".join((*before, text)))
    return [f"instep fileset set {fileset.name} ignore={typed}"] if typed else []


def _typed(text: str) -> str:
    """A path as it is typed in a shell; empty for one that cannot be."""
    return shlex.quote(text) if text.isprintable() else ""


def held_documents(fileset: FilesetSettings, held: HeldPaths) -> tuple[HeldDocument, ...]:
    """The ``held`` of ``publish``, ``wait`` and ``status``."""
    return tuple(_document(fileset, each) for each in held.listed[:SHOWN_MAX])


def reported_documents(reported: HeldPaths) -> tuple[ReportedDocument, ...]:
    """Paths of kinds that are never carried, where nothing was published: they hold nothing up."""
    return tuple(
        ReportedDocument(what=each.what, why=_why_of(each), **path_fields(each.path))
        for each in reported.listed[:SHOWN_MAX]
    )


def held_of_line(fileset: FilesetSettings, facts: PublishFacts) -> dict[str, Any]:
    """What ``status`` and ``diff`` add to a line at its writer, by field."""
    return {
        "held": held_documents(fileset, facts.held),
        "held_total": facts.held.total,
        "reported": reported_documents(facts.reported),
        "reported_total": facts.reported.total,
    }


def _document(fileset: FilesetSettings, problem: ScanProblem) -> HeldDocument:
    return HeldDocument(
        what=problem.what,
        why=_why_of(problem),
        keeps=problem.entries,
        next=tuple(_next_of(fileset, problem)),
        **path_fields(problem.path),
    )


def explained(
    fileset: FilesetSettings, facts: PublishFacts, path: bytes | None
) -> dict[str, tuple[HeldDocument, ...]]:
    """What ``explain FILESET PATH`` adds: why a path, or one above it, is not carried as it is now."""
    problem = _problem_at(path, facts.held, facts.reported) if path else None
    if problem is None:
        return {}
    return {"held" if is_held(problem) else "reported": (_document(fileset, problem),)}


def check_words(held: HeldPaths, reported: HeldPaths) -> tuple[bool, str]:
    """Whether ``check`` counts the paths as right, and its words for them."""
    not_carried = f"not carried: {words_of(reported.listed, reported.total)}" if reported.total else ""
    if held.total:
        named = f"{held.total} held: {words_of(held.listed, held.total)}"
        return False, f"{named}; {not_carried}" if not_carried else named
    return True, not_carried or "all can be carried"


def _problem_at(path: bytes, *sets: HeldPaths) -> ScanProblem | None:
    """The problem that a path has, or that a directory above it has."""
    known = {each.path: each for found in sets for each in found.listed}
    at = path
    while at:
        if at in known:
            return known[at]
        at = at.rpartition(b"/")[0]
    return None


def standing_steps(fileset: FilesetSettings, held: Sequence[ScanProblem]) -> tuple[str, ...]:
    """The next step of a standing that counts held paths: the steps of the first path."""
    return tuple(_next_of(fileset, held[0])) if held else (f"instep publish {fileset.name}",)
