"""``offer``: edits made on this node in filesets that another node writes."""

from __future__ import annotations

import click

from instep.api.changes import offers as api
from instep.cli.output import table
from instep.cli.session import Session, command, group
from instep.model.counts import counted

offer = group("offer", "Edits made here in filesets that another node writes.")


@command("list", parent=offer, example="instep offer list catalog")
@click.argument("fileset", required=False)
def list_(session: Session, fileset: str | None) -> None:
    """Show the edits that are on their way to the writer, and how far each is."""
    document = session.call(api.OffersCommand(fileset))
    if session.gave_json(document):
        return
    table(
        [(each.path, each.change, each.state, each.reason or each.outcome) for each in document.edits],
        ("path", "change", "state", "why"),
    )
    print(f"{document.fileset}: {counted(document.total, 'edit')} on the way")
    if document.reason is not None:
        print(f"  {document.reason}")
    for step in document.next:
        print(f"  next: {step}")


@command("accept-deletions", parent=offer, example="instep offer accept-deletions catalog")
@click.argument("fileset", required=False)
def accept_deletions(session: Session, fileset: str | None) -> None:
    """Offer the removals that were too many to be offered unasked."""
    _judge(session, fileset, is_accepted=True)


@command("undo-deletions", parent=offer, example="instep offer undo-deletions catalog")
@click.argument("fileset", required=False)
def undo_deletions(session: Session, fileset: str | None) -> None:
    """Bring back the files whose removals were too many to be offered unasked."""
    _judge(session, fileset, is_accepted=False)


def _judge(session: Session, fileset: str | None, *, is_accepted: bool) -> None:
    document = session.call(api.JudgeRemovalsCommand(fileset, accept=is_accepted))
    verb = "are offered now" if is_accepted else "come back"
    many = counted(document.removals, "removal")
    done = (
        f"{document.fileset}: {many} {verb}" if document.changed else f"{document.fileset}: no removal waits"
    )
    session.show(document, done)
