"""The floor of the ``OfferMachine`` that follows the tree: looks, generations that arrive, edits that are set aside."""

from __future__ import annotations

from collections.abc import Iterable

from instep.core import vocabulary as w
from instep.core.changes import offer_vocabulary as o
from instep.core.changes.offer_book import OWNED_MAX, OfferBook
from instep.core.changes.offer_vocabulary import Edit, EditState, OwnedPath
from instep.model.change import OutcomeKind, PathOutcome, is_alike, is_same_file
from instep.model.ids import HeadRef
from instep.model.paths import sort_key


class OfferEdits(OfferBook):
    """No apply lays anything at an owned path: a path is let go only when its file is the generation's, or is brought
    up to it, or else an old file would look like an edit."""

    _looks: dict[int, tuple[bytes, ...]]
    """Looks under way, by the number of their request."""

    def _forget_looks(self) -> None:
        self._unseen, self._looks = set(), {}

    def _looked(self, event: o.TreeLooked) -> None:
        self._entries = event.entries or self._entries
        is_old = self._is_old(event.head)
        for edit in event.edits:
            if is_old and edit.path in self._owned:
                self._unseen.add(edit.path)
            else:
                self._edited(edit)
        differing = {edit.path for edit in event.edits}
        for path in tuple(self._owned) if event.is_whole else event.clean:
            if path in differing or path not in self._owned:
                continue
            if is_old:
                self._unseen.add(path)
            else:
                self._is_clean(path)

    def _is_old(self, head: HeadRef | None) -> bool:
        """Whether a look compared with another generation than the one that the tree holds by now."""
        return head is not None and self._reached is not None and head != self._reached

    def _look(self) -> None:
        if self._unseen and not self._looks and self._backoff.is_ready("look", self._now):
            self._order_look(tuple(sorted(self._unseen, key=sort_key)))
            self._unseen.clear()

    def _order_look(self, paths: tuple[bytes, ...]) -> int:
        req = self._next_req()
        self._looks[req] = paths
        self._out.append(o.LookAtPaths(req, paths))
        return req

    def _paths_looked(self, event: o.PathsLooked) -> None:
        paths = self._looks.pop(event.req, None)
        if paths is None:
            return
        if self._is_old(event.head):
            self._unseen.update(path for path in paths if path in self._owned)
            self._pause("look")
            return
        self._backoff.clear("look")
        edits = {edit.path: edit for edit in event.edits}
        for path in paths:
            if path in edits:
                self._edited(edits[path])
            else:
                self._is_clean(path)

    def _forget_looks_at(self, paths: Iterable[bytes]) -> None:
        """These paths were let go: a look at them that is under way may have seen the file before."""
        gone = frozenset(paths)
        if gone:
            self._looks = {
                req: tuple(path for path in looked if path not in gone) for req, looked in self._looks.items()
            }

    def _look_failed(self, event: o.LookFailed) -> None:
        paths = self._looks.pop(event.req, None)
        if paths is not None:
            self._unseen.update(path for path in paths if path in self._owned)
            self._pause("look")

    def _pause(self, key: str) -> None:
        """Retry after a back-off."""
        config = self._config
        at_ms = self._backoff.fail(key, self._now, config.retry_min_ms, config.retry_max_ms)
        self._out.append(w.SetTimer(key, at_ms))

    def _edited(self, edit: Edit) -> None:
        owned = self._owned.get(edit.path)
        if owned is None:
            if not self._config.offers or len(self._owned) >= OWNED_MAX:
                return
            self._own(edit.path, EditState.WAITING, edit.base, edit.found)
            is_unknown = edit.found is None and not edit.is_seen  # It never was here, or that is not known.
            if is_unknown or is_alike(
                edit.base, edit.found
            ):  # Only its other names differ: no home is asked for them.
                self._undone(self._owned[edit.path])
            return
        match owned.state:
            case EditState.ASKED if self._is_as_asked(edit):
                self._turn(owned, EditState.ASKED, base=None, here=None, found=None)
            case EditState.ASKED:
                self._turn(owned, EditState.ASKED, base=edit.base, here=edit.base, found=edit.found)
            case EditState.EDITING | EditState.OFFERED | EditState.LOSING:
                self._turn(owned, owned.state, found=edit.found)
            case EditState.ACCEPTED if is_alike(owned.here, edit.found):
                if self._is_over(owned) and not is_same_file(owned.base, edit.base):
                    self._superseded(owned)
            case EditState.ACCEPTED:
                token = owned.token if owned.is_stale else None
                self._own(edit.path, EditState.WAITING, owned.base, edit.found, here=owned.here, token=token)
            case EditState.BLOCKED if edit.found is None:
                pass
            case EditState.WAITING | EditState.BLOCKED:
                self._turn(owned, EditState.WAITING, found=edit.found)
                if is_alike(owned.here, edit.found):
                    self._undone(self._owned[edit.path])

    def _is_as_asked(self, edit: Edit) -> bool:
        """Overridden above."""
        raise AssertionError(edit)

    def _undone(self, owned: OwnedPath) -> None:
        """The edit was taken back, and the tree's generation went on meanwhile: that one is wanted, not the old one."""
        self._turn(owned, EditState.LOSING, outcome=PathOutcome(owned.path, OutcomeKind.SAME))

    def _is_clean(self, path: bytes) -> None:
        """The path is as the tree's generation has it. While the home is being asked, or its generation is on its
        way, that says nothing: the edit may have been taken back here, and goes on as soon as the answer has
        arrived."""
        owned = self._owned.get(path)
        if owned is None:
            return
        if owned.state is EditState.ASKED:
            self._own(path, EditState.ASKED, None, None)  # Whatever generation was not laid, it is here now.
        elif owned.state is EditState.EDITING:
            self._turn(owned, EditState.EDITING, found=owned.here, is_stale=False)
        elif (owned.state is EditState.ACCEPTED and self._is_over(owned)) or owned.state in (
            EditState.WAITING,
            EditState.BLOCKED,
            EditState.LOSING,
        ):
            del self._owned[path]

    def _is_over(self, owned: OwnedPath) -> bool:
        """Of an accepted path: nothing is on its way to it any more."""
        return owned.is_stale or self._has_arrived(owned)

    def _head_reached(self, event: o.HeadReached) -> None:
        """No apply laid anything at owned paths: one that the new generation has otherwise is brought up when it is let
        go, or else the old file would look like an edit."""
        self._reached = event.head
        for path, entry in event.has:
            owned = self._owned.get(path)
            if owned is None:
                continue
            is_reached = self._has_arrived(owned)
            if owned.state is EditState.ASKED:
                self._turn(owned, EditState.ASKED, is_stale=True)
            elif owned.state is EditState.EDITING:
                is_here = is_same_file(entry, owned.base)
                is_on_its_way = owned.is_on_its_way and not is_reached and not is_here
                is_stale = not is_on_its_way and not is_here
                self._turn(owned, EditState.EDITING, is_on_its_way=is_on_its_way, is_stale=is_stale)
            elif owned.state is EditState.ACCEPTED and owned.is_stale:
                self._unseen.add(path)
            elif owned.state is EditState.ACCEPTED and is_same_file(entry, owned.base):
                del self._owned[path]
            elif owned.state is EditState.ACCEPTED and is_reached:
                self._superseded(owned)

    def _superseded(self, owned: OwnedPath) -> None:
        """The edit was made at the home, and changed again before its generation came here."""
        self._turn(owned, EditState.LOSING, outcome=PathOutcome(owned.path, OutcomeKind.SAME))

    def _set_aside(self, paths: Iterable[bytes]) -> None:
        for path in paths:
            owned = self._owned.get(path)
            if owned is not None and owned.state is EditState.LOSING:
                del self._owned[path]
