"""Make a staged generation the tree. Implements sections 3 to 5 of ``docs/spec/journal.md``.

All access to the tree is beneath its root: a symlink or mount that a program put where a directory was ends in
an error, never outside. A switch that meets an error leaves its journal to ``tree/switch/recover.py``.
"""

from __future__ import annotations

import contextlib
import os

from instep.errors import ContentionError, RefusedError
from instep.model.manifest.manifest import GetPage
from instep.tree.archive.archive import close_batch
from instep.tree.archive.index import stream_index
from instep.tree.archive.moved import drop_moved
from instep.tree.journal.journal import Journal, Phase, Why
from instep.tree.journal.renames import inode_at
from instep.tree.objects.fidelity import Local
from instep.tree.objects.laying import remove_object, sync_directory
from instep.tree.root.beneath import Root
from instep.tree.root.control_folder import on_opened, open_control
from instep.tree.root.descriptors import closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.marker import open_marked
from instep.tree.root.place import Place
from instep.tree.root.records import named_damage
from instep.tree.stage.next_tree import NEXT, PREPARED, sync_tree
from instep.tree.stage.probes import refuse_stuck_paths
from instep.tree.stage.shortage import shortage_named
from instep.tree.switch.compared_steps import ComparedSteps
from instep.tree.switch.exchange import check_swap, swap, withdraw
from instep.tree.switch.step_work import Switched
from instep.tree.switch.steps import Steps

_BEGINNING = register("switch.beginning")
_BEGUN = register("switch.begun")
_ARCHIVED = register("switch.archived")
_SWITCHED = register("switch.switched")
_FINISHING = register("switch.finishing")
_DROPPING = register("switch.dropping")
_PREPARING = register("exchange.preparing")
_PREPARED = register("exchange.prepared")


@on_opened
def switch(
    place: Place, journal: Journal, *, local: Local, get_page: GetPage | None, now_ms: int
) -> Switched:
    """Do all that the sealed ``journal`` says; returns when it is durable and marked ``switched``.

    With ``get_page``, displaced directories are compared with the base and drift in them is named.
    Paths that cannot be changed are refused before the first step. An error behind that leaves the journal for
    ``recover``. Errors: ``RefusedError`` of the marker, ``ResourceError``.
    """
    open_marked(place.root, place.fileset).close()
    with shortage_named(place, "switched"):
        if journal.name != b"journal":
            if journal.is_exchange:
                prepare(place, journal, local=local)
                check_swap(place, journal)
            else:
                with open_marked(place.root, place.fileset) as root:
                    refuse_stuck_paths(place, journal, root)
            journal = _begin(place, journal)
        return _run(place, journal, local, get_page, now_ms)


@on_opened
def prepare(place: Place, journal: Journal, *, local: Local) -> None:
    """Do the steps of a sealed exchange in the next tree, durably: only the swap is left. A second call is harmless.

    Of no effect on a journal of a switch in place. ``ResourceError`` as ``switch``.
    """
    stage = os.fsencode(place.stage) + b"/" + journal.stage_name
    if not journal.is_exchange or os.path.lexists(stage + b"/" + PREPARED):
        return
    failpoint(_PREPARING)
    with shortage_named(place, "switched"):
        with Root(stage + b"/" + NEXT) as tree, Root(stage) as staged:
            with contextlib.closing(Steps(place, journal, tree, staged, local, Switched(journal))) as steps:
                steps.run()
            sync_tree(staged)  # displaced objects, too: their links are all that the archive has
            os.close(staged.open(PREPARED, os.O_WRONLY | os.O_CREAT, 0o600))
        sync_directory(stage)
    failpoint(_PREPARED)


def _begin(place: Place, journal: Journal) -> Journal:
    """The point of no return: the sealed journal becomes the fileset's."""
    current = Journal.load(place)
    assert current is None or current.is_switched, "a switch began while another was not finished"
    failpoint(_BEGINNING)
    with closing_fd(open_control(place)) as control:
        os.rename(journal.name, b"journal", src_dir_fd=control, dst_dir_fd=control)
        os.fsync(control)
    sync_directory(place.stage / os.fsdecode(journal.stage_name))  # a rename is durable in both directories
    failpoint(_BEGUN)
    if current is not None:
        _strip_batch(place, current)
    return Journal(place, b"journal", journal.header, ())


def _run(place: Place, journal: Journal, local: Local, get_page: GetPage | None, now_ms: int) -> Switched:
    outcome = Switched(journal)
    stage = os.fsencode(place.stage) + b"/" + journal.stage_name
    archive = os.fsencode(place.archive) + b"/" + journal.header.batch.encode()
    if os.path.lexists(stage):
        if journal.is_exchange:
            _swap(place, journal, stage)
        else:
            with open_marked(place.root, place.fileset) as root, Root(stage) as staged:
                if journal.is_compared:
                    journal = _run_compared(place, journal, root, staged, local, outcome, get_page)
                else:
                    with contextlib.closing(Steps(place, journal, root, staged, local, outcome)) as steps:
                        steps.run()
        close_batch(
            place, journal, stage, local=local, get_page=get_page, at_ms=now_ms, drifted=outcome.drifted
        )
        failpoint(_ARCHIVED)
    elif not os.path.lexists(archive):
        raise RefusedError(
            f"the staging of {place.fileset} was removed in the middle of a switch",
            hint="scan the tree against its generation; missing contents are fetched again",
            code="stage_lost",
            stage=os.fsdecode(place.by_name(stage)),
        )
    outcome.journal = journal.mark(Phase.SWITCHED, now_ms)
    failpoint(_SWITCHED)
    return outcome


def _run_compared(
    place: Place,
    journal: Journal,
    root: Root,
    staged: Root,
    local: Local,
    outcome: Switched,
    get_page: GetPage | None,
) -> Journal:
    """The journal names the paths that were left as they are before the stage, which shows it, becomes a batch."""
    with contextlib.closing(ComparedSteps(place, journal, root, staged, local, outcome)) as steps:
        steps.get_page = get_page
        steps.run()
        return journal.keep_outdated(steps.outdated) if steps.outdated or journal.outdated else journal


def _swap(place: Place, journal: Journal, stage: bytes) -> None:
    try:
        swap(place, journal, stage)
    except (OSError, ContentionError):
        if os.stat(place.root, follow_symlinks=False).st_ino == journal.header.root_ino:
            withdraw(place, journal, stage)
        raise


@on_opened
def finish(place: Place, journal: Journal) -> None:
    """Close a switched journal whose result the node has recorded: rows and journal go, in this order."""
    assert journal.is_switched
    failpoint(_FINISHING)
    _strip_batch(place, journal)
    journal.remove()


def _strip_batch(place: Place, journal: Journal) -> None:
    batch = journal.header.batch.encode()
    path = os.fsencode(place.archive) + b"/" + batch
    with contextlib.suppress(FileNotFoundError), Root(path) as held:
        _drop_refused(held, journal)
        moved = [item for item in stream_index(held.fd, named_damage(path)) if item.why is Why.MOVED]
        if moved:
            with open_marked(place.root, place.fileset) as live:
                drop_moved(live, held, moved, journal)
    for name in (b"rows", b"steps", b"dirs", b"links", b"base", PREPARED):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path + b"/" + name)
    strip_batch(place, batch)


def _drop_refused(batch: Root, journal: Journal) -> None:
    """Staged objects that a compared switch did not lay: nothing of the tree."""
    for step in journal.steps() if journal.outdated else ():
        if step.key in journal.outdated and inode_at(batch.fd, b"o/" + step.key) == step.ino:
            failpoint(_DROPPING)
            remove_object(*batch.open_parent(b"o/" + step.key))


@on_opened
def strip_batch(place: Place, batch: bytes) -> None:
    """Remove a batch in which nothing was archived, unless an old tree lingers in it."""
    path = os.fsencode(place.archive) + b"/" + batch
    with contextlib.suppress(FileNotFoundError):  # pruned meanwhile
        if (
            not os.listdir(path + b"/o")
            and not os.path.lexists(path + b"/" + NEXT)
            and not _names_moved(path)
        ):
            _remove_empty_batch(path)


def _names_moved(batch: bytes) -> bool:
    """True when the index names renamed files: it says which contents they had."""
    with Root(batch) as held:
        return any(item.path for item in stream_index(held.fd, named_damage(batch)))


def _remove_empty_batch(batch: bytes) -> None:
    with closing_fd(os.open(os.path.dirname(batch), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        remove_object(fd, os.path.basename(batch))
