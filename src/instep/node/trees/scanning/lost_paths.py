"""The losses of a surveyed tree: against the generation before it, and against those of the last ten minutes."""

from __future__ import annotations

from collections.abc import Iterable

from instep.core.guards.losses import Checkpoint, Lost, is_within, lost_between
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.pages import GetPage
from instep.tree.scan.rules import Rules


def losses_of(
    get: GetPage, root: Digest, base: Digest | None, since: Iterable[Checkpoint], rules: Rules, now_ms: int
) -> tuple[Lost, ...]:
    """The loss against ``base``, then against each checkpoint whose pages are here; empty when nothing was lost."""

    def matches(entry: Entry) -> bool:
        return rules.ignored(entry.path, entry.kind is Kind.DIR)

    is_ignored = matches if rules.has_patterns else None
    if base is None:
        return ()
    alone = lost_between(base, root, get, is_ignored)
    if not alone.removed:
        return ()
    losses = [alone]
    for checkpoint in since:
        if is_within(checkpoint, now_ms) and checkpoint.head.root != base:
            try:
                losses.append(lost_between(checkpoint.head.root, root, get, is_ignored))
            except KeyError:
                continue  # a generation that was let go: more than 2,000 came after it
    return tuple(losses)
