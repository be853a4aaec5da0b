"""The losses of a generation, and when they are a disaster (P10): counted in paths and bytes, over a window.

A writer that loses half of its tree in three steps loses it as in one. So a generation that loses something leaves a
**checkpoint**, the generation before it. For ten minutes the losses of later ones are counted from there as well.
Content that comes back within that time is no loss. Content that stands elsewhere in the new tree has moved. ``.git``
and ignored paths count for nothing.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from instep.core.guards.guards import DeletionPolicy, judge_deletions
from instep.core.guards.held import HeldPaths
from instep.core.vocabulary import Trouble
from instep.errors import Retry
from instep.model.counts import counted, sized, which
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.diff import diff
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.pages import GetPage
from instep.model.manifest.walk import iterate, totals
from instep.model.paths import is_below, shown

WINDOW_MS = 600_000
"""For so long a loss is added to the next."""
SPACING_MS = 60_000
"""Checkpoints are at least so far apart, unless something was added in between."""
CHECKPOINTS_MAX = 12
BYTES_FREE = 1 << 20
"""So many bytes of deleted files pass whatever share of the tree they are."""
TOP_MIN = 20
"""A top directory of at least so many paths that empties is a mass deletion by itself."""
MOVES_COUNTED_MAX = 200_000
"""Beyond so many, paths that moved count as lost: the guard then asks once too often, never too seldom."""


class Lost(msgspec.Struct, frozen=True, array_like=True):
    """The entries that one manifest has and a later one lost. ``entries_before`` and ``bytes_before`` are of the
    earlier one; ``size_bytes`` are the bytes of lost files less the bytes of files that came; ``emptied`` are top
    directories."""

    removed: int = 0
    size_bytes: int = 0
    entries_before: int = 0
    bytes_before: int = 0
    emptied: tuple[tuple[bytes, int], ...] = ()
    is_all: bool = False
    """Nothing is left, and nothing came."""


class Missing(enum.IntEnum):
    """Why a small loss asks too: it may be the rest of a large one."""

    NOTHING = 0
    RESTORED = 1
    """An operator brought some paths back: no publish that happens by itself removes the others."""
    STOPPED = 2
    """The guard stopped a mass deletion: until all is back, only ``--accept-deletions`` removes the rest."""


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """A generation that was followed by one that lost something, and when (wall clock). ``added`` counts the paths
    that came since then."""

    at_ms: int
    head: HeadRef
    entries: int = 0
    added: int = 0


@dataclass(frozen=True, slots=True)
class LossGuard:
    """The measure of the next loss at a writer: its policy, the generations it is counted from, and an earlier loss."""

    policy: DeletionPolicy
    since: tuple[Checkpoint, ...] = ()
    missing: Missing = Missing.NOTHING


def is_git(path: bytes) -> bool:
    """Whether a path is, or lies in, a repository's own directory: git throws away and packs as it likes."""
    return b".git" in path and b"/.git/" in b"/" + path + b"/"


def lost_between(
    old: Digest, new: Digest, get: GetPage, is_ignored: Callable[[Entry], bool] | None = None
) -> Lost:
    """What ``new`` lost of ``old``. ``is_ignored`` says which paths the definition leaves alone by now. For a rollback
    ``old`` is the head and ``new`` the root that it returns to."""
    gone: list[Entry] = []
    come: Counter[bytes] = Counter()
    come_bytes = 0
    for change in diff(old, new, get):
        if change.old is None and change.new is not None:
            come_bytes += _size(change.new)
            if len(come) < MOVES_COUNTED_MAX:
                come[change.new.digest] += 1
        elif change.old is not None and change.new is None and not _is_nothing(change.old, is_ignored):
            gone.append(change.old)
    lost = []
    for entry in gone:
        if come[entry.digest] > 0:
            come[entry.digest] -= 1
            come_bytes -= _size(entry)
        else:
            lost.append(entry)
    if not lost:
        return Lost()
    size = max(0, sum(map(_size, lost)) - max(0, come_bytes))
    before = totals(old, get)
    is_all = not totals(new, get).entries
    if len(lost) < TOP_MIN and size <= BYTES_FREE and not is_all:
        # Below every limit: no need to find the entries that count for nothing.
        return Lost(len(lost), size, *before)
    nothing = [each for each in iterate(old, get) if _is_nothing(each, is_ignored)]
    return Lost(
        len(lost),
        size,
        before.entries - len(nothing),
        before.size_bytes - sum(map(_size, nothing)),
        _emptied(lost, new, get),
        is_all,
    )


def _size(entry: Entry) -> int:
    return entry.size if entry.kind is Kind.FILE else 0


def _is_nothing(entry: Entry, is_ignored: Callable[[Entry], bool] | None) -> bool:
    return is_git(entry.path) or (is_ignored is not None and is_ignored(entry))


def _emptied(lost: Sequence[Entry], new: Digest, get: GetPage) -> tuple[tuple[bytes, int], ...]:
    below = Counter(entry.path.partition(b"/")[0] for entry in lost if b"/" in entry.path)
    return tuple(
        (top, count)
        for top, count in sorted(below.items())
        if count >= TOP_MIN and not _has_anything(new, top, get)
    )


def _has_anything(root: Digest, top: bytes, get: GetPage) -> bool:
    for entry in iterate(root, get, after=top):
        if not is_below(entry.path, top):
            return False
        if not is_git(entry.path):
            return True
    return False


def losses_since(
    base: Digest,
    root: Digest,
    get: GetPage,
    since: Iterable[Checkpoint],
    now_ms: int,
    is_ignored: Callable[[Entry], bool] | None = None,
) -> tuple[Lost, ...]:
    """The loss of ``root`` against ``base``, then against each checkpoint whose pages are here; empty when nothing was
    lost."""
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


def judge_removals(
    losses: Sequence[Lost],
    policy: DeletionPolicy,
    missing: Missing,
    *,
    added: int,
    entries_before: int,
    accepted: bool,
    by_hand: bool = False,
) -> Trouble | None:
    """Why these losses stop a publish, or a change from elsewhere that a publish would follow; None when they do not.
    ``missing`` is what an earlier loss left behind, ``added`` counts the paths that came. ``by_hand``: an operator
    asked."""
    if accepted:
        return None
    refusal = judge_losses(losses, policy, accepted=False)
    if refusal is not None or missing is Missing.NOTHING or (missing is Missing.RESTORED and by_hand):
        return refusal
    lost = losses[0] if losses else Lost()
    if added >= lost.removed and not lost.size_bytes:
        return None  # under other names
    return judge_rest(lost.removed, entries_before, is_stopped=missing is Missing.STOPPED)


def judge_change(
    base: Digest,
    root: Digest,
    get: GetPage,
    guard: LossGuard,
    now_ms: int,
    is_ignored: Callable[[Entry], bool] | None = None,
) -> Trouble | None:
    """Why no generation above ``base`` may have this ``root`` unasked, or None: before anything of it is laid."""
    losses = losses_since(base, root, get, guard.since, now_ms, is_ignored)
    if not losses:
        return None
    added = sum(1 for each in diff(base, root, get) if each.old is None)
    entries = totals(base, get).entries
    return judge_removals(
        losses, guard.policy, guard.missing, added=added, entries_before=entries, accepted=False
    )


def judge_losses(losses: Sequence[Lost], policy: DeletionPolicy, *, accepted: bool) -> Trouble | None:
    """Why these losses stop a publish, or None. The first is of this generation alone, the others add what was lost
    in the last ten minutes."""
    if accepted:
        return None
    for number, lost in enumerate(losses):
        refusal = _judge(lost, policy)
        if refusal is not None:
            return refusal if not number else _within_window(refusal)
    return None


def _judge(lost: Lost, policy: DeletionPolicy) -> Trouble | None:
    if lost.removed > policy.allowed(lost.entries_before):
        return judge_deletions(lost.removed, lost.entries_before, policy, accepted=False)
    if policy.count is not None or policy.share_percent >= 100:
        return None
    facts: tuple[tuple[str, object], ...]
    if lost.emptied:
        top, emptied = lost.emptied[0]
        facts = (("directory", shown(top)), ("limit", TOP_MIN), ("removed", emptied))
        why = f"all {emptied} paths of {shown(top)}/ would be removed, a top directory may lose all of {TOP_MIN - 1}"
        return _refusal(why, facts)
    if lost.is_all and lost.removed > 1:
        of = f"all of {counted(lost.removed, 'path')} would be removed"
        facts = (("entries", lost.entries_before), ("removed", lost.removed))
        return _refusal(f"{of}: the directory was emptied, or its disk is not mounted", facts)
    allowed = max(BYTES_FREE, lost.bytes_before * policy.share_percent // 100)
    if lost.removed > 1 and lost.size_bytes > allowed:
        facts = (("allowed_bytes", allowed), ("bytes", lost.bytes_before), ("removed_bytes", lost.size_bytes))
        of = f"{sized(lost.size_bytes)} of {sized(lost.bytes_before)}"
        why = f"{of} would be removed, {sized(allowed)} are allowed without being asked"
        return _refusal(why, facts)
    return None


def _refusal(why: str, facts: tuple[tuple[str, object], ...]) -> Trouble:
    hint = "when that is meant: instep publish FILESET --accept-deletions"
    return Trouble("max_deletions", why, Retry.NEVER, 4, hint, facts)


def _within_window(refusal: Trouble) -> Trouble:
    reason = f"within {WINDOW_MS // 60_000} minutes {refusal.reason}"
    facts = (*refusal.facts, ("within_ms", WINDOW_MS))
    return Trouble(refusal.code, reason, refusal.retry, refusal.exit_code, refusal.hint, facts)


def judge_rest(removed: int, entries_before: int, *, is_stopped: bool) -> Trouble:
    """Why these losses, which are few, stop a publish: they may be the rest of a mass deletion that was stopped, or of
    paths that an operator is bringing back."""
    since = "a mass deletion was stopped" if is_stopped else "some paths were restored"
    of = f"{removed} of {counted(entries_before, 'path')} {which(removed, 'is', 'are')} missing"
    why = f"{of} since {since}: they are not published as removed unasked"
    facts = (("entries", entries_before), ("removed", removed), ("rest", True))
    return _refusal(why, facts)


def is_mass(refusal: Trouble) -> bool:
    """Whether one generation alone would have lost too much: the rest of it asks, too, when some of it came back. A
    sum over ten minutes ends with them."""
    names = {name for name, _ in refusal.facts}
    return refusal.code == "max_deletions" and not names & {"within_ms", "rest"}


_NO_MASS = frozenset(("mount", "unstable", "open", "hot"))
"""A mount is one path that an operator made, and a file that is being written comes by itself: neither is a loss."""


def judge_held_mass(
    before: HeldPaths, now: HeldPaths, entries_before: int, policy: DeletionPolicy, *, accepted: bool
) -> Trouble | None:
    """Why so many published paths that can no longer be carried stop a publish, or None: a disk that fails, a tree
    whose rights were taken away. Paths that were held before do not count again."""
    if accepted:
        return None
    known = frozenset(before.paths)
    fresh = [p for p in now.listed if p.path not in known and p.what not in _NO_MASS and p.entries]
    unlisted = _unlisted(now) - _unlisted(before)
    held = sum(p.entries for p in fresh) + max(0, unlisted)
    allowed = policy.allowed(entries_before)
    tops = [p for p in fresh if b"/" not in p.path and p.entries > TOP_MIN]
    is_whole_top = bool(tops) and policy.count is None and policy.share_percent < 100
    if held <= allowed and not is_whole_top:
        return None
    first = tops[0] if is_whole_top else fresh[0] if fresh else now.listed[0]
    return Trouble(
        "mass_held",
        f"{held} of {counted(entries_before, 'published path')} can no longer be carried, among them "
        f"{shown(first.path)} ({first.detail or first.what}); {allowed} {which(allowed, 'is', 'are')} allowed "
        "without being asked",
        Retry.LATER,
        4,
        "put them right; when that is meant: instep publish FILESET --accept-deletions (they keep their last entries)",
        (("allowed", allowed), ("entries", entries_before), ("held", held), ("path", shown(first.path))),
    )


def _unlisted(held: HeldPaths) -> int:
    return held.entries - sum(problem.entries for problem in held.listed)


def is_within(checkpoint: Checkpoint, now_ms: int) -> bool:
    """Whether a checkpoint still counts. A clock that jumped far in either direction ends the window."""
    return abs(now_ms - checkpoint.at_ms) < WINDOW_MS


def next_checkpoints(
    known: Iterable[Checkpoint],
    base: HeadRef | None,
    lost: Lost,
    added: int,
    entries_before: int,
    now_ms: int,
) -> tuple[Checkpoint, ...]:
    """The checkpoints after a generation above ``base`` that lost this much. One is enough for a minute, unless
    something was added since: files that came and went in between would be missed."""
    kept = [each for each in known if is_within(each, now_ms)]
    if base is not None and lost.removed:
        last = kept[-1] if kept else None
        if last is None or now_ms - last.at_ms >= SPACING_MS or last.added:
            kept.append(Checkpoint(now_ms, base, entries_before))
    if kept and added:
        kept[-1] = msgspec.structs.replace(kept[-1], added=kept[-1].added + added)
    while len(kept) > CHECKPOINTS_MAX:
        kept.remove(min(kept, key=lambda each: each.entries))
    return tuple(kept)
