"""Edits that were made here in filesets of other writers: listed, and their removals judged."""

from __future__ import annotations

from instep.api.changes import offers as api
from instep.core.changes.offer_vocabulary import EditState, OwnedPath
from instep.model.paths import path_fields
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.targets import running_service_of

SHOWN_MAX = 1_000


class Offers(CommandHandlers):
    async def offers(self, asked: api.OffersCommand, speaker: Speaker) -> api.OfferedEditsDocument:
        service = running_service_of(self._node, asked.fileset)
        edits, trouble = service.offered_edits()
        return api.OfferedEditsDocument(
            fileset=service.fileset.name,
            edits=tuple(_document(each) for each in edits[:SHOWN_MAX]),
            total=len(edits),
            reason=trouble.reason if trouble is not None else None,
            next=(trouble.hint,) if trouble is not None and trouble.hint else (),
        )

    async def judge_removals(self, asked: api.JudgeRemovalsCommand, speaker: Speaker) -> api.JudgedDocument:
        service = running_service_of(self._node, asked.fileset)
        blocked = sum(each.state is EditState.BLOCKED for each in service.offered_edits()[0])
        if blocked:
            service.judge_removals(are_accepted=asked.accept)
        return api.JudgedDocument(fileset=service.fileset.name, changed=bool(blocked), removals=blocked)


def _document(owned: OwnedPath) -> api.OfferedEditDocument:
    change = "removed" if owned.found is None else "added" if owned.base is None else "changed"
    if owned.base == owned.found:
        change = "none"
    outcome = owned.outcome
    return api.OfferedEditDocument(
        state=owned.state.value,
        change=change,
        outcome=outcome.kind.value if outcome is not None else None,
        reason=outcome.reason if outcome is not None else "",
        **path_fields(owned.path),
    )
