"""How an own line stands at its writer, derived from the publish machine's state."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from instep.core.guards.held import words_of
from instep.core.hook_writes import HOOK_WRITES, hook_steps, hook_words
from instep.core.publish.hold import EXPIRED, beside_words
from instep.core.publish.vocabulary import PublishFacts, PublishReport
from instep.core.rescan import not_all_watched
from instep.core.vocabulary import HookWrite, Trouble
from instep.model.counts import counted, which
from instep.model.ids import HeadRef, LineId
from instep.model.standing import Standing

PATHS_HELD = "paths_held"


@dataclass(frozen=True, slots=True)
class PublishSeen:
    """The inputs of the standing besides the facts."""

    is_working: bool
    trouble: Trouble | None
    is_first_held: bool
    is_fetching: bool
    has_past: bool = False
    """The node knows no generation of its line and has contents of earlier ones."""
    is_unpublished: bool = False
    """Changes wait for ``instep publish``, because publishing is manual."""
    restored: Trouble | None = None
    """The tree is not the newer head that was adopted: an operator has to decide."""
    is_surveyed: bool = True
    """The tree was looked at since the start, or no caller waits for that."""
    was_away: bool = False
    """The root was out of sight, and the tree was not looked at since."""
    blind: Trouble | None = None
    """Why the watch cannot see all paths."""
    beside: bytes | None = None
    """A path of ``hold_while`` that is there for too long to wait for."""
    undeclared: tuple[HookWrite, ...] = ()
    """The paths that hooks of this node write, and do not name."""
    read_only: Trouble | None = None
    """Why this node publishes nothing for now."""


def publish_stand_of(line: LineId, facts: PublishFacts, seen: PublishSeen) -> PublishReport:
    """The report of the writer's own standing."""
    head = facts.head
    if facts.is_paused:
        reason = facts.paused_reason or "publishing is paused here"
        return PublishReport(Standing.PAUSED, "paused", reason, (f"instep resume {line.fileset}",), head)
    if seen.trouble is not None:
        return _of_trouble(line, facts, seen.trouble)
    if seen.restored is not None:
        ways: tuple[str, ...] = (
            f"take the newest generation back: instep restore {line.fileset}",
            f"when the tree here is right: instep publish {line.fileset} --over",
            f"look first: instep diff {line.fileset}",
        )
        if not facts.has_pages:
            ways = ("bring a partner back that has that generation: instep partner list", ways[1])
        if seen.restored.code != "restored" and seen.restored.hint:
            ways = (seen.restored.hint,)
        return PublishReport(Standing.HELD, seen.restored.code, seen.restored.reason, ways, facts.head)
    if seen.is_fetching:
        return PublishReport(
            Standing.APPLYING, "adopting", "fetching the manifest of our own newer generation", (), head
        )
    if seen.is_first_held:
        reason = "nothing was published yet; a partner is asked first whether it knows the line, and none answered yet"
        if seen.has_past:
            reason = (
                "this node knows no generation of its line and no listed partner answered yet, so it may have "
                "lost its state"
            )
        return PublishReport(
            Standing.HELD if seen.has_past else Standing.UNKNOWN,
            "first_publish_waits",
            reason,
            (
                "wait until a partner connects",
                f"or, if this is the first publish: instep publish {line.fileset}",
            ),
            None,
        )
    if seen.read_only is not None and (seen.is_unpublished or not facts.held.total):
        return _of_read_only(line, head, seen.read_only, is_unpublished=seen.is_unpublished)
    if head is None:
        return PublishReport(Standing.UNKNOWN, "no_generation", "nothing was published yet", (), None)
    if seen.is_working:
        return PublishReport(Standing.APPLYING, None, f"publishing above generation {head.number}", (), head)
    if seen.was_away or not seen.is_surveyed:
        last = "its root was out of sight" if seen.was_away else "the start"
        return PublishReport(
            Standing.UNKNOWN,
            "not_looked_yet",
            f"the tree was not looked at since {last}; generation {head.number} is the newest",
            (),
            head,
        )
    return _looked_at(line, facts, seen, head)


def _looked_at(line: LineId, facts: PublishFacts, seen: PublishSeen, head: HeadRef) -> PublishReport:
    """By what the last look at the tree found."""
    if seen.is_unpublished and not facts.held.total:
        return PublishReport(
            Standing.IN_STEP,
            "unpublished",
            f"changes since generation {head.number} are not published, because publishing is manual",
            (f"instep diff {line.fileset}", f"instep publish {line.fileset}"),
            head,
        )
    if facts.held.total:
        return _of_held(line, facts, head, is_unpublished=seen.is_unpublished)
    return _in_step(seen, head)


def _of_read_only(line: LineId, head: HeadRef | None, why: Trouble, *, is_unpublished: bool) -> PublishReport:
    """Changes that wait for its end are held; a tree that is its head is in step, and says why that may not last."""
    steps = () if why.hint is None else (why.hint,)
    if not is_unpublished and head is not None:
        return PublishReport(Standing.IN_STEP, why.code, why.reason, steps, head)
    since = (
        f"changes since generation {head.number} wait" if head is not None else "nothing was published yet"
    )
    steps = (f"instep diff {line.fileset}", *steps)
    return PublishReport(Standing.HELD, why.code, f"{why.reason}; {since}", steps, head)


def _in_step(seen: PublishSeen, head: HeadRef) -> PublishReport:
    """With the reason why that may not last."""
    if seen.blind is not None:
        steps = (seen.blind.hint,) if seen.blind.hint else ()
        return PublishReport(Standing.IN_STEP, seen.blind.code, not_all_watched(seen.blind), steps, head)
    if seen.beside is not None:
        steps = ("remove it where no program needs it any more; from then on it holds publishing again",)
        return PublishReport(Standing.IN_STEP, EXPIRED, beside_words(seen.beside), steps, head)
    if seen.undeclared:
        reason = f"{hook_words(seen.undeclared)}: that is published too, and the hook runs once more for it"
        return PublishReport(Standing.IN_STEP, HOOK_WRITES, reason, hook_steps(seen.undeclared), head)
    return PublishReport(Standing.IN_STEP, None, None, (), head)


def _of_held(line: LineId, facts: PublishFacts, head: HeadRef, *, is_unpublished: bool) -> PublishReport:
    """Single paths are held; the driver adds what to type for each, for it knows where the tree lies."""
    held = facts.held
    rest: str = "all else is published"
    steps: tuple[str, ...] = ()
    if is_unpublished:
        rest = f"changes since generation {head.number} are not published, because publishing is manual"
        steps = (f"instep diff {line.fileset}", f"instep publish {line.fileset}")
    are = which(held.total, "is", "are")
    reason = f"{counted(held.total, 'path')} {are} held, {rest}: {words_of(held.listed, held.total)}"
    return PublishReport(Standing.HELD, PATHS_HELD, reason, steps, head)


def _of_trouble(line: LineId, facts: PublishFacts, trouble: Trouble) -> PublishReport:
    standing = Standing.FAILING
    if trouble.exit_code == 10:
        standing = Standing.DAMAGED
    elif trouble.exit_code in (3, 4, 5):
        standing = Standing.BLOCKED
    step = (
        trouble.hint
        or f"repair the cause; it is retried by itself, at once with: instep retry {line.fileset}"
    )
    is_superseded = trouble.code in ("not_the_writer", "epoch_conflict")
    kept = "" if facts.head is None or is_superseded else f"; partners keep generation {facts.head.number}"
    back = _ways_back(line, facts, trouble)
    # Of a loss the step that destroys nothing comes first: an operator who types it can still do the other.
    steps = (*back, step) if trouble.code == "max_deletions" else (step, *back)
    return PublishReport(standing, trouble.code, f"{trouble.reason}{kept}", steps, facts.head)


def _ways_back(line: LineId, facts: PublishFacts, trouble: Trouble) -> tuple[str, ...]:
    """The command that takes back what is damaged or missing, where that may be what an operator wants."""
    if facts.head is None or trouble.code not in ("damaged", "max_deletions"):
        return ()
    named = next((value for name, value in trouble.facts if name == "paths"), ())
    paths = [str(path) for path in named] if isinstance(named, list) and trouble.code == "damaged" else []
    words = " ".join(shlex.quote(word) for word in (line.fileset, *paths))
    return (f"take it back as generation {facts.head.number} has it: instep restore {words}",)
