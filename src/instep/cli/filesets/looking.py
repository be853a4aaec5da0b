"""Questions of people: ``status``, ``log``, ``diff``, ``events``, ``verify``, ``explain``."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click
from msgspec import UnsetType
from msgspec.structs import replace

from instep.api import looking as api
from instep.api.lines import ExportGitCommand
from instep.api.parts import PathCopiesDocument
from instep.api.verifying import VerifyCommand
from instep.cli.filesets.held_text import SET_ASIDE, held_lines, reported_lines
from instep.cli.filesets.status_text import exit_code, status_lines
from instep.cli.output import first_line, moment, printable, say, table
from instep.cli.session import DURATION, Session, absolute, command, max_behind_option, timeout_option
from instep.errors import DamagedError, UsageError
from instep.model.counts import counted, which

EXPORT_S = 24 * 3_600.0
SILENT_S = 2.5
"""A daemon that says nothing for so long may hang: ``status`` then has the last state, and the process."""


@command("status", example="instep status --watch")
@click.argument("fileset", required=False)
@click.option("--watch", is_flag=True, help="Go on showing it whenever it changes.")
@click.option("--exit-code", "with_exit_code", is_flag=True, help="Exit with the code of the worst standing.")
@max_behind_option
def status(
    session: Session, fileset: str | None, watch: bool, with_exit_code: bool, max_behind_ms: int | None
) -> None:
    """Show how every node stands, why and since when, and what to type next.

    Answers on any node, with the daemon up or down (then from its last state).
    """
    if watch:
        session.watch(api.StatusCommand(fileset, True, max_behind_ms), status_lines)
    asked = api.StatusCommand(fileset, max_behind_ms=max_behind_ms)
    document = session.call_or(lambda: _offline_status(session, fileset), asked, SILENT_S)
    session.show(document, status_lines(document))
    code = exit_code(document) if with_exit_code else 0
    if code:
        raise click.exceptions.Exit(code)


def _offline_status(session: Session, fileset: str | None) -> api.StatusDocument:
    from instep.node.lines.snapshot import offline_status

    document = offline_status(session.node.path)
    if fileset is None:
        return document
    chosen = tuple(one for one in document.filesets if one.name == fileset)
    if not chosen:
        raise UsageError(f"there is no fileset {fileset} here", hint="instep status", code="no_fileset")
    return replace(document, filesets=chosen)


@command("log", example="instep log catalog\ninstep log catalog styles/road.sld")
@click.argument("fileset", required=False)
@click.argument("path", required=False)
@click.option(
    "--git", "directory", metavar="DIR", help="Write the generations there, as commits of a bare repository."
)
def log(session: Session, fileset: str | None, path: str | None, directory: str | None) -> None:
    """The generations, newest first, and where the contents of each can still be had.

    With PATH those in which it changed, by whom, and which nodes serve which version of it; a directory changes with
    all below it, and a renamed path is followed to its older names.

    With --git DIR the generations become commits; a second run appends newer ones. One whose contents are nowhere any
    more is left out by name, then the exit code is 20.
    """
    if directory is not None:
        if path is not None:
            raise UsageError("--git takes the whole fileset, no path", hint="instep log FILESET --git DIR")
        _export(session, fileset, directory)
        return
    if path is not None:
        _show_path_log(session, fileset, os.fsencode(path).rstrip(b"/"))
        return
    document = session.call_or(lambda: _offline_log(session, fileset), api.LogCommand(fileset))
    if not session.gave_json(document):
        rows = [
            (one.number, moment(one.published_at), one.author, first_line(one.message), _places(one))
            for one in document.generations
        ]
        table(rows, ("number", "published", "author", "message", "contents on"))


def _offline_log(session: Session, fileset: str | None) -> api.LogDocument:
    from instep.node.lines.snapshot import offline_log

    return offline_log(session.node.path, fileset)


def _export(session: Session, fileset: str | None, directory: str) -> None:
    document = session.call(ExportGitCommand(fileset, to=absolute(directory)), EXPORT_S)
    if not session.gave_json(document):
        many = len(document.written)
        made = (
            f"{counted(many, 'generation')} became {which(many, 'a commit', 'commits')}"
            if many
            else "nothing new"
        )
        print(f"{document.fileset}: {made}; see: git --git-dir {shlex.quote(document.to)} log --stat")
        for one in document.skipped:
            print(f"  generation {one.number} is left out: {printable(one.reason)}")
        if document.left_out:
            some = ", ".join(map(printable, document.left_out))
            print(f"  git takes no path with .git in it: {counted(document.left_out_total, 'path')}: {some}")
    if document.skipped:
        raise click.exceptions.Exit(SET_ASIDE)


def _show_path_log(session: Session, fileset: str | None, path: bytes) -> None:
    asked = api.PathLogCommand(fileset, path=path.decode("utf-8", "replace"), path_b64=path)
    document = session.call_or(lambda: _offline_path_log(session, fileset, path), asked)
    if session.gave_json(document):
        return
    served: dict[int | None, list[str]] = {}
    for node in document.nodes:
        served.setdefault(node.version, []).append(node.name)
    rows = []
    for one in document.generations:
        change = one.change + (f" from {printable(one.source)}" if one.source else "")
        change += f" (after {one.after})" if one.after else ""
        size = one.size if one.size or one.size == 0 else ""
        by = ", ".join(served.get(one.number, ()))
        rows.append(
            (one.number, moment(one.published_at), one.author, change, size, first_line(one.message), by)
        )
    table(rows, ("number", "published", "author", "change", "bytes", "message", "served by"))
    if None in served:
        print(f"no version is served by {', '.join(served[None])}")


def _offline_path_log(session: Session, fileset: str | None, path: bytes) -> api.PathLogDocument:
    from instep.node.lines.path_log import offline_path_log

    return offline_path_log(session.node.path, fileset, path)


_SIGNS = {"added": "+", "changed": "~", "removed": "-", "renamed": ">"}


def _places(one: api.LogRowDocument) -> str:
    """Where all contents of a generation are."""
    alone = ", ".join(one.contents)
    return alone or (f"{' + '.join(one.together)} together" if one.together else "no node")


@command("diff", example="instep diff catalog 41 42")
@click.argument("words", nargs=-1, metavar="[FILESET] [A [B]]")
@click.option("--text", "path", metavar="PATH", help="The lines of this path that differ, as in diff -u.")
def diff(session: Session, words: tuple[str, ...], path: str | None) -> None:
    """Show the changes between two generations; without any, between the head and the tree as it is now."""
    fileset, numbers = _fileset_and_numbers(words)
    a, b = (*numbers, None, None)[:2]
    if path is not None:
        _show_text(
            session, api.TextDiffCommand(fileset, path=printable(path), path_b64=os.fsencode(path), a=a, b=b)
        )
        return
    document = session.call(api.DiffCommand(fileset, a, b))
    if not session.gave_json(document):
        for one in document.changes:
            source = f"{printable(one.source)} -> " if one.source else ""
            problem = f"  ({printable(one.problem)})" if one.problem else ""
            print(f"{_SIGNS.get(one.change, '?')} {source}{printable(one.path)}{problem}")
        if not document.changes:
            print("no difference")
        for line in held_lines(document.held, document.held_total):
            print(line)
        for line in reported_lines(document.reported, document.reported_total):
            print(line)


def _show_text(session: Session, asked: api.TextDiffCommand) -> None:
    document = session.call(asked)
    if not session.gave_json(document):
        for line in document.lines:
            print(printable(line))
        if document.why:
            print(f"{printable(document.path)}: {printable(document.why)}")
        if document.cut:
            print(f"more lines differ: instep restore {document.fileset} --to DIR, and compare there")


def _fileset_and_numbers(words: tuple[str, ...]) -> tuple[str | None, list[int]]:
    """``[FILESET] [A [B]]``: a first word of digits is a generation, unless two more follow it."""
    rest = list(words)
    fileset = None
    if rest and (not rest[0].isdecimal() or len(rest) == 3):
        fileset = rest.pop(0)
    if len(rest) > 2 or not all(word.isdecimal() for word in rest):
        raise UsageError(
            "diff takes a fileset and up to two generation numbers", hint="instep diff catalog 41 42"
        )
    return fileset, [int(word) for word in rest]


@command("events", example="instep events --since 1h")
@click.option("--since", "since_ms", type=DURATION, default="1h", show_default=True, help="How far back.")
@click.option("--follow", is_flag=True, help="Go on with each new event until the daemon stops.")
@click.option("--warnings", is_flag=True, help="Only what needs a look.")
def events(session: Session, since_ms: int, follow: bool, warnings: bool) -> None:
    """List the events of this node: published, applied, refused, links and partners lost and back, guards, drains.

    Answers with the daemon up or down. A line with ! is a warning, in the daemon's log as well.
    """
    begin_ms = max(0, int(time.time() * 1000) - since_ms)

    def show(document: api.EventsDocument) -> None:
        if warnings:
            document = replace(
                document, events=tuple(one for one in document.events if one.get("level") == "warning")
            )
        if not session.gave_json(document):
            for one in document.events:
                print(_event_line(one), flush=follow)

    if follow:
        session.follow(lambda after: api.EventsCommand(begin_ms, after, follow=True), show)
    show(session.call_or(lambda: _offline_events(session, begin_ms), api.EventsCommand(begin_ms)))


def _event_line(one: Mapping[str, Any]) -> str:
    known = {"number", "at", "level", "fileset", "what", "text", "reason"}
    more = {key: value for key, value in one.items() if key not in known and value not in (None, "", [])}
    words = one.get("text") or " ".join(filter(None, (one.get("what"), one.get("reason"))))
    facts = " ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in more.items()
    )
    sign = "!" if one.get("level") == "warning" else " "
    return printable(f"{moment(one.get('at'))} {sign} {one.get('fileset') or '-'}  {words}  {facts}").rstrip()


def _offline_events(session: Session, since_ms: int) -> api.EventsDocument:
    from instep.node.lines.snapshot import offline_events

    return offline_events(session.node.path, since_ms)


@command("verify", example="instep verify catalog --fleet --deep")
@click.argument("fileset", required=False)
@click.option("--deep", is_flag=True, help="Read every byte instead of trusting size and times.")
@click.option("--fleet", is_flag=True, help="Have the partners verify theirs as well.")
@timeout_option("1h")
def verify(session: Session, fileset: str | None, deep: bool, fleet: bool, timeout_ms: int) -> None:
    """Compare the attested roots of the fleet, and each tree with its manifest; exit 10 on a difference.

    In a fileset of many homes a node is shown once for each line.
    """
    document = session.call(VerifyCommand(fileset, deep=deep, fleet=fleet), timeout_ms / 1000)
    if not session.gave_json(document):
        print(f"{document.fileset}: " + ("identical" if document.identical else "NOT identical"))
        for one in document.nodes:
            root, reason = (one.root or "-")[:16], f"  {one.reason}" if one.reason else ""
            differ = f"{counted(len(one.differs), 'path')} {which(len(one.differs), 'differs', 'differ')}"
            line = f"line of {one.origin}  " if one.origin else ""
            print(f"  {one.name}  {line}root {root}  {differ}{reason}")
            for path in one.differs:
                print(f"    {printable(path.path)}: {printable(path.why)}")
    if not document.identical:
        raise click.exceptions.Exit(DamagedError.exit_code)


@command("explain", example="instep explain catalog styles/road.sld\ninstep explain --table")
@click.argument("fileset", required=False)
@click.argument("path", required=False)
@click.option("--table", "is_table", is_flag=True, help="What the partner lists of all nodes let pass.")
def explain(session: Session, fileset: str | None, path: str | None, is_table: bool) -> None:
    """Show which nodes get a fileset or a path of it, by which way, and why others do not.

    --table shows it for the whole network, by the partner lists: what each link carries, and where the
    documents of each home get to, or which row stops them.
    """
    if is_table:
        if path is not None:
            raise UsageError("--table takes no PATH", hint="instep explain --table", code="bad_flags")
        table_document = session.call(api.ExplainTableCommand(fileset))
        if not session.gave_json(table_document):
            print(table_document.text, end="")
            for name in table_document.untold:
                say(f"instep: {name} has told its rows to no node that is in reach of this one")
        return
    raw = None if path is None else os.fsencode(path)
    shown = None if raw is None else raw.decode("utf-8", "replace")
    document = session.call(api.ExplainCommand(fileset, shown, raw))
    if not session.gave_json(document):
        for one in document.to:
            way = f" via {', '.join(one.via)}" if one.via else ""
            verdict = "gets it" if one.gets else "does not get it"
            print(f"{one.node}  {verdict}{way}  {printable(one.why)}".rstrip())
        if not document.to:
            print("no other node gets it: there are no partners")
        copies = _path_copies_lines(document.copies)
        for line in (*copies, *held_lines(document.held), *reported_lines(document.reported)):
            print(line)


def _path_copies_lines(found: Iterable[PathCopiesDocument] | UnsetType) -> Iterator[str]:
    """One document in ``explain``."""
    for each in found or ():
        rule = ", ".join(printable(pattern) for pattern in each.paths)
        yield f"copies: {len(each.at)} known of {each.wanted} wanted ({rule})"
        said = (("on", each.at), ("not on", each.lacking), ("on, though blocked", each.blocked))
        yield from (
            f"  {word} {', '.join(printable(name) for name in nodes)}" for word, nodes in said if nodes
        )
        yield from (f"  not known of {printable(one.node)}: {printable(one.why)}" for one in each.unknown)
