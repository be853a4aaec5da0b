"""``fileset remove`` and ``fileset forget-line``: a fileset, or the line of a home that left, is let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

import click

from instep.api.filesets import ForgetLineCommand, ForgottenDocument
from instep.cli.output import printable, say, shown_bytes
from instep.cli.session import Session, command, timeout_option
from instep.errors import UsageError
from instep.model.counts import counted
from instep.node.config.editing import edits

LOOK_S = 5.0
SILENT_S = 3.0


@command("remove", example="instep fileset remove catalog")
@click.argument("name")
def fileset_remove(session: Session, name: str) -> None:
    """Forget a fileset on this node; its files, archive and history stay."""
    from instep.node.trees.placing import forget_root

    found = session.settings().filesets.get(name)  # type: ignore[call-overload]
    changed = edits.remove_fileset(session.node, name)
    where = f"; its files stay in {found.path}" if found is not None else ""
    session.show_change({"fileset": name}, changed, f"{name} is forgotten here{where}")
    if found is not None and changed:
        forget = partial(forget_root, found.name, found.path, session.settings().name)
        try:
            asyncio.run(_answered(forget))
        except TimeoutError:
            say(f"instep: {found.path} does not answer: the marker of {name} stays there")


async def _answered(call: Callable[[], None]) -> None:
    """The call, unless its file system hangs: then ``TimeoutError``, and the thread ends with the process."""
    from instep.node.runtime.own_thread import in_own_thread

    async with asyncio.timeout(SILENT_S):
        await in_own_thread(call)


@command("forget-line", example="instep fileset forget-line docs k3 --dry-run")
@click.argument("name")
@click.argument("origin")
@click.option("--dry-run", is_flag=True, help="Show what leaves the tree, and change nothing.")
@click.option(
    "--take-back", is_flag=True, help="Keep the line of this home again, from any partner that offers it."
)
@timeout_option("60s")
def forget_line(
    session: Session, name: str, origin: str, dry_run: bool, take_back: bool, timeout_ms: int
) -> None:
    """Let go of the line of a home that left for ever, in a fileset of many homes.

    Its files leave the tree of this node and go to the archive. Each other node keeps them until its own operator says
    the same.
    """
    if take_back and dry_run:
        raise UsageError("--take-back and --dry-run exclude each other", code="bad_flags")
    wait_s = timeout_ms / 1000
    asked = ForgetLineCommand(
        fileset=name, origin=origin, dry_run=dry_run, take_back=take_back, timeout_s=wait_s
    )
    document = session.call(asked, wait_s + LOOK_S)
    session.show(document, _taken_back(document) if take_back else _told(document))


def _told(document: ForgottenDocument) -> Iterator[str]:
    if not document.changed:
        yield f"the line of {document.origin} was forgotten already"
        return
    would = "would leave" if document.dry_run else "left"
    what = f"{counted(document.paths, 'path')}, {shown_bytes(document.bytes)}"
    yield f"the line of {document.origin}: {what} {would} the tree of {document.fileset} for the archive"
    if document.edits:
        yield f"  {counted(document.edits, 'edit')} made here for that home too"
    if document.dry_run:
        yield f"  next: instep fileset forget-line {printable(document.fileset)} {printable(document.origin)}"
    else:
        yield f"  they are there: instep archive list {printable(document.fileset)}"
        yield "  other nodes keep that line until it is forgotten there, too"


def _taken_back(document: ForgottenDocument) -> Iterator[str]:
    if document.changed:
        yield f"the line of {document.origin} is kept again, once a partner offers it"
    else:
        yield f"the line of {document.origin} was not forgotten"


def totals_of_home(session: Session, origin: str) -> list[ForgottenDocument]:
    """What the filesets of this node have of a home; nothing of a fileset that cannot say it now."""
    from instep.errors import InstepError

    found = []
    for fileset in session.settings().filesets.values():
        if not fileset.is_of_many_homes:
            continue
        try:
            asked = ForgetLineCommand(fileset=fileset.name, origin=origin, dry_run=True)
            document = session.call(asked, LOOK_S)
        except InstepError:
            continue
        found.append(document)
    return found
