"""After a crash: finish an interrupted switch or leave the old generation as it is; and put a generation back.

Implements section 5 of ``docs/spec/journal.md``. Neither needs a network.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from instep.errors import ContentionError, InstepError, ResourceError, UnavailableError
from instep.model.definition import Definition
from instep.model.ids import HeadRef
from instep.model.manifest.manifest import GetPage
from instep.model.paths import shown
from instep.tree.archive.archive import Archive
from instep.tree.journal.journal import Journal, Op
from instep.tree.objects.fidelity import Local
from instep.tree.root.beneath import Root
from instep.tree.root.control_folder import on_opened, opened
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.marker import open_marked
from instep.tree.root.place import Place
from instep.tree.stage.shortage import resource_error
from instep.tree.stage.stage import LiveRow, Source, Stage
from instep.tree.stage.stages import list_stages
from instep.tree.switch.step_work import REPORTED_MAX, Paths, Switched
from instep.tree.switch.switch import switch
from instep.tree.switch.undo import undo

_RECOVERING = register("recover.recovering")
_NAMED_MAX = 20
_SAID_MAX = 3


class RecoveredKind(enum.Enum):
    NOTHING = "nothing"
    UNDONE = "undone"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Recovered:
    """``finished``: the tree holds ``target``; ``switched`` says what the switch met if it was completed only now,
    and ``journal`` which hooks are due. ``undone``: something was staged, and nothing had moved or all of it was taken
    back; the stage stays. ``is_doubtful``: the tree's inodes are not those of the journal, as when a backup came back
    file by file; only a comparison of the whole tree shows what it holds. ``cause``: why it was undone now."""

    kind: RecoveredKind
    target: HeadRef | None = None
    journal: Journal | None = None
    switched: Switched | None = None
    is_doubtful: bool = False
    cause: InstepError | None = None


def recover(place: Place, *, local: Local, get_page: GetPage | None, now_ms: int) -> Recovered:
    """Look at journal and stage and bring the tree to exactly one generation. Can be repeated after an error.

    Errors: ``RefusedError`` of the marker, ``DamagedError`` ``journal_damaged``, ``ResourceError``.
    """
    journal = Journal.load(place)
    if journal is None:
        return Recovered(RecoveredKind.UNDONE if list_stages(place) else RecoveredKind.NOTHING)
    if journal.is_switched:
        is_doubtful = next(other_inodes(place, journal), None) is not None
        return Recovered(RecoveredKind.FINISHED, journal.header.target, journal, is_doubtful=is_doubtful)
    failpoint(_RECOVERING)
    cause: InstepError = ContentionError("it was being undone already", code="recovery_due")
    if not journal.is_undoing:
        try:
            return _finished(place, switch(place, journal, local=local, get_page=get_page, now_ms=now_ms))
        except InstepError as error:
            if not _can_be_undone(place, journal):
                raise
            cause = error
    _take_back(place, journal, cause, local=local, get_page=get_page, now_ms=now_ms)
    return Recovered(RecoveredKind.UNDONE, cause=cause)


def _finished(place: Place, switched: Switched) -> Recovered:
    journal = switched.journal
    others = list(islice(other_inodes(place, journal), REPORTED_MAX))
    switched.missed = Paths(dict.fromkeys((*switched.missed, *others)))
    return Recovered(RecoveredKind.FINISHED, journal.header.target, journal, switched, bool(others))


def _can_be_undone(place: Place, journal: Journal) -> bool:
    """An exchange has a way back of its own; a switch whose stage was archived already is finished."""
    with opened(place) as there:
        return not journal.is_exchange and os.path.lexists(
            os.fsencode(there.stage) + b"/" + journal.stage_name
        )


def _take_back(
    place: Place, journal: Journal, cause: InstepError, *, local: Local, get_page: GetPage | None, now_ms: int
) -> None:
    """Undo what was switched before ``cause``; ``ResourceError`` ``half_switched`` where that cannot be done."""
    try:
        undo(place, journal, local=local, get_page=get_page, now_ms=now_ms)
    except (OSError, InstepError) as error:
        stuck = error if isinstance(error, InstepError) else resource_error(error, place, "brought back")
        raise _half_switched(place, journal, cause, stuck) from error


@on_opened
def _half_switched(place: Place, journal: Journal, cause: InstepError, stuck: InstepError) -> ResourceError:
    """Neither finished (``cause``) nor undone (``stuck``)."""
    new, old = _sides(place, journal)
    target, previous = f"generation {journal.header.target.number}", journal.header.previous
    before = f"generation {previous.number}" if previous is not None else "the files from before"
    why = cause.reason if cause.reason == stuck.reason else f"{cause.reason}; and to undo it: {stuck.reason}"
    return ResourceError(
        f"the switch to {target} could be neither finished nor undone: {why}. {_said(new)} of {target}, "
        f"{_said(old)} of {before}",
        hint=stuck.hint or cause.hint,
        code="half_switched",
        new=new[:_NAMED_MAX],
        new_count=len(new),
        old=old[:_NAMED_MAX],
        old_count=len(old),
        cause=cause.error_code,
        path=stuck.facts.get("path") or cause.facts.get("path"),
    )


def _said(paths: list[str]) -> str:
    more = ", ..." if len(paths) > _SAID_MAX else ""
    named = f" ({', '.join(paths[:_SAID_MAX])}{more})" if paths else ""
    return f"{len(paths)} {'path is' if len(paths) == 1 else 'paths are'}{named}"


def _sides(place: Place, journal: Journal) -> tuple[list[str], list[str]]:
    """Paths whose step is done, and those whose step is not."""
    new: list[str] = []
    old: list[str] = []
    stage = os.fsencode(place.stage) + b"/" + journal.stage_name
    with open_marked(place.root, place.fileset) as root, Root(stage) as staged:
        for step in journal.steps():
            if step.op in (Op.NEW, Op.CHANGE):
                found = staged.stat_or_none(b"o/" + step.key)
                is_done = found is None or found.st_ino != step.ino
            elif step.op is Op.MOVE:
                there = root.stat_or_none(step.path)
                is_done = there is not None and there.st_ino == step.ino
            elif step.op is Op.REMOVE:
                is_done = staged.stat_or_none(b"o/" + step.key) is not None
            else:
                continue
            (new if is_done else old).append(shown(step.path))
    return new, old


def other_inodes(place: Place, journal: Journal) -> Iterator[bytes]:
    """Paths of the journal's steps at which another inode lies than was staged for them. A program may have saved one
    anew; where they are many, the whole tree is another one, which came back from a backup. None of a compared switch,
    which leaves such paths as they are."""
    if journal.is_exchange or journal.is_compared:
        return
    with Root(place.root) as root:
        for step in journal.steps():
            if step.op in (Op.NEW, Op.CHANGE):
                found = root.stat_or_none(step.path)
                if found is None or found.st_ino != step.ino:
                    yield step.path


def put_back(
    place: Place,
    target: HeadRef,
    live: HeadRef,
    get_page: GetPage,
    definition: Definition,
    *,
    local: Local,
    now_ns: int,
    live_row: LiveRow | None = None,
    sources: Sequence[Source] = (),
) -> Switched:
    """Return the tree, which holds ``live``, to ``target``, from the archive and ``sources``; an apply like any other.

    ``UnavailableError`` ``contents_missing`` names what is nowhere on this node; then nothing moved, and the
    stage is kept for an apply that can fetch.
    """
    archive = Archive(place).source()
    stage = Stage(
        place,
        target,
        live.root,
        get_page,
        definition,
        previous=live,
        local=local,
        live_row=live_row,
        sources=(archive, *sources),
    )
    try:
        wants = stage.wants()
        while wants:
            for want in wants:
                link = archive.readlink(want.entry) if want.which == 0 and not want.is_large else None
                if link is None:
                    path = shown(want.entry.path)
                    raise UnavailableError(
                        f"the contents of {path} are not on this node any more",
                        hint="they are fetched as soon as a partner that has them can be reached",
                        code="contents_missing",
                        path=path,
                    )
                stage.lay(want, link)
            wants = stage.wants()
        journal = stage.seal(now_ns)
    finally:
        stage.close()
    return switch(place, journal, local=local, get_page=get_page, now_ms=now_ns // 1_000_000)
