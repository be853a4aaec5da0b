"""Parts of an application that lie outside of its files and that nothing here carries, such as a database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

NAME_MAX = 63
TEXT_MAX = 500
EXTERNALS_MAX = 64

_Text = Annotated[str, Meta(min_length=1, max_length=TEXT_MAX)]


class External(msgspec.Struct, frozen=True, array_like=True):
    """A named part. ``covered_by`` says what carries it instead, ``not_covered`` why nothing does; it is marked when it
    has one of them."""

    name: Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]
    kind: Annotated[str, Meta(min_length=1, max_length=NAME_MAX)] = "database"
    covered_by: _Text | None = None
    not_covered: _Text | None = None

    @property
    def is_marked(self) -> bool:
        return self.covered_by is not None or self.not_covered is not None

    def __str__(self) -> str:
        return f"the {self.kind} {self.name}"


def unmarked(externals: Iterable[External]) -> tuple[External, ...]:
    return tuple(each for each in externals if not each.is_marked)


def said_of(external: External) -> str:
    """What the inventory says of a part, in one phrase."""
    if external.covered_by is not None:
        return f"covered by {external.covered_by}"
    return f"not covered: {external.not_covered}" if external.not_covered is not None else "not marked"


def why_unmarked(externals: Iterable[External], side: str = "") -> str | None:
    """The unmarked parts in one sentence, with the side of a sync profile that has them; None where there are none."""
    found = [str(each) + (f" of {side}" if side else "") for each in unmarked(externals)]
    if not found:
        return None
    are = "is" if len(found) == 1 else "are"
    return f"{' and '.join(found)} {are} not carried, and not marked as covered or not covered"


def mark_steps(fileset: str, externals: Iterable[External]) -> tuple[str, ...]:
    """The commands that mark the parts that are not."""
    return tuple(
        step
        for each in unmarked(externals)
        for step in (
            f"instep fileset external add {fileset} {each.name} --covered-by TEXT",
            f"instep fileset external add {fileset} {each.name} --not-covered REASON",
        )
    )
