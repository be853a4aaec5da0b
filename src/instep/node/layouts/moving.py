"""A move of an installation: its application stopped, its files moved, its setting changed, and started again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instep.core.layout.layout import Layout, LayoutForm
from instep.errors import RefusedError, UsageError
from instep.model.manifest.entry import Kind
from instep.model.paths import shown
from instep.node.layouts.application import MovedApplication, opened
from instep.tree.layout.layout_move import LayoutMove, MovePlan
from instep.tree.layout.move_journal import unfinished_move

SHOWN_PATHS_MAX = 1000


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """What an operator asked for. Both paths are absolute."""

    layout: Layout
    source: Path
    dest: Path
    deletes_originals: bool = False


def detect(layout: Layout, source: Path) -> LayoutForm | None:
    """The form of the layout that lies in ``source``."""
    with opened(source) as tree:
        return layout.form_of(lambda path: tree.stat_or_none(path) is not None)


class Moving:
    """One run of ``layout move``."""

    def __init__(self, request: MoveRequest, say: Callable[[str], None]) -> None:
        self._request = request
        self._layout = request.layout
        self._application = MovedApplication(request.layout.application, request.source, say)

    def run(self, *, is_dry: bool = False) -> dict[str, Any]:
        """Move, or only look. The result as ``--json`` shows it."""
        request = self._request
        if request.dest.is_symlink() or (os.path.lexists(request.dest) and not request.dest.is_dir()):
            raise UsageError(
                f"{request.dest} is not a directory", hint="name the folder itself", code="bad_destination"
            )
        if not request.dest.parent.is_dir():
            raise UsageError(
                f"{request.dest.parent} is not there",
                hint=f"mkdir -p {request.dest.parent}",
                code="bad_destination",
            )
        form = self._form()
        with LayoutMove(self._layout.name, form, request.source, request.dest) as move:
            plan = move.plan()
            self._check_links(plan)
            if is_dry:
                return self._document(move, plan, stays=[], is_dry=True)
            if not plan.is_pointed:
                self._application.check_stoppable()
            return self._carried_out(move, plan)

    def _form(self) -> LayoutForm:
        request = self._request
        begun = unfinished_move(request.dest, self._layout.name, os.fsencode(request.source))
        name = None if begun is None else begun.began.form
        form = next((each for each in self._layout.forms if each.name == name), None)
        form = form or detect(self._layout, request.source) or self._pointed_form()
        if form is None:
            looked = "; ".join(f"{each.name}: {_looked_for(each)}" for each in self._layout.forms)
            raise RefusedError(
                f"{request.source} has no form of the layout {self._layout.name}: {looked}",
                hint=f"instep layout show {self._layout.name}",
                code="no_form",
                source=str(request.source),
            )
        return form

    def _pointed_form(self) -> LayoutForm | None:
        """The form of a move whose originals were deleted: only the setting shows it."""
        for form in self._layout.forms:
            if form.setting is None:
                continue
            with LayoutMove(self._layout.name, form, self._request.source, self._request.dest) as move:
                if move.is_there(form.setting.file) and move.plan().is_pointed:
                    return form
        return None

    def _check_links(self, plan: MovePlan) -> None:
        if not self._request.deletes_originals or not plan.survey.links:
            return
        names = [shown(path) for path in plan.survey.links]
        raise RefusedError(
            f"{len(names)} symbolic links lead to another place of {self._request.source}, such as {names[0]}: "
            "they would lead to nothing after their targets are deleted",
            hint="let them lead to the new place, or move without --delete-originals",
            code="links_into_source",
            paths=names[:SHOWN_PATHS_MAX],
        )

    def _carried_out(self, move: LayoutMove, plan: MovePlan) -> dict[str, Any]:
        move.begin(plan)
        if not plan.is_pointed:
            self._application.stop(move.note_stop)
            is_pointed = False
            try:
                plan = move.plan()
                move.copy(plan)
                move.point()
                is_pointed = True
            finally:
                if not is_pointed and move.journal.state.was_stopped:
                    self._application.start()
        if move.journal.state.was_stopped:
            self._application.start()
        stays = move.delete_originals(plan) if self._request.deletes_originals else []
        move.end()
        return self._document(move, plan, stays=stays, is_dry=False)

    # The result -------------------------------------------------------------------------------------------------

    def _document(
        self, move: LayoutMove, plan: MovePlan, *, stays: list[bytes], is_dry: bool
    ) -> dict[str, Any]:
        form, found = move.form, plan.survey
        setting = None
        if form.setting is not None:
            setting = {
                "file": shown(form.setting.file), "key": form.setting.key, "was": plan.present_value,
                "value": form.setting.value_for(str(self._request.dest)),
            }  # fmt: skip
        items = []
        for item in form.items:
            mine = [each for each in found.originals.values() if each.item == item]
            items.append({
                "verb": item.verb.value, "from": shown(item.source), "to": shown(item.to) or ".",
                "there": item in found.there, "objects": len(mine),
                "bytes": sum(each.stat.st_size for each in mine if each.kind is Kind.FILE),
            })  # fmt: skip
        return {
            "layout": self._layout.name, "form": form.name, "source": str(self._request.source),
            "dest": str(self._request.dest), "dry_run": is_dry, "already_moved": plan.is_pointed, "items": items,
            "to_copy": sum(each.kind is not Kind.DIR for each in plan.to_lay), "set": setting,
            "deleted": self._request.deletes_originals and not is_dry,
            "left": [shown(path) for path in stays[:SHOWN_PATHS_MAX]],
            "not_moved": [shown(path) for path in found.special[:SHOWN_PATHS_MAX]],
            "links_into_source": [shown(path) for path in found.links[:SHOWN_PATHS_MAX]],
            "not_kept": list(move.not_kept),
        }  # fmt: skip


def _looked_for(form: LayoutForm) -> str:
    has = [shown(path) for path in form.has] or ["one of its items"]
    lacks = "".join(f", and no {shown(path)}" for path in form.lacks)
    return f"{' and '.join(has)}{lacks}"
