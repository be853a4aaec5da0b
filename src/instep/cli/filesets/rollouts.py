"""``rollout``: how a generation goes through the partners. ``reload``: the reload hooks without a new generation."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import click

from instep.api import rollouts as api
from instep.api.command import Command
from instep.cli.output import coloured, first_line, moment, printable, table
from instep.cli.session import Session, command, group, timeout_option
from instep.errors import RefusedError, UnavailableError

BAR = 30
FAILED = ("put_back", "stopped", "aborted")

rollout = group("rollout", "How a new generation goes through the partners, one wave after another.")


@command("show", parent=rollout, example="instep rollout show catalog --watch")
@click.argument("fileset", required=False)
@click.option("--watch", is_flag=True, help="Show every change until interrupted.")
def show(session: Session, fileset: str | None, watch: bool) -> None:
    """Show where each partner is, what the rollout waits for, and how the last ones went; on the writer."""
    if watch:
        session.watch(api.RolloutShowCommand(fileset, watch=True), partial(lines_of, past=5))
    document = session.call_or(lambda: _offline(session, fileset), api.RolloutShowCommand(fileset))
    session.show(document, lines_of(document))


def _offline(session: Session, fileset: str | None) -> api.RolloutsDocument:
    from instep.node.writing.rollout_view import offline_rollouts

    return offline_rollouts(session.node.path, fileset)


def lines_of(document: api.RolloutsDocument, past: int = 20) -> Iterator[str]:
    """The text of ``rollout show``, line by line."""
    if document.rollout is None:
        yield f"{document.fileset}: no rollout yet"
    else:
        yield from _present(document.fileset, document.rollout)
    if rows := document.past[:past]:
        yield ""
        yield "past, newest first"
        yield from (f"  {_past_line(row)}" for row in rows)


def _present(name: str, now: api.RolloutDocument) -> Iterator[str]:
    state = now.state
    colour = "red" if state in FAILED or state == "putting_back" else "green" if state == "done" else "yellow"
    word = coloured(state.replace("_", " ").upper(), colour)
    yield f"{name}   {word}{', paused' if now.paused else ''}   {_what(now)}"
    if now.total:
        done = now.switched or 0
        filled = BAR * done // now.total
        yield f"  [{'#' * filled}{'-' * (BAR - filled)}] {done} of {now.total} switched"
    if now.reason and now.reason != state:
        yield f"  {printable(now.reason)}"
    nodes = now.nodes or ()
    width = max((len(printable(node.name)) for node in nodes), default=0)
    for node in nodes:
        wave = f"wave {node.wave}" if node.wave else ""
        drained = "drained" if node.drained else ""
        words = (node.state.replace("_", " ").ljust(12), wave.ljust(7), drained.ljust(7))
        yield f"  {printable(node.name).ljust(width)}  {'  '.join(words)}  {printable(node.reason)}".rstrip()
    if now.next:
        yield f"  next: {'; or: '.join(printable(step) for step in now.next)}"


def _what(row: api.RolloutDocument) -> str:
    author = f"{printable(row.author)}, " if row.author else ""
    message = f', "{printable(first_line(row.message))}"' if row.message else ""
    took = "" if row.took_ms is None else f", took {row.took_ms / 1000:.1f} s"
    begun = moment(row.started_at)
    return f"generation {row.generation.number} ({author}{begun}{message}), {row.strategy}{took}"


def _past_line(row: api.RolloutDocument) -> str:
    failed, why = row.failed, ""
    if failed is not None:
        who = f"{printable(failed.node)}: " if failed.node else ""
        why = f"   {who}{printable(failed.reason)}"
    return f"{row.state.replace('_', ' ').ljust(10)}  {_what(row)}{why}"


def _ask(session: Session, asked: Command[api.RolloutStateDocument], said: str) -> None:
    document = session.call(asked, 60.0)
    if not session.gave_json(document):
        number = document.generation.number if document.generation is not None else None
        word = said if document.changed else "nothing to change"
        if document.dry_run and document.changed:
            word = f"would be aborted; {', '.join(document.going_back or ()) or 'no partner'} would go back"
        state = document.state.replace("_", " ") + (", paused" if document.paused else "")
        print(f"{document.fileset}: generation {number}: {word}; it is {state}")
        if document.reason:
            print(f"  {printable(document.reason)}")


@command("pause", parent=rollout, example="instep rollout pause catalog")
@click.argument("fileset", required=False)
def pause(session: Session, fileset: str | None) -> None:
    """Let no further partner begin; partners that began finish."""
    _ask(session, api.RolloutPauseCommand(fileset), "paused")


@command("resume", parent=rollout, example="instep rollout resume catalog")
@click.argument("fileset", required=False)
def resume(session: Session, fileset: str | None) -> None:
    """Go on with a paused rollout."""
    _ask(session, api.RolloutResumeCommand(fileset), "goes on")


@command("abort", parent=rollout, example="instep rollout abort catalog")
@click.argument("fileset", required=False)
@click.option("--keep", is_flag=True, help="Partners that switched keep the generation.")
@click.option("--dry-run", is_flag=True, help="Only name the partners that would go back.")
def abort(session: Session, fileset: str | None, keep: bool, dry_run: bool) -> None:
    """End the rollout: no further partner switches, and partners that did go back to the generation before."""
    _ask(session, api.RolloutAbortCommand(fileset, keep=keep, dry_run=dry_run), "aborted")


@command("confirm", parent=rollout, example="instep rollout confirm catalog")
@click.argument("fileset", required=False)
def confirm(session: Session, fileset: str | None) -> None:
    """Say in time that the generation is good, so that no partner goes back."""
    _ask(session, api.RolloutConfirmCommand(fileset), "confirmed")


@command("approve", parent=rollout, example="instep rollout approve catalog --generation 42")
@click.argument("fileset", required=False)
@click.option("--generation", type=click.IntRange(min=1), help="Only this one: a newer one is refused.")
def approve(session: Session, fileset: str | None, generation: int | None) -> None:
    """Let the partners have a generation that waits for an approval."""
    _ask(session, api.RolloutApproveCommand(fileset, generation=generation), "approved")


@command("retry", parent=rollout, example="instep rollout retry catalog")
@click.argument("fileset", required=False)
def retry(session: Session, fileset: str | None) -> None:
    """Begin a failed rollout anew; partners drop their refusals of the generation."""
    _ask(session, api.RolloutRetryCommand(fileset), "begun anew")


@command("reload", example="instep reload catalog --rolling")
@click.argument("fileset", required=False)
@click.option("--rolling", is_flag=True, help="A batch at a time, each taken out of its balancer meanwhile.")
@timeout_option("5m")
def reload(session: Session, fileset: str | None, rolling: bool, timeout_ms: int) -> None:
    """Run the reload hooks, here and on the direct partners, with no new generation."""
    document = session.call(api.ReloadCommand(fileset, rolling=rolling), timeout_ms / 1000)
    if not session.gave_json(document):
        print(f"{document.fileset}: reloaded on {', '.join(document.reloaded)}")
        if document.without_hook:
            print("  no reload hook is set on this node: nothing ran here")
        rows: list[tuple[object, ...]] = [(one.node, one.code, one.reason) for one in document.failed]
        rows += [(one.node, "waits", one.standing) for one in document.waiting_for]
        rows += [(name, "absent", "reloads when it is back") for name in document.absent]
        table(rows)
    if document.failed:
        raise click.exceptions.Exit(RefusedError.exit_code)
    if document.waiting_for:
        raise click.exceptions.Exit(UnavailableError.exit_code)
