"""Faults of the files in a node directory, for ``check``: keys, and modes that let others in."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from instep.net.trust.pki import Pki
from instep.net.trust.pki_problems import problems_of
from instep.node.directory import NodeDirectory

KEPT_NAMED_MAX = 5


def own_files(directory: NodeDirectory, pki: Pki, now_ms: int) -> list[tuple[str, str, str]]:
    """The name of a row, what was found, and the cure. Blocks."""
    keys = ((f"keys {each.what}", each.path, each.detail, each.hint) for each in problems_of(pki, now_ms))
    loose = (("node directory", path, said, cure) for path, said, cure in directory.loose())
    return [(name, f"{path}: {said}", cure) for name, path, said, cure in (*keys, *loose)]


def kept_states(database: Path) -> str | None:
    """Which damaged states an operator has not removed yet, in words; None for none."""
    name = database.name
    kept = sorted(p for p in database.parent.glob(f"{name}.damaged-*") if p.name[-1].isdigit())
    if not kept:
        return None
    names = " ".join(quote(str(path)) for path in kept[:KEPT_NAMED_MAX])
    words = "was damaged, and rebuilt from the tree and the partners; kept for a look: "
    return words + f"{names}; when seen: rm {names}"
