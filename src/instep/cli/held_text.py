"""Paths that are held at their last entries, for people, and the exit code that says that there are some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from instep.cli.output import printable
from instep.model.counts import which

__all__ = ["SET_ASIDE", "exit_if_held", "held_lines", "reported_lines", "show_held"]

SET_ASIDE = 20
NAMED_MAX = 20


def held_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Each held path with why and what to do, then the number of the others."""
    held = document.get("held") or ()
    for each in held[:NAMED_MAX]:
        yield f"  held: {printable(each['path'])}: {printable(each.get('why'))}"
        if each.get("next"):
            yield f"    next: {'; or: '.join(printable(step) for step in each['next'])}"
    more = int(document.get("held_total") or len(held)) - len(held[:NAMED_MAX])
    if more > 0:
        yield f"  and {more} more {which(more, 'is', 'are')} held"


def reported_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Paths that hold nothing up: of kinds that are never carried, and files that were carried while a program had
    them open for writing."""
    reported = document.get("reported") or ()
    opened = [each for each in reported if each["what"] == "open"]
    others = [each for each in reported if each["what"] != "open"]
    total = int(document.get("reported_total") or len(reported)) - len(opened)
    if total:
        named = ", ".join(f"{printable(each['path'])} ({printable(each['what'])})" for each in others[:3])
        yield f"  not carried: {named}" + (f" and {total - 3} more" if total > 3 else "")
    if opened:
        named = ", ".join(printable(each["path"]) for each in opened[:3])
        yield f"  open for writing: {named}" + (f" and {len(opened) - 3} more" if len(opened) > 3 else "")


def show_held(document: Mapping[str, Any]) -> None:
    for line in held_lines(document):
        print(line)


def exit_if_held(document: Mapping[str, Any], *, ok: bool) -> None:
    """Exit 20 when the rest is done and single paths are held."""
    if not ok and (document.get("held_total") or document.get("held")):
        raise click.exceptions.Exit(SET_ASIDE)
