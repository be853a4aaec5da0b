"""One move of an installation's files: looked at first, then copied, verified, pointed at, and cleaned up.

Each step can be cut off at any point. The next attempt finds what was laid by its digest, and goes on. Until the
application's own setting names the destination, nothing in the source was changed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from instep.core.layout.layout import ItemVerb, LayoutForm, PropertySetting
from instep.core.layout.properties import KeyTwiceError, property_value, with_property
from instep.errors import DamagedError, RefusedError
from instep.model.counts import sized
from instep.model.ids import Digest
from instep.model.manifest.entry import Kind
from instep.model.paths import is_below, shown
from instep.tree.layout.copies import Copies, changed, digest_on_disk, kept_in, taken
from instep.tree.layout.destination import check_apart, check_room, check_targets
from instep.tree.layout.move_journal import (
    FOLDER,
    JournalState,
    MoveBegan,
    MoveJournal,
    MovePointed,
    MoveStopped,
    unfinished_move,
)
from instep.tree.layout.originals import (
    Original,
    Survey,
    changed_since,
    delete_originals,
    other_bytes,
    survey,
)
from instep.tree.layout.trouble import named_errors
from instep.tree.objects.compared_write import ChangedMeanwhileError, ComparedWrite, remove_pending
from instep.tree.objects.digest import digest_beneath, digest_bytes
from instep.tree.objects.laying import remove_object
from instep.tree.root.beneath import Root, syncfs
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.records import write_all

PROPERTIES_BYTES_MAX = 1 << 20
_STOPPED = register("layout.stopped")
_VERIFIED = register("layout.verified")
_POINTED = register("layout.pointed")


@dataclass(frozen=True, slots=True)
class MovePlan:
    """What a move would do now, with everything checked that can be checked before it begins."""

    survey: Survey
    is_pointed: bool
    """The application's setting names the destination already: only originals are left to do."""
    present_value: str | None
    """Of the setting, as it is now."""
    to_lay: tuple[Original, ...]
    same: dict[bytes, Digest] = field(default_factory=dict)
    """Originals that the destination has already, with their digests."""
    differs: tuple[bytes, ...] = ()


class LayoutMove:
    """Moves one form of a layout from ``source`` to ``dest``."""

    def __init__(self, layout: str, form: LayoutForm, source: Path, dest: Path) -> None:
        self.layout, self.form, self.source, self.dest = layout, form, source, dest
        self._tree = Root(source)
        self._state: JournalState | None = unfinished_move(dest, layout, os.fsencode(source))
        self._journal: MoveJournal | None = None
        self._digests: dict[bytes, Digest] = {}
        self.not_kept: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._journal is not None:
            self._journal.__exit__()
            self._journal.dest.close()
        self._tree.close()

    @property
    def journal(self) -> MoveJournal:
        assert self._journal is not None, "begin comes first"
        return self._journal

    def is_there(self, path: bytes) -> bool:
        return self._tree.stat_or_none(path) is not None

    # Looking ----------------------------------------------------------------------------------------------------

    def plan(self) -> MovePlan:
        """Look at both sides. Raises the named error of whatever would stop the move later; changes nothing."""
        found = survey(self._tree, self.form)
        check_apart(self._tree, self.dest, found)
        value = self._present_value()
        if self._is_pointed(found, value):
            return MovePlan(found, True, value, (), self._equal(found))
        lacking = [item for item in found.missing if not item.is_optional]
        if lacking:
            names = ", ".join(shown(item.source) for item in lacking)
            raise RefusedError(
                f"{self.source} lacks {names}, which the layout {self.layout} needs",
                hint=f"instep layout show {self.layout}",
                code="item_missing",
                items=[shown(item.source) for item in lacking],
            )
        to_lay, same, differs = self._against_destination(found)
        check_targets(found)
        if differs:
            with Root(self.dest) as dest:
                raise taken(differs, dest)
        check_room(self.dest, to_lay)
        return MovePlan(found, False, value, tuple(to_lay), same)

    def _is_pointed(self, found: Survey, value: str | None) -> bool:
        """Whether only originals are left to do. An unfinished journal says it; without one the setting, when each item
        that is here is there, too."""
        setting = self.form.setting
        is_set = setting is None or value == setting.value_for(str(self.dest))
        if self._state is not None:
            return self._state.is_pointed and is_set
        if setting is None or not is_set or not self.dest.is_dir():
            return False
        with Root(self.dest) as dest:
            return all(dest.stat_or_none(item.to) is not None for item in found.there)

    def _present_value(self) -> str | None:
        setting = self.form.setting
        if setting is None:
            return None
        with named_errors(self.source, setting.file, "read"):
            raw = self._properties(setting)
        try:
            return property_value(raw, setting.key)
        except KeyTwiceError:
            raise RefusedError(
                f"{shown(setting.file)} sets {setting.key} twice",
                hint=f"remove one of both lines from {self.source / os.fsdecode(setting.file)}",
                code="key_twice",
                file=shown(setting.file),
                key=setting.key,
            ) from None

    def _properties(self, setting: PropertySetting) -> bytes:
        try:
            with closing_fd(self._tree.open(setting.file, READ)) as fd:
                is_small = os.fstat(fd).st_size <= PROPERTIES_BYTES_MAX
                if is_small and stat.S_ISREG(os.fstat(fd).st_mode):
                    return os.pread(fd, PROPERTIES_BYTES_MAX + 1, 0)
        except FileNotFoundError:
            why = "is not there"
        else:
            why = f"is no plain file of at most {sized(PROPERTIES_BYTES_MAX)}"
        raise RefusedError(
            f"{self.source / os.fsdecode(setting.file)} {why}: the key {setting.key} is set in it at the end",
            hint="name the folder of the installation as SOURCE",
            code="no_properties",
            file=shown(setting.file),
        )

    def _against_destination(
        self, found: Survey
    ) -> tuple[list[Original], dict[bytes, Digest], tuple[bytes, ...]]:
        """The originals that are to be laid, those that are there already, and paths that hold something else."""
        try:
            dest = Root(self.dest)
        except FileNotFoundError:
            return found.sorted(), {}, ()
        to_lay: list[Original] = []
        same: dict[bytes, Digest] = {}
        differs: list[bytes] = []
        with dest:
            for each in found.sorted():
                with named_errors(self.dest, each.target, "read"):
                    there = dest.stat_or_none(each.target)
                    if there is None:
                        to_lay.append(each)
                    elif each.kind is Kind.DIR:
                        to_lay.append(each)
                        if not stat.S_ISDIR(there.st_mode):
                            differs.append(each.target)
                    elif (digest := self._is_equal(each, self.dest)) is not None:
                        same[each.path] = digest
                    elif self._is_ours(each, self.dest):
                        to_lay.append(each)
                    else:
                        differs.append(each.target)
        return to_lay, same, tuple(differs)

    def _is_equal(self, each: Original, dest: Path) -> Digest | None:
        with Root(dest) as tree:
            found = tree.stat_or_none(each.target)
        if found is None or stat.S_IFMT(found.st_mode) != stat.S_IFMT(each.stat.st_mode):
            return None
        mine = digest_beneath(self.source, each.path)
        return mine if mine is not None and digest_beneath(dest, each.target) == mine else None

    def _is_ours(self, each: Original, dest: Path) -> bool:
        laid = self._state.laid.get(each.target) if self._state is not None else None
        return bool(laid) and digest_beneath(dest, each.target) == laid

    def _equal(self, found: Survey) -> dict[bytes, Digest]:
        """Of a move that is done but for its originals: those of the bytes that were copied, or that are there now."""
        laid = self._state.laid if self._state is not None else {}
        equal: dict[bytes, Digest] = {}
        for each in found.originals.values():
            if each.kind is Kind.DIR:
                continue
            mine = digest_beneath(self.source, each.path)
            if mine is not None and mine in (laid.get(each.target), digest_beneath(self.dest, each.target)):
                equal[each.path] = mine
        return equal

    # Acting -----------------------------------------------------------------------------------------------------

    def begin(self, plan: MovePlan) -> None:
        """Make the destination where it is not there, and open the journal."""
        with named_errors(self.dest, b"", "made"):
            try:
                os.mkdir(self.dest, 0o700)
                is_made = True
            except FileExistsError:
                is_made = False
            dest = Root(self.dest)
        try:
            with named_errors(self.dest, FOLDER, "written"):
                self._journal = MoveJournal(
                    dest, MoveBegan(self.layout, self.form.name, os.fsencode(self.source), is_made)
                )
        except BaseException:
            dest.close()
            raise
        self._state = self._journal.state
        if plan.is_pointed:
            self._journal.add(MovePointed())

    def note_stop(self) -> None:
        """Record that the application is stopped by this move."""
        self.journal.add(MoveStopped())
        failpoint(_STOPPED)

    def copy(self, plan: MovePlan) -> None:
        """Lay what is missing, and verify every copy by bytes from the disk, then look at all originals again."""
        local, self.not_kept = kept_in(self.dest / os.fsdecode(FOLDER))
        copies = Copies(self._tree, self.journal, local)
        for each in plan.to_lay:
            if each.kind is not Kind.DIR and self.journal.dest.stat_or_none(each.target) is not None:
                parent, name = self.journal.dest.open_parent(each.target)
                remove_object(parent, name)  # ours, of an earlier attempt; its original has changed since
        for path, digest in plan.same.items():
            copies.have(plan.survey.originals[path], digest)
        copies.lay(plan.to_lay)
        self._digests = copies.digests
        with closing_fd(self.journal.dest.open_dir(b"")) as fd:
            syncfs(fd)
        self._verify(plan.survey)
        since = changed_since(self._tree, self.form, plan.survey, self._digests)
        if since:
            raise changed(since)
        failpoint(_VERIFIED)

    def _verify(self, found: Survey) -> None:
        for each in found.sorted():
            with named_errors(self.dest, each.target, "read"):
                if each.kind is Kind.DIR:
                    there = self.journal.dest.stat_or_none(each.target)
                    is_right = there is not None and stat.S_ISDIR(there.st_mode)
                else:
                    is_right = (
                        digest_on_disk(self.journal.dest, each.target, each.kind) == self._digests[each.path]
                    )
            if not is_right:
                raise DamagedError(
                    f"{self.dest / os.fsdecode(each.target)} does not hold the bytes that were copied there",
                    hint="look at the kernel log for the disk, then repeat the command; nothing was deleted",
                    code="copy_differs",
                    path=shown(each.target),
                )

    def point(self) -> None:
        """Set the application's own key to the destination; every other byte of its file stays."""
        setting = self.form.setting
        if setting is None:
            self.journal.add(MovePointed())
            return
        value = setting.value_for(str(self.dest))
        with named_errors(self.source, setting.file, "written"):
            before = self._properties(setting)
            after = before
            if property_value(before, setting.key) != value:
                after = with_property(before, setting.key, value)
            self.journal.add(MovePointed((digest_bytes(before), digest_bytes(after))))
            failpoint(_POINTED)
            if after == before:
                return
            try:
                with ComparedWrite(self._tree, setting.file) as write, _held(after) as fd:
                    write.put(fd, digest_bytes(before))
            except ChangedMeanwhileError:
                raise changed([setting.file]) from None
        failpoint(_POINTED)

    def delete_originals(self, plan: MovePlan) -> list[bytes]:
        """Delete what was moved. At the end of a move all of it, or nothing; later what is equal. The paths that stay
        are returned, without those that stay by the layout: items that are only copied, and the folders around them.
        """
        if not plan.is_pointed:
            others = other_bytes(self._tree, plan.survey, self._digests)
            if others:
                raise changed(others)
            digests = self._digests
        else:
            digests = plan.same
        stays = [
            each.path
            for each in plan.survey.originals.values()
            if each.item.verb is ItemVerb.MOVE and each.kind is not Kind.DIR and each.path not in digests
        ]
        with named_errors(self.source, b"", "deleted"):
            deletable = Survey(
                {
                    path: each
                    for path, each in plan.survey.originals.items()
                    if each.kind is Kind.DIR or path in digests
                }
            )
            left = {*stays, *delete_originals(self._tree, deletable, digests)}
        copied = [path for path, each in plan.survey.originals.items() if each.item.verb is ItemVerb.COPY]
        return sorted(each for each in left if not any(is_below(path, each) for path in copied))

    def end(self) -> None:
        """Remove the journal, and files that a killed write of the setting left."""
        setting = self.form.setting
        if setting is not None and self.journal.state.set_digests:
            with named_errors(self.source, setting.file, "written"):
                remove_pending(self._tree, setting.file, self.journal.state.set_digests)
        with named_errors(self.dest, FOLDER, "removed"):
            self.journal.end()


@contextlib.contextmanager
def _held(data: bytes) -> Iterator[int]:
    """A descriptor of a file in memory that holds ``data``."""
    with closing_fd(os.memfd_create("instep-properties", os.MFD_CLOEXEC)) as fd:
        write_all(fd, data)
        yield fd
