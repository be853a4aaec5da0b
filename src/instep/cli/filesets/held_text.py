"""Paths that are held at their last entries, for people, and the exit code that says that there are some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click
from msgspec import UNSET, UnsetType

from instep.api.lines import OutcomeDocument, WaitDocument
from instep.api.parts import HeldDocument, ReportedDocument
from instep.cli.output import printable
from instep.model.counts import which

SET_ASIDE = 20
NAMED_MAX = 20


def held_lines(held: tuple[HeldDocument, ...] | UnsetType, total: int | UnsetType = UNSET) -> Iterator[str]:
    """Each held path with why and what to do, then the number of the others."""
    if held is UNSET:
        return
    for each in held[:NAMED_MAX]:
        yield f"  held: {printable(each.path)}: {printable(each.why)}"
        if each.next:
            yield f"    next: {'; or: '.join(printable(step) for step in each.next)}"
    more = (total or len(held)) - len(held[:NAMED_MAX])
    if more > 0:
        yield f"  and {more} more {which(more, 'is', 'are')} held"


def reported_lines(
    reported: Sequence[ReportedDocument] | UnsetType, total: int | UnsetType = UNSET
) -> Iterator[str]:
    """Paths that hold nothing up: of kinds that are never carried, and files that were carried while a program had
    them open for writing."""
    if reported is UNSET:
        return
    opened = [each for each in reported if each.what == "open"]
    others = [each for each in reported if each.what != "open"]
    count = (total or len(reported)) - len(opened)
    if count:
        named = ", ".join(f"{printable(each.path)} ({printable(each.what)})" for each in others[:3])
        yield f"  not carried: {named}" + (f" and {count - 3} more" if count > 3 else "")
    if opened:
        named = ", ".join(printable(each.path) for each in opened[:3])
        yield f"  open for writing: {named}" + (f" and {len(opened) - 3} more" if len(opened) > 3 else "")


def exit_if_held(document: OutcomeDocument | WaitDocument, *, ok: bool) -> None:
    """Exit 20 when the rest is done and single paths are held."""
    if not ok and (document.held_total or document.held):
        raise click.exceptions.Exit(SET_ASIDE)
