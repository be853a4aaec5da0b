"""After a crash: finish an interrupted switch or leave the old generation as it is; and put a generation back.

Implements section 5 of ``docs/spec/journal.md``. Neither needs a network.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from instep.errors import UnavailableError
from instep.model.definition import Definition
from instep.model.ids import HeadRef
from instep.model.manifest import GetPage
from instep.model.paths import shown
from instep.tree.archive import Archive
from instep.tree.failpoints import failpoint, register
from instep.tree.fidelity import Local
from instep.tree.journal import Journal
from instep.tree.place import Place
from instep.tree.stage import LiveRow, Source, Stage
from instep.tree.stages import list_stages
from instep.tree.switch import Switched, switch

__all__ = ["Recovered", "RecoveredKind", "put_back", "recover"]

_RECOVERING = register("recover.recovering")


class RecoveredKind(enum.Enum):
    NOTHING = "nothing"
    UNDONE = "undone"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Recovered:
    """``finished``: the tree holds ``target``; ``switched`` says what the switch met if it was completed only now,
    and ``journal`` which hooks are due. ``undone``: something was staged, nothing had moved; the stage stays."""

    kind: RecoveredKind
    target: HeadRef | None = None
    journal: Journal | None = None
    switched: Switched | None = None


def recover(place: Place, *, local: Local, get_page: GetPage | None, now_ms: int) -> Recovered:
    """Look at journal and stage and bring the tree to exactly one generation. Can be repeated after an error.

    Errors: ``RefusedError`` of the marker, ``DamagedError`` ``journal_damaged``, ``ResourceError``.
    """
    journal = Journal.load(place)
    if journal is None:
        return Recovered(RecoveredKind.UNDONE if list_stages(place) else RecoveredKind.NOTHING)
    if journal.is_switched:
        return Recovered(RecoveredKind.FINISHED, journal.header.target, journal)
    failpoint(_RECOVERING)
    switched = switch(place, journal, local=local, get_page=get_page, now_ms=now_ms)
    return Recovered(RecoveredKind.FINISHED, journal.header.target, switched.journal, switched)


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
    stage = Stage.open(
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
