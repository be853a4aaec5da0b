"""What one node of the cluster runs: ``job``, ``request``, ``maintenance``."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence

import click

from instep.api.shared_parts import jobs as api
from instep.cli.output import coloured, first_line, moment, printable, say, table
from instep.cli.session import Session, command, group, timeout_option
from instep.errors import InstepError, UnavailableError, UsageError

_CODES = {
    "failed": InstepError.exit_code,
    "timed_out": UnavailableError.exit_code,
    "stopped": UnavailableError.exit_code,
    "lost": UnavailableError.exit_code,
}
_OPEN = ("waiting", "running")

job = group("job", "Commands that run once in the cluster at each tick of a cron line.")


@command("list", parent=job, example="instep job list")
def job_list(session: Session) -> None:
    """All jobs of the cluster, with their last run and the next tick."""
    document = session.call(api.JobListCommand())
    if not session.gave_json(document):
        rows = [
            (one.name, f"{one.cron} {one.zone}", moment(one.next), _last(one.last), _on(one))
            for one in document.jobs
        ]
        table(rows, ("job", "cron", "next", "last", "nodes"))
        if document.resting:
            say(document.resting)


def _on(one: api.JobDocument) -> str:
    nodes = ", ".join(one.nodes) or "none"
    return f"{nodes}; other settings at {one.differs_from}" if one.differs_from else nodes


def _last(run: api.RunDocument | None) -> str:
    if run is None:
        return "never"
    at = moment(run.ended_at or run.started_at or run.due_at)
    where = f" on {run.node}" if run.node else ""
    return f"{_state(run)} {at}{where}"


def _state(run: api.RunDocument) -> str:
    word = run.state.replace("_", " ")
    return coloured(word, "red") if run.state in _CODES else word


@command("show", parent=job, example="instep job show reindex --last 5")
@click.argument("work", metavar="NAME")
@click.option("--last", type=click.IntRange(1, 2_000), default=20, show_default=True, help="How many runs.")
def job_show(session: Session, work: str, last: int) -> None:
    """The newest runs of a job, which node ran them, and what they printed."""
    document = session.call(api.JobShowCommand(work, last))
    if not session.gave_json(document):
        one = document.job
        print(f"{one.name}  {one.cron} {one.zone}, next {moment(one.next)}, on {_on(one)}")
        if one.run:
            print(f"  runs {printable(' '.join(one.run))}")
        _print_runs(document.runs)
        if document.missed:
            ticks = len(document.missed)
            print(f"missed: {ticks} {'tick' if ticks == 1 else 'ticks'}, the last at {document.missed[-1]}")


def _print_runs(runs: Sequence[api.RunDocument]) -> None:
    rows = [
        (
            one.key,
            one.attempt,
            _state(one),
            one.node,
            moment(one.started_at),
            moment(one.ended_at),
            first_line(one.reason),
        )
        for one in runs
    ]
    table(rows, ("run", "attempt", "state", "node", "started", "ended", "reason"))
    newest = next((one for one in runs if one.output), None)
    if newest is not None:
        print(f"output of {newest.key}:")
        for line in newest.output.splitlines():
            print(f"  {printable(line)}")


@command("run", parent=job, example="instep job run reindex --wait")
@click.argument("work", metavar="NAME")
@click.option("--wait", is_flag=True, help="Until it has ended.")
@timeout_option("10m")
def job_run(session: Session, work: str, wait: bool, timeout_ms: int) -> int:
    """Let one node run a job now, beside its ticks."""
    document = session.call(api.JobRunCommand(work, getpass.getuser(), wait), timeout_ms / 1000)
    if not session.gave_json(document):
        _say_run(
            f"run {document.run.key} of {document.name}", document.run, f"instep job show {document.name}"
        )
    return _code(document.run)


def _say_run(what: str, run: api.RunDocument, hint: str) -> None:
    """How it stands, and what it printed; after a failure where more is."""
    where = f" on {run.node}" if run.node else ""
    why = f": {run.reason}" if run.reason else ""
    say(f"{what} {'is ' if run.state in _OPEN else ''}{_state(run)}{where}{why}")
    sys.stdout.write("".join(f"{printable(line)}\n" for line in run.output.splitlines()))
    if run.state in _CODES:
        say(f"next: {hint}")


def _code(run: api.RunDocument) -> int:
    """The exit code of a command that waited for a run."""
    return _CODES.get(run.state, 0)


request = group("request", "Requests of which one node of the cluster takes each.")


@command("add", parent=request, example="instep request add import /data/in/today.csv --wait")
@click.argument("kind")
@click.argument("payload", metavar="PAYLOAD|-")
@click.option("--id", "request_id", metavar="ID", help="Added once: a second one with this id adds nothing.")
@click.option("--wait", is_flag=True, help="Until it has ended.")
@timeout_option("10m")
def request_add(
    session: Session, kind: str, payload: str, request_id: str | None, wait: bool, timeout_ms: int
) -> int:
    """Put up a request. The node that takes it runs the command of [requests.KIND] with PAYLOAD as its input."""
    text = _stdin() if payload == "-" else payload
    asked = api.RequestAddCommand(kind, text, request_id, getpass.getuser(), wait)
    document = session.call(asked, timeout_ms / 1000)
    if not session.gave_json(document):
        print(document.run.key, flush=True)
        _say_run(f"request {document.run.key}", document.run, f"instep request list {kind}")
    return _code(document.run)


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise UsageError(
            "the payload is not UTF-8 text", code="bad_payload", hint="give text, or the path of a file"
        ) from None


@command("list", parent=request, example="instep request list import")
@click.argument("kind", required=False)
@click.option(
    "--last", type=click.IntRange(1, 2_000), default=50, show_default=True, help="How many requests."
)
def request_list(session: Session, kind: str | None, last: int) -> None:
    """The newest requests, which node took them, and how they ended."""
    document = session.call(api.RequestListCommand(kind, last))
    if not session.gave_json(document):
        rows = [
            (one.kind, one.run.key, _state(one.run), one.run.node, moment(one.run.due_at), first_line(one.payload),
             first_line(one.run.reason))
            for one in document.requests
        ]  # fmt: skip
        table(rows, ("kind", "request", "state", "node", "added", "payload", "reason"))


maintenance = group("maintenance", "Nothing new starts on this node, or in the cluster.")


def _maintain(session: Session, asked: api.MaintenanceCommand, timeout_ms: int) -> None:
    document = session.call(asked, timeout_ms / 1000)
    if not session.gave_json(document):
        of = "the cluster" if asked.cluster else document.node
        begun = "begins" if asked.on else "ends"
        print(f"maintenance of {of} {begun}" if document.changed else f"maintenance of {of} is as it was")
        for one in document.in_flight:
            print(f"  still runs here: {printable(one)}")
        if not asked.on and document.on:
            print(f"  {document.node} stays in maintenance: {_other(document)}")


def _other(document: api.MaintenanceDocument) -> str:
    return "instep maintenance off --cluster" if document.cluster else "instep maintenance off"


@command("on", parent=maintenance, example='instep maintenance on --reason "new disks" --wait')
@click.option("--cluster", is_flag=True, help="On all nodes.")
@click.option("--reason", default="", metavar="TEXT", help="Shown by status and node list.")
@click.option("--wait", is_flag=True, help="Until nothing of before runs on this node.")
@timeout_option("10m")
def maintenance_on(session: Session, cluster: bool, reason: str, wait: bool, timeout_ms: int) -> None:
    """No job or request starts, and balancers send no users. What runs already goes on to its end."""
    _maintain(session, api.MaintenanceCommand(on=True, cluster=cluster, reason=reason, wait=wait), timeout_ms)


@command("off", parent=maintenance, example="instep maintenance off")
@click.option("--cluster", is_flag=True, help="On all nodes.")
@click.option("--reason", default="", metavar="TEXT", help="Kept in events and audit.")
@timeout_option("30s")
def maintenance_off(session: Session, cluster: bool, reason: str, timeout_ms: int) -> None:
    """Work starts again."""
    _maintain(session, api.MaintenanceCommand(on=False, cluster=cluster, reason=reason), timeout_ms)
