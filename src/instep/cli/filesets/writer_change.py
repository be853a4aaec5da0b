"""``handover`` and ``promote``: another node becomes the writer of a fileset."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from instep.api import succession as api
from instep.cli.output import first_line, printable, say
from instep.cli.passphrase import passphrase_option, read_passphrase
from instep.cli.session import EXISTING_FILE, Session, command, timeout_option
from instep.errors import InstepError, RefusedError, UnavailableError, UsageError

if TYPE_CHECKING:
    from instep.net.trust.pki import Pki


PLAN_S = 10.0


@command("handover", example="instep handover catalog s1 --timeout 2m")
@click.argument("fileset")
@click.argument("node")
@click.option("--dry-run", is_flag=True, help="Only check whether it could be done now.")
@timeout_option("5m")
def handover(session: Session, fileset: str, node: str, dry_run: bool, timeout_ms: int) -> None:
    """Make a partner that is in step the writer; run it on the writer. Nothing that was published is lost."""
    document = session.call(api.HandoverCommand(node, fileset, dry_run=dry_run), timeout_ms / 1000)
    if not session.gave_json(document):
        if dry_run and document.changed:
            print(f"{fileset}: {node} could become the writer now")
        elif document.changed:
            print(f"{fileset}: {node} is the writer now; this node follows it")
            for path in document.late or ():
                print(f"  changed here after that, not published; it goes to the archive: {printable(path)}")
        else:
            print(f"{fileset}: {node} is the writer already")


@command(
    "promote",
    example="instep promote catalog --home-is-dead --pki-backup /media/safe/instep-ca.backup",
)
@click.argument("fileset")
@click.option("--home-is-dead", is_flag=True, help="Say that the home will not come back as the writer.")
@click.option(
    "--pki-backup", type=EXISTING_FILE, metavar="FILE",
    help="Take over the CA from this backup: needed where the CA key is not on this node.",
)  # fmt: skip
@passphrase_option
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
@click.option("--dry-run", is_flag=True, help="Only name the generations that may be lost.")
@timeout_option("2m")
def promote(
    session: Session,
    fileset: str,
    home_is_dead: bool,
    pki_backup: Path | None,
    passphrase_file: Path | None,
    yes: bool,
    dry_run: bool,
    timeout_ms: int,
) -> None:
    """Make this node the writer because the home is dead; names the generations that may be lost first.

    While the home lives, use handover there: it loses nothing. The home, back again, is refused with the
    command that makes it a partner; its generations beyond that are kept in its archive and history.
    """
    if not home_is_dead and not dry_run:
        raise UsageError(
            "promote leaves behind generations that only the home has, so it must be said that the home is dead",
            hint=f"instep promote {fileset} --home-is-dead; while it lives, there: instep handover {fileset} NODE",
            code="home_lives",
        )
    plan = session.call(api.PromoteCommand(fileset, dry_run=True), timeout_ms / 1000)
    if dry_run:
        session.show(plan, _plan_lines(plan))
        return
    if plan.changed and not plan.has_ca_key and pki_backup is None:
        raise RefusedError(NO_CA_KEY, hint=_with_backup(fileset), code="no_ca_key")
    if plan.changed and not session.is_json and not yes and sys.stdin.isatty():
        print("\n".join(_plan_lines(plan)))
        is_left = plan.lost or plan.unheard
        if not click.confirm("Go on without them?" if is_left else "Go on?", err=True):
            raise RefusedError("nothing was changed", code="declined")
    taken = None
    if pki_backup is not None and not plan.has_ca_key:
        taken = _take_ca(session, pki_backup, passphrase_file)
    try:
        document = session.call(api.PromoteCommand(fileset), timeout_ms / 1000)
    except InstepError:
        if taken is not None:
            _give_back(session, taken, fileset)
        raise
    if taken is not None:
        say("this node holds the cluster's CA now: invite, renew and revoke here")
    session.show(document, _promoted_lines(document))


def _give_back(session: Session, taken: Pki, fileset: str) -> None:
    """The key was taken for a promotion that failed: it stays only where this node became the writer all the same."""
    from instep.net.trust.keystore import give_up_ca

    try:
        is_writer = not session.call(api.PromoteCommand(fileset, dry_run=True), PLAN_S).changed
    except UnavailableError:
        say(
            f"the cluster's CA key stays on this node; when no promotion follows, remove {taken.directory / 'ca.key'}"
        )
        return
    except InstepError:
        is_writer = False
    if not is_writer:
        give_up_ca(taken)
        say("the cluster's CA key was taken off this node again")


def _take_ca(session: Session, file: Path, passphrase_file: Path | None) -> Pki | None:
    """Take the CA of the backup into this node; None where it was here already."""
    from instep.net.trust.keystore import adopt_ca
    from instep.net.trust.pki import Pki

    passphrase, _ = read_passphrase(session, passphrase_file, is_new=False)
    pki = Pki(session.node.pki)
    if not adopt_ca(file, pki, passphrase):
        return None
    pki.mark_backed_up(int(time.time() * 1000))
    return pki


def _lost_lines(document: api.PromoteDocument, what: str) -> Iterator[str]:
    for one in document.lost:
        words = [f"generation {one.number} of epoch {one.epoch}"]
        if one.published_at:
            words.append(f"{one.published_at} by {printable(one.author)}")
        if one.message:
            words.append(f'"{printable(first_line(one.message))}"')
        words.append(f"known by {', '.join(one.known_by)}" if one.known_by else "no node here has it")
        yield f"  {what}: {', '.join(words)}"
    for left in document.unheard:
        yield f"  {what}: whatever {left.node} published, which could not be asked: {printable(left.reason)}"
        yield f"    {printable(left.hint)}"


def _plan_lines(plan: api.PromoteDocument) -> Iterator[str]:
    if not plan.changed:
        yield f"{plan.fileset}: {plan.writer} is the writer already"
        return
    number = f"generation {plan.base.number}" if plan.base is not None else "nothing"
    yield f"{plan.fileset}: {plan.writer} would go on from {number}"
    yield from _lost_lines(plan, "may be lost")
    if not plan.lost and not plan.unheard:
        yield "  nothing newer is known here"
    if not plan.has_ca_key:
        yield f"  {NO_CA_KEY}"
        yield f"  next: {_with_backup(plan.fileset)}"


NO_CA_KEY = "the cluster's CA key is not on this node, and only it can make another node the writer"


def _with_backup(fileset: str) -> str:
    return f"instep promote {fileset} --home-is-dead --pki-backup FILE (made by: instep pki backup --to FILE)"


def _promoted_lines(document: api.PromoteDocument) -> Iterator[str]:
    if not document.changed:
        yield f"{document.fileset}: {document.writer} is the writer already"
        return
    head = document.generation
    published = f" and published generation {head.number}" if head is not None else ""
    yield f"{document.fileset}: {document.writer} writes epoch {document.epoch}{published}"
    yield from _lost_lines(document, "left behind")
    for step in document.next:
        yield f"  next, {step}"
