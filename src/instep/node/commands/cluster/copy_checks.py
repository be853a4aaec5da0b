"""Rows of ``check`` about copies wanted, where a fileset is written."""

from __future__ import annotations

from collections.abc import Iterator

from instep.api.parts import CopiesDocument
from instep.model.counts import counted
from instep.model.ids import FilesetName

_ENOUGH = "on as many nodes as wanted, by what they report now"


def copies_rows(
    name: FilesetName, found: tuple[CopiesDocument, ...]
) -> Iterator[tuple[str, bool, str, str, str | None]]:
    """Name, whether it is well, ours, theirs and the next step, one row a rule."""
    for each in found:
        wanted = f"{counted(each.documents, 'document')}, {each.wanted} wanted of each"
        well = _ENOUGH if each.documents else "no document has such a path"
        said = "; ".join(each.trouble) or well
        row = f"copies of {', '.join(each.paths)} in {name}"
        yield row, each.kept, wanted, said, "; or: ".join(each.next) or None
