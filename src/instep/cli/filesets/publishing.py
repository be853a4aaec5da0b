"""``publish``, ``wait``, ``rollback`` and the commands that steer applying: ``retry``, ``pause``, ``resume``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click
from msgspec import UNSET

from instep.api import lines as api
from instep.cli.filesets.held_text import exit_if_held, held_lines
from instep.cli.output import printable, shown_bytes
from instep.cli.session import DURATION, GENERATION, Session, command, max_behind_option, timeout_option
from instep.errors import RefusedError, UnavailableError, UsageError

PUBLISH_S = 3600.0
"""A publish reads every new byte, and without a terminal it says nothing meanwhile."""
WAIT_S = 600.0


def publish_lines(document: api.OutcomeDocument, dry_run: bool) -> Iterator[str]:
    number = document.generation.number if document.generation is not None else None
    if not document.changed:
        stands = "and nothing was published yet" if number is None else f"generation {number} stands"
        yield f"{document.fileset}: nothing changed, {stands}"
        yield from held_lines(document.held, document.held_total)
        return
    said = "would be published" if dry_run else f"generation {number} is published"
    yield f"{document.fileset}: {said}: {outcome_counts(document)}"
    yield from held_lines(document.held, document.held_total)
    if document.wait is not UNSET:
        yield from wait_lines(document.wait)


def outcome_counts(document: api.OutcomeDocument) -> str:
    """The counts of paths, by kind of change, and the bytes."""
    paths = f"{document.added} added, {document.changed_paths} changed, {document.removed} removed"
    return f"{paths}, {shown_bytes(document.bytes)}"


@command("publish", example='instep publish catalog -m "new styles" --wait')
@click.argument("fileset", required=False)
@click.argument("held", nargs=-1, metavar="[PATH]...")
@click.option("-m", "--message", default="", help="Shown in log and status.")
@click.option(
    "--accept-deletions", is_flag=True, help="Publish although more was deleted than max_deletions."
)
@click.option(
    "--wait", "is_awaited", is_flag=True, help="Wait until every direct partner is in step with it."
)
@click.option(
    "--over",
    is_flag=True,
    help="After held: restored: the tree here is right, whatever newer head partners hold.",
)
@click.option(
    "--accept-held",
    is_flag=True,
    help="Let go of the last entries of the held PATHs, or of all held paths: an ordinary removal.",
)
@click.option("--dry-run", is_flag=True, help="Only show the changes that would be published.")
@click.option(
    "--ok-set-aside", is_flag=True, help="Exit 0 also when single paths are held at their last entries."
)
@timeout_option(None)
def publish(
    session: Session,
    fileset: str | None,
    held: tuple[str, ...],
    message: str,
    accept_deletions: bool,
    is_awaited: bool,
    over: bool,
    accept_held: bool,
    dry_run: bool,
    ok_set_aside: bool,
    timeout_ms: int | None,
) -> None:
    """Make the tree as it is now a new generation; without a change nothing happens."""
    if held and not accept_held:
        hint = f"to let go of the last entries of a held path: instep publish {fileset} --accept-held PATH"
        raise UsageError("publish takes paths with --accept-held only", hint=hint, code="paths_without_held")
    limit = timeout_ms / 1000 if timeout_ms is not None else WAIT_S if is_awaited else PUBLISH_S
    document = session.call(
        api.PublishCommand(
            fileset, message=message, accept_deletions=accept_deletions, wait=is_awaited and not dry_run,
            over=over, dry_run=dry_run, accept_held=accept_held, held_b64=tuple(map(os.fsencode, held)),
        ),
        limit,
    )  # fmt: skip
    session.show(document, publish_lines(document, dry_run))
    if document.wait is not UNSET:
        _exit_unless_reached(document.wait)
    exit_if_held(document, ok=ok_set_aside)


def _exit_unless_reached(document: api.WaitDocument) -> None:
    """4 when a node refused the generation or its rollout failed, 7 when it may still come."""
    if not document.reached:
        raise click.exceptions.Exit((RefusedError if document.failed else UnavailableError).exit_code)


def wait_lines(document: api.WaitDocument) -> Iterator[str]:
    name, failed, head = document.fileset, document.failed, document.generation
    which = f"generation {head.number}" if head is not None else "a first generation"
    if failed is not UNSET:
        state = f"the rollout is {failed.state.replace('_', ' ')}: " if failed.state else ""
        who = f"{printable(failed.node)}: " if failed.node else ""
        yield f"{name}: {which} is not served by all: {state}{who}{printable(failed.reason)}"
        yield f"  next: repair the cause, then: instep retry {name}"
        return
    if document.reached:
        yield f"{name}: all are in step with {which}"
        yield from held_lines(document.held, document.held_total)
        return
    yield f"{name}: not in step with {which} yet; still waiting for:"
    for one in document.waiting_for:
        yield f"  {printable(one.node)}: {one.standing}"


@command("wait", example="instep wait catalog --node s1 --timeout 30s")
@click.argument("fileset", required=False)
@click.option("--generation", type=GENERATION, metavar="N", help="Wait for this generation or a newer one.")
@click.option("--node", "nodes", multiple=True, metavar="NODE", help="Wait for these partners only.")
@click.option("--fleet", is_flag=True, help="Also wait for nodes behind hubs.")
@click.option(
    "--ok-set-aside", is_flag=True, help="Exit 0 also when single paths are held at their last entries."
)
@max_behind_option
@timeout_option("60s")
def wait(
    session: Session,
    fileset: str | None,
    generation: int | None,
    nodes: tuple[str, ...],
    fleet: bool,
    ok_set_aside: bool,
    max_behind_ms: int | None,
    timeout_ms: int,
) -> None:
    """Wait until every direct partner that accepted is in step with all changes before this call."""
    asked = api.WaitCommand(fileset, generation, nodes, fleet=fleet, max_behind_ms=max_behind_ms)
    document = session.call(asked, timeout_ms / 1000)
    session.show(document, wait_lines(document))
    _exit_unless_reached(document)
    exit_if_held(document, ok=ok_set_aside)


@command("retry", example="instep retry catalog --node s2")
@click.argument("fileset", required=False)
@click.option("--node", metavar="NODE", help="Ask that partner to retry.")
def retry(session: Session, fileset: str | None, node: str | None) -> None:
    """Retry a generation that was refused or put back, without waiting for a new one."""
    document = session.call(api.RetryCommand(fileset, node), 30.0)
    session.show(
        document, f"{document.fileset}: {printable(document.why or 'asked to try again, see: instep status')}"
    )


@command("pause", example='instep pause catalog --for 2h --reason "migration"')
@click.argument("fileset", required=False)
@click.option("--for", "for_ms", type=DURATION, help="Resume by itself after this time.")
@click.option("--reason", help="Shown in status.")
def pause(session: Session, fileset: str | None, for_ms: int | None, reason: str | None) -> None:
    """Stop publishing and applying a fileset on this node; it goes on to serve the same generation."""
    for_s = None if for_ms is None else for_ms / 1000
    document = session.call(api.PauseCommand(fileset, for_s, reason), 30.0)
    session.show(document, f"{document.fileset}: {'paused' if document.changed else 'was paused already'}")


@command("resume", example="instep resume catalog")
@click.argument("fileset", required=False)
def resume(session: Session, fileset: str | None) -> None:
    """Go on after a pause."""
    document = session.call(api.ResumeCommand(fileset), 30.0)
    session.show(document, f"{document.fileset}: {'goes on' if document.changed else 'was not paused'}")
