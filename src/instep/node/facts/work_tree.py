"""Settings that suit a work tree of git better, for ``add`` and ``check`` of a fileset that is written here."""

from __future__ import annotations

import os
from shlex import quote

from instep.node.config.filesets import FilesetSettings
from instep.tree.scan.rules import Rules

LOCK = b".git/index.lock"


def git_words(fileset: FilesetSettings) -> str | None:
    """That git's own files are carried, or that a pull may be published half way; None where nothing is to be said."""
    definition = fileset.definition
    if definition is None or not os.path.lexists(fileset.path / ".git"):
        return None
    is_carried = not Rules(definition).ignored(b".git", True)
    sets, holds = [], [os.fsdecode(path) for path in fileset.hold_while]
    if is_carried:
        sets.append(f"ignore={','.join((*definition.ignore, '.git'))}")
    if LOCK not in fileset.hold_while:
        sets.append(f"hold_while={','.join((*holds, os.fsdecode(LOCK)))}")
    if not sets:
        return None
    what = "its .git is carried too" if is_carried else "a pull may be published half way"
    return (
        f"{fileset.name} is a work tree of git, {what}; next: "
        f"instep fileset set {fileset.name} {' '.join(map(quote, sets))}"
    )
