"""``fileset external``: the inventory of an application: its parts that are not carried, such as its database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from instep.cli.output import printable
from instep.cli.session import Session, command, group
from instep.errors import UsageError
from instep.model.external import mark_steps, said_of
from instep.node.config.editing.external_edit import remove_external, set_external
from instep.node.config.external import KINDS
from instep.node.config.filesets import FilesetSettings
from instep.node.lines.snapshot import pick_fileset

external = group("external", "Parts of an application that are not carried, such as its database.")


@command(
    "add",
    parent=external,
    example="instep fileset external add site cms-db --covered-by 'streaming replication to db2'",
)
@click.argument("fileset")
@click.argument("part", metavar="NAME")
@click.option("--kind", "part_kind", type=click.Choice(KINDS), help="Default: database.")
@click.option("--covered-by", metavar="TEXT", help="What keeps it in step instead.")
@click.option("--not-covered", metavar="REASON", help="Why nothing does, and nothing needs to.")
def external_add(
    session: Session,
    fileset: str,
    part: str,
    part_kind: str | None,
    covered_by: str | None,
    not_covered: str | None,
) -> None:
    """Name a part of the application that is not carried, or say what covers it.

    While a part has neither --covered-by nor --not-covered, the fileset does not stand in step, and no sync profile of
    it is in sync.
    """
    if covered_by is not None and not_covered is not None:
        raise UsageError("--covered-by and --not-covered exclude each other", code="bad_flags")
    given = {"kind": part_kind, "covered_by": covered_by, "not_covered": not_covered}
    wanted = {key: value for key, value in given.items() if value is not None}
    changed = set_external(session.node, fileset, part, wanted)
    session.show_change(
        {"fileset": fileset, "name": part}, changed, f"{part} of {fileset} is named as not carried"
    )
    if not session.is_json:
        chosen = pick_fileset(session.settings(), fileset)
        for step in mark_steps(fileset, (each for each in chosen.external if each.name == part)):
            print(f"  next: {step}")


@command("list", parent=external, example="instep fileset external list site")
@click.argument("fileset", required=False)
def external_list(session: Session, fileset: str | None) -> None:
    """Which parts of each application are carried and which are not, as instep.toml of this node says."""
    settings = session.settings()
    chosen = [pick_fileset(settings, fileset)] if fileset else list(settings.filesets.values())
    if not session.gave_json({"filesets": [_document(each) for each in chosen]}):
        for line in (line for each in chosen for line in _lines(each)):
            print(printable(line))


@command("remove", parent=external, example="instep fileset external remove site cms-db")
@click.argument("fileset")
@click.argument("part", metavar="NAME")
def external_remove(session: Session, fileset: str, part: str) -> None:
    """Take a part out of the inventory."""
    changed = remove_external(session.node, fileset, part)
    session.show_change(
        {"fileset": fileset, "name": part}, changed, f"{part} of {fileset} is named no longer"
    )


def _document(fileset: FilesetSettings) -> dict[str, Any]:
    rules = fileset.definition
    return {
        "fileset": fileset.name, "path": str(fileset.path), "writer": fileset.writer,
        "include": list(rules.include) if rules is not None else None,
        "ignore": list(rules.ignore) if rules is not None else None,
        "external": [
            {
                "name": each.name, "kind": each.kind, "covered_by": each.covered_by,
                "not_covered": each.not_covered, "marked": each.is_marked,
            }
            for each in fileset.external
        ],
    }  # fmt: skip


def _lines(fileset: FilesetSettings) -> Iterator[str]:
    rules = fileset.definition
    yield f"{fileset.name}   {fileset.path}, written on {fileset.writer}"
    if rules is None:
        there = f"on {fileset.writer}: instep fileset external list {fileset.name}"
        yield f"  carried       files that {fileset.writer} publishes; {there}"
    else:
        only = f"only {', '.join(rules.include)}" if rules.include else "all files"
        yield f"  carried       {only}"
        if rules.ignore:
            yield f"  not carried   ignored files: {', '.join(rules.ignore)}"
    for each in fileset.external:
        yield f"  not carried   {each}: {said_of(each)}"
        if not each.is_marked:
            yield f"                next: {'; or: '.join(mark_steps(fileset.name, [each]))}"
    if not fileset.external:
        yield "  no database or other part is named"
        yield f"                next: instep fileset external add {fileset.name} NAME"
