"""Faults of the files in a node directory, for ``check``: keys, and modes that let others in."""

from __future__ import annotations

from instep.net.trust.pki import Pki
from instep.net.trust.pki_problems import problems_of
from instep.node.directory import NodeDirectory


def own_files(directory: NodeDirectory, pki: Pki, now_ms: int) -> list[tuple[str, str, str]]:
    """The name of a row, what was found, and the cure. Blocks."""
    keys = ((f"keys {each.what}", each.path, each.detail, each.hint) for each in problems_of(pki, now_ms))
    loose = (("node directory", path, said, cure) for path, said, cure in directory.loose())
    return [(name, f"{path}: {said}", cure) for name, path, said, cure in (*keys, *loose)]
