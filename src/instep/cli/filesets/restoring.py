"""``rollback`` and ``restore``: going back to the state of a generation, whatever lies in the tree now."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from instep.api import lines as api
from instep.cli.filesets.held_text import exit_if_held, held_lines
from instep.cli.filesets.publishing import outcome_counts, publish_lines
from instep.cli.output import printable, shown_bytes
from instep.cli.session import GENERATION, Session, absolute, command, timeout_option
from instep.errors import UsageError
from instep.model.counts import counted


def _number(raw: str) -> int:
    if not raw.isdecimal():
        raise UsageError(
            f"{raw!r} is not a generation number", hint="instep log FILESET", code="bad_generation"
        )
    return int(raw)


@command("rollback", example='instep rollback catalog 41 -m "styles were wrong"')
@click.argument("words", nargs=-1, required=True, metavar="[FILESET] GENERATION")
@click.option("-m", "--message", default="", help="Shown in log and status.")
@click.option(
    "--accept-deletions", is_flag=True, help="Go back although that removes more than max_deletions."
)
@click.option("--dry-run", is_flag=True, help="Only show the changes.")
@timeout_option("1h")
def rollback(
    session: Session,
    words: tuple[str, ...],
    message: str,
    accept_deletions: bool,
    dry_run: bool,
    timeout_ms: int,
) -> None:
    """Bring the tree to an older generation, whatever lies there, and publish that as a new one."""
    if len(words) > 2:
        raise UsageError("rollback takes FILESET and GENERATION", hint="instep rollback catalog 41")
    fileset, number = (None, words[0]) if len(words) == 1 else words
    document = session.call(
        api.RollbackCommand(
            _number(number), fileset, message, accept_deletions=accept_deletions, dry_run=dry_run
        ),
        timeout_ms / 1000,
    )
    session.show(document, publish_lines(document, dry_run))
    exit_if_held(document, ok=False)


@command("restore", example="instep restore catalog styles/road.sld --generation 41")
@click.argument("fileset")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option(
    "--generation", type=GENERATION, metavar="N", help="As that generation had it; default: the newest."
)
@click.option(
    "--from", "source", metavar="NODE", help="Ask only this partner for contents that are not here."
)
@click.option("--to", "directory", metavar="DIR", help="Write there instead of the tree; on any node.")
@click.option("-m", "--message", default="", help="Shown in log and status, when it becomes a generation.")
@click.option("--accept-deletions", is_flag=True, help="Go on although that removes more than max_deletions.")
@click.option("--dry-run", is_flag=True, help="Only show the changes, and whether all contents can be had.")
@timeout_option("1h")
def restore(
    session: Session,
    fileset: str,
    paths: tuple[str, ...],
    generation: int | None,
    source: str | None,
    directory: str | None,
    message: str,
    accept_deletions: bool,
    dry_run: bool,
    timeout_ms: int,
) -> None:
    """Bring the tree, or some paths of it, back to a generation; contents come from this node and its partners.

    The files that lie there go to the archive. Where publishing is automatic, what differs from the newest generation
    is published at once. Without --to it runs where the fileset is written.
    """
    document = session.call(
        api.RestoreCommand(
            fileset, tuple(map(os.fsencode, paths)), generation, source,
            to=None if directory is None else absolute(directory), message=message,
            accept_deletions=accept_deletions, dry_run=dry_run,
        ),
        timeout_ms / 1000,
    )  # fmt: skip
    session.show(document, _restore_lines(document, dry_run))
    exit_if_held(document, ok=False)


def _restore_lines(document: api.OutcomeDocument, dry_run: bool) -> Iterator[str]:
    name = document.fileset
    if document.to:
        word = "would be written to" if dry_run else "are in"
        what = f"{counted(document.added, 'path')}, {shown_bytes(document.bytes)}"
        yield f"{name}: {what} {word} {printable(document.to)}"
        return
    if not document.changed:
        yield f"{name}: the tree holds that already"
        return
    number = document.generation.number if document.generation is not None else None
    said = "would be restored" if dry_run else f"restored; generation {number} is the newest"
    yield f"{name}: {said}: {outcome_counts(document)}"
    yield from held_lines(document.held, document.held_total)
