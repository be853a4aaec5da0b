"""``sync``: two filesets with different homes are brought together, three-way."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click

from instep.api.changes import sync as api
from instep.cli.filesets.held_text import SET_ASIDE
from instep.cli.output import moment, printable, shown_bytes, table
from instep.cli.session import Session, command, group, timeout_option
from instep.errors import ContentionError, RefusedError
from instep.model.counts import counted
from instep.model.external import External, mark_steps, said_of, unmarked

_SHOWN = 20
_NAMED = 10
"""Paths in one line."""
PHASES = {"incomplete": "not all was made"}
"""The words for a phase that is no plain word."""
NOT_IN_SYNC = 11
"""Exit code of a run that went well while a database is not marked, as of a standing that is not ``in_step``."""
WORDS = {
    "collision": "both sides changed it; the younger is kept as",
    "change_over_deletion": "removed there, changed on the other side: it came back",
    "overruled": "both sides changed it; the direction chose, the other is in the archive",
    "locked_edit": "changed where its kind is locked; that change is in the archive",
    "mixed_kinds": "a directory on one side, a file on the other, in different kinds: nothing was done",
}

sync = group("sync", "Two filesets with different homes, such as staging and production, brought together.")


@command(
    "add",
    parent=sync,
    example="instep sync add site --left site@s1 --right site@p1 --direction both --initiator s1 --initiator s2",
)
@click.argument("profile", metavar="NAME")
@click.option("--left", required=True, metavar="FILESET@NODE", help="One side: staging.")
@click.option("--right", required=True, metavar="FILESET@NODE", help="The other side: production.")
@click.option(
    "--direction", type=click.Choice(["up", "down", "both"]), default="both", show_default=True,
    help="up is left to right.",
)  # fmt: skip
@click.option(
    "--schedule", metavar="CRON", help='When runs start by themselves, such as "15 2 * * *", or off.'
)
@click.option("--zone", metavar="ZONE", help="The time zone of --schedule; UTC when not given.")
@click.option(
    "--initiator",
    "initiators",
    multiple=True,
    metavar="NODE",
    help="May start runs; the left home when not given.",
)
def add(
    session: Session,
    profile: str,
    left: str,
    right: str,
    direction: str,
    schedule: str | None,
    zone: str | None,
    initiators: tuple[str, ...],
) -> None:
    """Write a profile into instep.toml: the same on each node that starts runs."""
    from instep.node.config.editing.sync_edit import set_sync

    wanted: dict[str, object] = {"left": left, "right": right, "direction": direction}
    if initiators:
        wanted["initiators"] = list(initiators)
    wanted |= {name: value for name, value in (("schedule", schedule), ("zone", zone)) if value is not None}
    changed = set_sync(session.node, profile, wanted)
    session.show_change({"profile": profile}, changed, f"the sync profile {profile} is set")


@command("run", parent=sync, example="instep sync run site --dry-run")
@click.argument("profile", metavar="NAME")
@click.option("--dry-run", is_flag=True, help="Show what the run would do, and change nothing.")
@click.option(
    "--initial",
    type=click.Choice(["left", "right"]),
    help="A first run: this side is right, the other is archived.",
)
@click.option("--accept-rollback", is_flag=True, help="Take a side that went back as changed.")
@click.option(
    "--accept-deletions", is_flag=True, help="Remove more on a side than its max_deletions lets go."
)
@click.option("--retry-refused", is_flag=True, help="Bring to a side once more what its partners refused.")
@click.option("-m", "--message", default="", help="Why, for the logs of both homes.")
@click.option("--ok-set-aside", is_flag=True, help="Exit 0 also when paths are listed.")
@timeout_option("1h")
def run(
    session: Session,
    profile: str,
    dry_run: bool,
    initial: str | None,
    accept_rollback: bool,
    accept_deletions: bool,
    retry_refused: bool,
    message: str,
    ok_set_aside: bool,
    timeout_ms: int,
) -> None:
    """Bring both sides together. The run goes on when this command is ended: instep sync show NAME.

    Exit code 20: it ran, and paths are listed that people should look at. Exit code 11: it ran, and a database of one
    side is named that is neither covered nor marked as not covered.
    """
    asked = api.SyncRunCommand(
        profile=profile,
        dry_run=dry_run,
        initial=initial,
        accept_rollback=accept_rollback,
        accept_deletions=accept_deletions,
        retry_refused=retry_refused,
        message=message,
    )
    document = session.call(asked, timeout_ms / 1000)
    session.show(document, _told(document))
    end_of_run(document, ok_set_aside)


@command("list", parent=sync, example="instep sync list")
def list_(session: Session) -> None:
    """The profiles of this node."""
    document = session.call(api.SyncListCommand())
    if not session.gave_json(document):
        rows = [
            (
                one.name, one.left, one.right, one.direction, one.carried_out_by, _next(one.schedule),
                one.why_not or "in sync",
            )
            for one in document.profiles
        ]  # fmt: skip
        table(rows, ("profile", "left", "right", "direction", "run by", "next run", "state"))


@command("show", parent=sync, example="instep sync show site")
@click.argument("profile", metavar="NAME")
@click.option("--exit-code", is_flag=True, help="Exit 11 when the two sides are not in sync.")
def show(session: Session, profile: str, exit_code: bool) -> None:
    """One profile, with its run under way or its last one."""
    document = session.call(api.SyncShowCommand(profile))
    if not session.gave_json(document):
        for line in _profile_lines(document):
            print(line)
    if exit_code and not document.in_sync:
        raise click.exceptions.Exit(NOT_IN_SYNC)


def _profile_lines(document: api.SyncProfileDocument) -> Iterator[str]:
    sides = f"{document.left} <-> {document.right}"
    yield f"{document.name}   {sides}, {document.direction}, run by {document.carried_out_by}"
    yield f"  {document.why_not or 'in sync as of the last run'}"
    if document.schedule is not None:
        at = document.schedule
        yield f"  next run: {_next(at)} ({at.cron}, {at.zone})"
        if at.missed_at is not None:
            yield f"  missed: the run at {moment(at.missed_at)}: {printable(at.missed_because)}"
            yield f"  next: instep sync run {document.name}"
    for edit in document.locked_edits[:_SHOWN]:
        where = f"changed on the {edit.side}, where {edit.kind} is locked, since {moment(edit.since)}"
        yield f"  look at {printable(edit.path)}: {where}"
    if document.locked_edits_total > _SHOWN:
        yield f"  and {document.locked_edits_total - _SHOWN} more"
    if document.locked_unknown:
        yield f"  {printable(document.locked_unknown)}"
    for each in document.kinds:
        enforced = ", put back at once" if each.lock_enforce == "revert" else ""
        locked = f", locked on the {each.locked}{enforced}" if each.locked else ""
        checked = ", then validated" if each.validate else ""
        merged = f", merged as {each.merge}{checked}" if each.merge else ""
        yield f"  {each.name}: {each.direction}{locked}{merged}: {printable(' '.join(each.paths))}"
    if document.last is not None:
        yield from _told(document.last)


@command("cancel", parent=sync, example="instep sync cancel site")
@click.argument("profile", metavar="NAME")
def cancel(session: Session, profile: str) -> None:
    """End the run under way. Its changes stay, and the next run goes on from there."""
    document = session.call(api.SyncCancelCommand(profile))
    session.show(
        document, f"the run of {profile} ends" if document.changed else f"no run of {profile} is under way"
    )


@command("collisions", parent=sync, example="instep sync collisions site --reviewed 1f2e3d4c5b6a")
@click.argument("profile", metavar="NAME")
@click.option("--reviewed", metavar="ID", help="Mark one as looked at.")
@click.option("--all", "is_all", is_flag=True, help="Also those that were looked at.")
def collisions(session: Session, profile: str, reviewed: str | None, is_all: bool) -> None:
    """The paths of past runs that people should look at."""
    document = session.call(api.SyncCollisionsCommand(profile=profile, reviewed=reviewed, all=is_all))
    if not session.gave_json(document):
        rows = [(one.id, one.path, _why(one), "yes" if one.reviewed else "no") for one in document.listed]
        table(rows, ("id", "path", "why", "reviewed"))
        if not rows:
            print("nothing to look at")


def _next(schedule: api.SyncScheduleDocument | None) -> str:
    return moment(schedule.next_at) if schedule is not None else "-"


def end_of_run(document: api.SyncRunDocument, ok_set_aside: bool) -> None:
    """Exit: 4 or 6 where a home did not change a path, 11 where a database is not marked, 20 where paths are listed or
    left out."""
    if document.undone:
        is_refused = any(each.why == "refused" for each in document.undone)
        raise click.exceptions.Exit((RefusedError if is_refused else ContentionError).exit_code)
    if unmarked(each for _, each in _external(document)):
        raise click.exceptions.Exit(NOT_IN_SYNC)
    if (document.listed or document.left_out) and not ok_set_aside and not document.dry_run:
        raise click.exceptions.Exit(SET_ASIDE)


def _told(run: api.SyncRunDocument) -> Iterator[str]:
    number = f"run {run.run} of {run.profile}" if not run.dry_run else f"{run.profile}, dry run"
    when = f", started by {run.initiator} at {moment(run.started_at)}"
    word = PHASES.get(run.phase, run.phase)
    yield f"{number}: {word}{'' if run.ended_at else f', {run.percent} %'}{when}"
    if run.error is not None:
        by = f", {printable(run.error.told_by)} says" if run.error.told_by else ""
        yield f"  it {'is held' if run.phase == 'held' else 'failed'}{by}: {printable(run.error.reason)}"
        again = f"; then: instep sync run {run.profile}"
        step = run.error.hint or "repair the cause"
        yield f"  next: {step if f'sync run {run.profile}' in step else step + again}"
    for side, each in (("left", run.left), ("right", run.right)):
        at = f", generation {each.generation.number}" if each.generation is not None else ""
        counts = (
            f"{each.added} added, {each.changed} changed, {each.removed} removed, {shown_bytes(each.bytes)}"
        )
        if each.merged:
            counts = f"{counts}, {each.merged} merged"
        yield f"  {side} {each.fileset}@{each.node}{at}: {counts}"
    for change in _shown(run):
        yield f"    {change.side}  {change.change}  {printable(change.path)}"
    if run.dry_run and run.changes_total > _SHOWN:
        yield f"    and {run.changes_total - _SHOWN} more: instep sync run {run.profile} --dry-run --json"
    for listed in run.listed:
        yield f"  look at {printable(listed.path)}: {_why(listed)}"
    for row in run.gates:
        word = "not asked" if row.is_away else "would be held" if run.dry_run else "held"
        yield f"  {word}: {printable(row.reason)}"
    yield from _not_made(run)
    yield from _left_out(run)
    if any(undone.code == "max_deletions" for undone in run.undone):
        yield f"  when the removals are meant: instep sync run {run.profile} --accept-deletions"
    for side, part in _external(run):
        yield f"  not carried: {printable(f'{part} of {side}: {said_of(part)}')}"
        for step in mark_steps(side.partition("@")[0], [part]):
            yield f"    next, on {printable(side.partition('@')[2])}: {printable(step)}"
    if run.listed and not run.dry_run:
        yield f"  next: instep sync collisions {run.profile}"


def _not_made(run: api.SyncRunDocument) -> Iterator[str]:
    """The paths that a home did not change, by the reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in run.undone:
        why = each.reason or (f"locked by {each.owner}" if each.owner else each.why)
        found.setdefault((each.side, why), []).append(printable(each.path))
    for (side, why), paths in found.items():
        node = run.left.node if side == "left" else run.right.node
        yield f"  not done on the {side}, by {node}: {_some(paths)}: {printable(why)}"
    if run.undone_total > len(run.undone):
        yield f"  and {counted(run.undone_total - len(run.undone), 'path')} more that were not done"


def _left_out(run: api.SyncRunDocument) -> Iterator[str]:
    """The paths that one home alone ignores, and the command that has the other home ignore them, too."""
    for side, own, other in (("left", run.left, run.right), ("right", run.right, run.left)):
        paths = [printable(each.path) for each in run.left_out if each.side == side]
        if not paths:
            continue
        more = [pattern for pattern in own.ignore if pattern not in other.ignore]
        alone = f" ({printable(', '.join(more[:_SHOWN]))})" if more else ""
        yield f"  left out: {_some(paths)}: {own.node} alone ignores such paths{alone}; both keep what they have"
        both = (*other.ignore, *more)
        if more and len(both) <= _SHOWN and not any("," in pattern for pattern in both):
            step = f"instep fileset set {other.fileset} {shlex.quote('ignore=' + ','.join(both))}"
            yield f"    next, on {other.node}, when they are not to travel: {step}"
    if run.left_out_total > len(run.left_out):
        yield f"  and {counted(run.left_out_total - len(run.left_out), 'path')} more that were left out"


def _some(paths: list[str]) -> str:
    """The first paths, and how many more there are."""
    more = len(paths) - _NAMED
    return f"{', '.join(paths[:_NAMED])}{f' and {more} more' if more > 0 else ''}"


def _shown(run: api.SyncRunDocument) -> list[api.SyncChangeDocument]:
    """All changes of a dry run; of a run those that no person made: merged files."""
    return [each for each in run.changes if run.dry_run or each.change == "merged"][:_SHOWN]


def _external(run: api.SyncRunDocument) -> Iterator[tuple[str, External]]:
    """What both sides name as not carried."""
    for side in (run.left, run.right):
        for each in side.external:
            named = External(each.name, each.kind, each.covered_by, each.not_covered)
            yield f"{side.fileset}@{side.node}", named


def _why(listed: api.SyncListedDocument) -> str:
    words = WORDS[listed.why]
    copy = f" {printable(listed.copy)}" if listed.copy else ""
    renamed = f" (renamed there to {printable(listed.renamed_to)}?)" if listed.renamed_to else ""
    reason = f"; not merged: {printable(listed.reason)}" if listed.reason else ""
    return f"{words}{copy}{renamed}{reason}"
