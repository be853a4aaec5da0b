"""The answer of a home to the changes of a run: believed as far as a generation of that home shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from instep.core.sync.plan import same
from instep.errors import PeerError
from instep.model.change import ChangeAnswer, ChangeSet, OutcomeKind, PathChange, PathOutcome, is_same_file
from instep.model.ids import Digest, NodeName
from instep.model.manifest.diff import diff
from instep.model.manifest.entry import Entry
from instep.model.manifest.pages import GetPage


def check_answer(change_set: ChangeSet, answer: ChangeAnswer, home: NodeName) -> None:
    """Refuse an answer to another set, or one that leaves paths out (``PeerError``)."""
    paths = [change.path for change in change_set.changes]
    if answer.id != change_set.id or [outcome.path for outcome in answer.outcomes] != paths:
        raise PeerError(f"{home} answered to other changes than those it was sent", code="bad_answer")


def confirmed(
    change_set: ChangeSet, answer: ChangeAnswer, entry_of: Callable[[bytes], Entry | None]
) -> ChangeAnswer:
    """The answer as its head shows it. ``entry_of`` reads the manifest of that head. A path that the home says it made,
    and that is another there, is outdated: it was changed once more before the publish, or the home is wrong."""
    outcomes = zip(change_set.changes, answer.outcomes, strict=True)
    return msgspec.structs.replace(
        answer, outcomes=tuple(_confirmed(change, outcome, entry_of) for change, outcome in outcomes)
    )


def _confirmed(
    change: PathChange, outcome: PathOutcome, entry_of: Callable[[bytes], Entry | None]
) -> PathOutcome:
    if not outcome.is_made:
        return outcome
    found = entry_of(change.path)
    if is_same_file(found, change.new):
        return outcome
    return PathOutcome(change.path, OutcomeKind.OUTDATED, found)


def has_others(before: Digest, after: Digest, wanted: Mapping[bytes, Entry | None], get: GetPage) -> bool:
    """Whether two trees of a side differ by more than the wanted changes. Pages that both have are not read."""
    for change in diff(before, after, get):
        if same(change.old, change.new):
            continue
        if change.path not in wanted or not same(change.new, wanted[change.path]):
            return True
    return False
