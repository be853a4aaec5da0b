"""``collisions``: paths that two homes made, and those that a sync run lists, for people to look at."""

from __future__ import annotations

from collections.abc import Iterator

import click

from instep.api.changes import collisions as api
from instep.cli.filesets.sync import WORDS
from instep.cli.output import moment, printable, shown_bytes, table
from instep.cli.session import Session, command, group
from instep.model.counts import counted

PHASES = {
    "standing": "shown under that name by every node; its home takes the name over by itself",
    "taken_over": "its home took the name over",
    "over": "one of the two is gone",
}

collisions = group("collisions", "Paths that two homes made, or both sides of a sync profile changed.")
fileset_option = click.option(
    "--fileset",
    "of_fileset",
    metavar="NAME",
    help="Which one, where two filesets have a collision of this id.",
)


@command("list", parent=collisions, example="instep collisions list docs --all")
@click.argument("fileset", required=False)
@click.option("--all", "is_all", is_flag=True, help="Also those that were looked at.")
def list_(session: Session, fileset: str | None, is_all: bool) -> None:
    """List the collisions that no person has reviewed on this node."""
    document = session.call(api.CollisionsListCommand(fileset=fileset, all=is_all))
    if session.gave_json(document):
        return
    rows = [
        (
            one.id, one.fileset or one.profile or "", one.path, one.loser or "-", one.copy or "-",
            one.reviewed_by or ("yes" if one.reviewed else "no"),
        )
        for one in document.collisions
    ]  # fmt: skip
    table(rows, ("id", "of", "path", "lost", "is now", "reviewed"))
    if document.left_out:
        print(f"and {document.left_out} more, for which the list has no room; review some first")
    for each in document.not_asked:
        print(f"{each.profile} is not listed: {printable(each.reason)}")
    if not rows and not document.left_out:
        print("nothing to look at")


@command("show", parent=collisions, example="instep collisions show 0d7316be")
@click.argument("collision_id", metavar="ID")
@fileset_option
def show(session: Session, collision_id: str, of_fileset: str | None) -> None:
    """Show the files at both names of one collision, and the steps to resolve it."""
    document = session.call(api.CollisionsShowCommand(id=collision_id, fileset=of_fileset))
    session.show(document, _told(document))


def _told(one: api.CollisionShownDocument) -> Iterator[str]:
    if one.fileset is None:
        what = f"{WORDS[one.why]} {printable(one.copy or '')}"
        yield f"{one.id}   {printable(one.path)} of the sync profile {one.profile}: {what}"
    else:
        moved = f" ({counted(one.entries, 'path')})" if one.entries != 1 else ""
        yield f"{one.id}   {printable(one.path)} of {one.fileset}, made at {one.winner} and at {one.loser}"
        yield f"  that of {one.loser}{moved} is {printable(one.copy or '')}: {PHASES[one.phase or 'over']}"
        yield f"  seen here since {moment(one.since)}"
    if one.reason:
        yield f"  not merged: {printable(one.reason)}"
    for side in one.sides:
        homes = f" of {', '.join(side.homes)}" if side.homes else ""
        size = f", {shown_bytes(side.size)}, of {moment(side.modified_at)}" if side.size is not None else ""
        yield f"  {printable(side.path)}: {side.kind or 'not there any more'}{homes}{size}"
    if one.reviewed:
        yield f"  reviewed by {printable(one.reviewed_by or 'a person')}{_at(one.reviewed_at)}"
    yield from (f"  next: {printable(step)}" for step in one.next)


def _at(moment_of: str | None) -> str:
    return f" at {moment(moment_of)}" if moment_of else ""


@command("reviewed", parent=collisions, example="instep collisions reviewed 0d7316be")
@click.argument("collision_id", metavar="ID")
@fileset_option
def reviewed(session: Session, collision_id: str, of_fileset: str | None) -> None:
    """Mark one as looked at. Of a fileset of many homes that is for the list of this node."""
    document = session.call(api.CollisionsReviewedCommand(id=collision_id, fileset=of_fileset))
    session.show_change({"id": collision_id}, document.changed, f"{collision_id} is marked as looked at")
