"""``archive``: files that switches replaced or removed, and local changes that were put aside."""

from __future__ import annotations

import os

import click

from instep.api import archive as api
from instep.cli.output import moment, printable, shown_bytes, table
from instep.cli.session import DURATION, GENERATION, Session, absolute, command, group
from instep.model.counts import counted

archive = group("archive", "Files that were replaced, removed or set aside on this node.")


@command("list", parent=archive, example="instep archive list catalog --set-aside")
@click.argument("fileset", required=False)
@click.option("--set-aside", is_flag=True, help="Only local changes that lost against a generation.")
def archive_list(session: Session, fileset: str | None, set_aside: bool) -> None:
    """List the archive, newest first, and its size."""
    document = session.call(api.ArchiveListCommand(fileset, set_aside=set_aside))
    if not session.gave_json(document):
        rows = [
            (one.path, one.generation, moment(one.at), one.why, shown_bytes(one.bytes))
            for one in document.items
        ]
        table(rows, ("path", "generation", "at", "why", "size"))
        print(f"{counted(len(rows), 'item')}; the whole archive holds {shown_bytes(document.bytes)}")


@command("restore", parent=archive, example="instep archive restore catalog styles/road.sld --to /tmp/found")
@click.argument("words", nargs=-1, required=True, metavar="[FILESET] PATH")
@click.option(
    "--generation",
    type=GENERATION,
    metavar="N",
    help="The file as that generation had it; default: the newest.",
)
@click.option("--set-aside", is_flag=True, help="A local change that lost; default: whatever is newest.")
@click.option(
    "--to", "directory", required=True, metavar="DIR", help="Where to put it; never into a fileset."
)
def archive_restore(
    session: Session, words: tuple[str, ...], generation: int | None, set_aside: bool, directory: str
) -> None:
    """Copy a file or directory out of the archive."""
    if len(words) > 2:
        raise click.UsageError("restore takes FILESET and PATH")
    fileset, path = (None, words[0]) if len(words) == 1 else words
    raw = os.fsencode(path)
    shown = raw.decode("utf-8", "replace")
    document = session.call(
        api.ArchiveRestoreCommand(
            absolute(directory), fileset, shown, raw, generation=generation, set_aside=set_aside
        )
    )
    if not session.gave_json(document):
        print(f"{printable(path)} is in {document.to}")
        for warning in document.warnings or ():
            print(f"  {warning}")


@command("prune", parent=archive, example="instep archive prune catalog --keep-within 7d --dry-run")
@click.argument("fileset", required=False)
@click.option("--keep-last", type=GENERATION, metavar="N", help="Generations to keep; else as configured.")
@click.option("--keep-within", "keep_within_ms", type=DURATION, help="Age to keep; else as configured.")
@click.option("--dry-run", is_flag=True, help="Only name the batches that would go.")
def archive_prune(
    session: Session, fileset: str | None, keep_last: int | None, keep_within_ms: int | None, dry_run: bool
) -> None:
    """Delete from the archive the batches that neither rule keeps."""
    document = session.call(api.ArchivePruneCommand(fileset, keep_last, keep_within_ms, dry_run=dry_run))
    if not session.gave_json(document):
        verb = "would go" if dry_run else "gone"
        done = f"{counted(document.removed, 'file')} {verb}, {shown_bytes(document.bytes)}"
        print(
            done
            if document.batches
            else f"{document.fileset}: nothing to delete, the rules keep all of the archive"
        )
