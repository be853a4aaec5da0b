"""``handover``: another node becomes the writer of a fileset."""

from __future__ import annotations

import click

from instep.cli.output import printable
from instep.cli.session import Session, command, pass_session, timeout_option

__all__ = ["handover"]


@command("handover", example="instep handover catalog s1 --timeout 2m")
@click.argument("fileset")
@click.argument("node")
@click.option("--dry-run", is_flag=True, help="Only check whether it could be done now.")
@timeout_option("5m")
@pass_session
def handover(session: Session, fileset: str, node: str, dry_run: bool, timeout_ms: int) -> None:
    """Make a partner that is in step the writer; run it on the writer. Nothing that was published is lost."""
    document = session.call("handover", timeout_ms / 1000, fileset=fileset, node=node, dry_run=dry_run)

    def show() -> None:
        if dry_run and document.get("changed"):
            print(f"{fileset}: {node} could become the writer now")
        elif document.get("changed"):
            print(f"{fileset}: {node} is the writer now; this node follows it")
            for path in document.get("late", []):
                print(f"  changed here after that, not published; it goes to the archive: {printable(path)}")
        else:
            print(f"{fileset}: {node} is the writer already")

    session.show(document, show)
