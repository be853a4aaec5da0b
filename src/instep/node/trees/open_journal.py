"""A journal that is open on a writer's own tree: while there is one, the tree is neither old nor new."""

from __future__ import annotations

from instep.errors import ContentionError
from instep.tree.journal.journal import Journal


def refuse_open_journal(journal: Journal | None, name: str) -> None:
    """``ContentionError`` ``journal_open`` while a switch of the writer's own tree is not finished."""
    if is_open(journal):
        raise ContentionError(
            f"a restore of {name} is not finished: its journal is open",
            hint=f"it is finished or undone by itself, at once with: instep retry {name}",
            code="journal_open",
        )


def is_open(journal: Journal | None) -> bool:
    return journal is not None and not journal.is_switched
