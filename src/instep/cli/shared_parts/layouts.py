"""``layout``: the files of an application, moved to the folder that its servers share. Needs no daemon and no node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from instep.cli.output import printable, say, table
from instep.cli.session import Session, absolute, command, group
from instep.core.layout.layout import Layout, LayoutForm
from instep.errors import RefusedError
from instep.model.counts import sized
from instep.model.paths import shown
from instep.node.layouts.moving import MoveRequest, Moving, detect
from instep.node.recipes.shelf import LayoutShelf

layout = group("layout", "Move an application's files to the folder that its servers share.")
_SET_ASIDE = 20


def _load(session: Session, name: str) -> Layout:
    node = session.node
    roots: list[Path] = []
    if node.holds_node:
        roots = [one.path for one in session.settings().filesets.values() if not one.is_written_here]
    return LayoutShelf(node).load(name, roots)


def _form_document(form: LayoutForm) -> dict[str, Any]:
    setting = form.setting
    return {
        "form": form.name, "about": form.about,
        "has": [shown(path) for path in form.has], "lacks": [shown(path) for path in form.lacks],
        "items": [
            {
                "verb": item.verb.value, "from": shown(item.source), "to": shown(item.to) or ".",
                "optional": item.is_optional,
            }
            for item in form.items
        ],
        "set": None if setting is None else {"file": shown(setting.file), "key": setting.key, "value": setting.value},
    }  # fmt: skip


def _form_lines(form: dict[str, Any]) -> None:
    print(f"\nform {form['form']}: {printable(form['about'])}")
    rows = [
        (f"  {item['verb']}", item["from"], item["to"], "may be missing" if item["optional"] else "")
        for item in form["items"]
    ]
    table(rows, ("  verb", "in source", "in dest", ""))
    if form["set"] is not None:
        print(f"  set {form['set']['key']} = {printable(form['set']['value'])} in {form['set']['file']}")


@command("detect", parent=layout, example="instep layout detect /opt/deploy-server")
@click.argument("directory", metavar="SOURCE")
def layout_detect(session: Session, directory: str) -> None:
    """Say which layout an installation has, and in which form."""
    at = Path(os.path.realpath(absolute(directory)))
    found = []
    for name in LayoutShelf(session.node).names():
        form = detect(_load(session, name), at)
        if form is not None:
            found.append({"layout": name, **_form_document(form)})
    if not found:
        raise RefusedError(
            f"{at} has no layout that is known here",
            hint="instep layout show",
            code="no_form",
            source=str(at),
        )
    if not session.gave_json({"source": str(at), "layouts": found}):
        for each in found:
            print(f"{at}: layout {each['layout']}, form {each['form']}: {printable(each['about'])}")
            _form_lines(each)
            print(f"\n  next: instep layout move {at} DEST --layout {each['layout']} --dry-run")


@command("show", parent=layout, example="instep layout show deploy-server")
@click.argument("name", required=False)
def layout_show(session: Session, name: str | None) -> None:
    """Show a layout: its forms, their items, and where each goes. Without a name, all layouts.

    Your own lie in /etc/instep/layouts, or in layouts/ in the node directory.
    """
    shelf = LayoutShelf(session.node)
    if name is None:
        rows = [
            {"name": each, "file": str(files[0]), "about": _load(session, each).about}
            for each, files in shelf.names().items()
        ]
        if not session.gave_json({"layouts": rows}):
            table([(row["name"], row["about"]) for row in rows], ("layout", "for"))
        return
    found = _load(session, name)
    forms = [_form_document(form) for form in found.forms]
    if not session.gave_json({"name": name, "about": found.about, "note": found.note, "forms": forms}):
        print(f"{name}: {printable(found.about)}")
        for line in found.note.splitlines():
            print(f"  {printable(line)}")
        for form in forms:
            _form_lines(form)


@command(
    "move",
    parent=layout,
    example="instep layout move /opt/deploy-server /mnt/shared/appdata --layout deploy-server",
)
@click.argument("directory", metavar="SOURCE")
@click.argument("target", metavar="DEST")
@click.option(
    "--layout",
    "layout_name",
    required=True,
    metavar="LAYOUT",
    help="The layout: instep layout detect SOURCE.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option(
    "--delete-originals",
    is_flag=True,
    help="Delete what was moved, after every copy is verified, where it is still equal.",
)
def layout_move(
    session: Session, directory: str, target: str, layout_name: str, dry_run: bool, delete_originals: bool
) -> int:
    """Copy an installation's files to DEST, verify every copy, and let the application use them.

    The application is stopped first and started at the end, where its layout knows how. A move that was cut off goes on
    with the same command. Originals stay, unless --delete-originals asks for their end.
    """
    request = MoveRequest(
        _load(session, layout_name),
        Path(os.path.realpath(absolute(directory))),
        Path(absolute(target)),
        delete_originals,
    )
    document = Moving(request, say).run(is_dry=dry_run)
    if not session.gave_json(document):
        _print_move(document)
    return _SET_ASIDE if document["left"] else 0


def _print_move(document: dict[str, Any]) -> None:
    done = (
        "would be moved"
        if document["dry_run"]
        else "was moved before"
        if document["already_moved"]
        else "moved"
    )
    print(
        f"{document['source']} {done} to {document['dest']}: layout {document['layout']}, form {document['form']}"
    )
    rows = [
        (
            f"  {item['verb']}",
            item["from"],
            item["to"],
            f"{item['objects']} objects, {sized(item['bytes'])}" if item["there"] else "is not there",
        )
        for item in document["items"]
    ]
    table(rows)
    if document["set"] is not None:
        found = document["set"]
        was = printable(found["was"] or "not set")
        print(f"  set {found['key']} = {printable(found['value'])} in {found['file']} (was {was})")
    for key, text in (
        ("not_moved", "sockets, pipes and devices, which stay"),
        ("links_into_source", "symbolic links that lead to another place of the source"),
        ("left", "originals that stay, because they differ by now"),
        ("not_kept", "kinds of metadata that the copies lack"),
    ):
        if document[key]:
            print(f"  {text}: {', '.join(printable(each) for each in document[key][:10])}")
    if not document["dry_run"]:
        print("  originals: deleted" if document["deleted"] else "  originals: kept")
