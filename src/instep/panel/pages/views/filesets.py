"""One fileset: how it stands everywhere, its generations, differences, rollout and archive."""

from __future__ import annotations

import base64
import binascii
import shlex
from collections import Counter
from urllib.parse import urlencode

from instep.api.archive import ArchiveListCommand
from instep.api.looking import DiffCommand, LogCommand, StatusCommand, StatusDocument, TextDiffCommand
from instep.api.rollouts import RolloutDocument, RolloutNodeDocument, RolloutShowCommand
from instep.errors import RefusedError, UsageError
from instep.panel.feed import rows_of
from instep.panel.pages.visit import PAGE, Page, Visit

ENDED = frozenset({"none", "done", "put_back", "stopped", "aborted", "superseded"})
"""The states of a rollout that is over."""
CHANGES_SHOWN = 50


async def fileset(visit: Visit) -> Page:
    name = visit.found["fileset"]
    status = await visit.ask(StatusCommand(name))
    assert isinstance(status, StatusDocument)
    (found,) = status.filesets
    context = {
        "fileset": found, "base": visit.base, "rows": list(rows_of(status)), "may": visit.may, "again": name,
        "written_here": any(line.writer == status.node for line in found.lines),
    }  # fmt: skip
    same = (
        f"instep status {name} --watch",
        f"instep publish {name} -m MESSAGE",
        f"instep pause {name} --reason TEXT",
    )
    return Page("fileset.html", name, context, same=same, is_live=True)


async def generations(visit: Visit) -> Page:
    name = visit.found["fileset"]
    told = await visit.ask(LogCommand(name))
    first, rows = visit.page_of(told.generations)
    context = {
        "fileset": name, "base": visit.base, "rows": rows, "first": first, "page": PAGE,
        "total": len(told.generations), "again": name,
    }  # fmt: skip
    return Page(
        "generations.html", f"Generations of {name}", context, same=(f"instep log {name}",), is_live=True
    )


async def differences(visit: Visit) -> Page:
    """Of two generations, of one and the head, or, without numbers, of the head and the tree as it is now."""
    name, a, b = visit.found["fileset"], visit.number("a"), visit.number("b")
    told = await visit.ask(DiffCommand(name, a=a, b=b))
    counts = Counter(one.change for one in told.changes)
    first, changes = visit.page_of(told.changes)
    title = f"Pending changes of {name}" if a is None else f"{name}: from generation {told.a} to {told.b}"
    query = urlencode({} if a is None else {"a": a} if b is None else {"a": a, "b": b})
    context = {
        "fileset": name, "base": visit.base, "changes": changes, "held": told.held or (), "first": first,
        "page": PAGE, "total": len(told.changes), "query": query,
        "text": "" if visit.may["text_diff"] else f"{visit.base}/text?{query}{'&' if query else ''}",
        "counts": {word: counts[word] for word in ("added", "changed", "removed", "renamed")},
    }  # fmt: skip
    numbers = "" if a is None else f" {a}" if b is None else f" {a} {b}"
    return Page("diff.html", title, context, same=(f"instep diff {name}{numbers}",))


async def text(visit: Visit) -> Page:
    """The lines of one path that differ; the path comes as base64, since it may be no text."""
    name, a, b = visit.found["fileset"], visit.number("a"), visit.number("b")
    try:
        path = base64.b64decode(visit.query("path_b64"), validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("the path is not base64", code="bad_parameter") from None
    told = await visit.ask(
        TextDiffCommand(name, path=path.decode("utf-8", "replace"), path_b64=path, a=a, b=b)
    )
    numbers = "" if a is None else f" {a}" if b is None else f" {a} {b}"
    context = {
        "fileset": name, "base": visit.base, "told": told,
        "query": urlencode({} if a is None else {"a": a} if b is None else {"a": a, "b": b}),
    }  # fmt: skip
    same = (f"instep diff {name}{numbers} --text {shlex.quote(told.path)}",)
    return Page("text.html", f"Text of {told.path}", context, same=same)


async def back(visit: Visit) -> Page:
    """What a rollback would change, and the form that does it."""
    name = visit.found["fileset"]
    number = int(visit.found["number"]) if visit.found["number"].isdecimal() else -1
    status = await visit.ask(StatusCommand(name))
    head = next((line.head for each in status.filesets for line in each.lines if line.head is not None), None)
    if head is None:
        raise RefusedError(
            f"{name} has no generation yet", hint=f"instep publish {name}", code="no_generation"
        )
    told = await visit.ask(DiffCommand(name, a=head.number, b=number))
    paused = any(line.standing == "paused" for each in status.filesets for line in each.lines)
    context = {
        "fileset": name, "base": visit.base, "number": number, "changes": told.changes[:CHANGES_SHOWN],
        "shown": min(len(told.changes), CHANGES_SHOWN), "total": len(told.changes), "may": visit.may,
        "paused": paused,
    }  # fmt: skip
    return Page(
        "back.html",
        f"Go back to generation {number}",
        context,
        same=(f"instep rollback {name} {number} -m REASON",),
    )


async def rollout(visit: Visit) -> Page:
    name = visit.found["fileset"]
    told = await visit.ask(RolloutShowCommand(name))
    waves: dict[int | None, list[RolloutNodeDocument]] = {}
    for one in (told.rollout.nodes or ()) if told.rollout is not None else ():
        waves.setdefault(one.wave, []).append(one)
    context = {
        "fileset": name, "base": visit.base, "rollout": told.rollout, "past": told.past, "may": visit.may,
        "why": _why_not(name, told.rollout), "again": name,
        "waves": sorted(waves.items(), key=lambda item: (item[0] is None, item[0] or 0)),
    }  # fmt: skip
    return Page(
        "rollout.html", f"Rollout of {name}", context, same=(f"instep rollout show {name}",), is_live=True
    )


def _why_not(name: str, rollout: RolloutDocument | None) -> dict[str, str]:
    """By act why the rollout cannot take it now; empty where it can."""
    state = "none" if rollout is None else rollout.state
    is_paused = rollout is not None and rollout.paused
    over = "" if state not in ENDED else "no rollout runs"
    is_to_approve = rollout is not None and any(
        step.startswith(f"instep rollout approve {name} ") for step in rollout.next or ()
    )
    return {
        "pause": over or ("it is paused" if is_paused else ""),
        "resume": "" if is_paused else "it is not paused",
        "abort": over,
        "approve": "" if is_to_approve else "it waits for no approval",
        "confirm": "" if state == "confirming" else "nothing waits for that",
        "retry": "" if state in ("put_back", "stopped", "aborted") else "nothing has failed",
    }


async def archive(visit: Visit) -> Page:
    name, q, since = visit.found["fileset"], visit.query("q"), visit.query("since")
    only_aside = bool(visit.query("set_aside"))
    told = await visit.ask(ArchiveListCommand(name, set_aside=only_aside))
    chosen = [one for one in told.items if q.lower() in one.path.lower() and (one.at or "") >= since]
    first, items = visit.page_of(chosen)
    asked = {"q": q, "since": since, **({"set_aside": "on"} if only_aside else {})}
    context = {
        "fileset": name, "base": visit.base, "items": items, "all": len(told.items), "size": told.bytes, "q": q,
        "since": since, "set_aside": only_aside, "first": first, "page": PAGE, "total": len(chosen),
        "query": urlencode(asked), "may": visit.may,
    }  # fmt: skip
    same = (f"instep archive list {name}", f"instep archive restore {name} PATH --to DIR")
    return Page("archive.html", f"Archive of {name}", context, same=same)
