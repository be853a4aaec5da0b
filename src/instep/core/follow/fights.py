"""The fight detector: three reverts of one path in ten minutes mean that a program here keeps writing it."""

from __future__ import annotations

from collections.abc import Iterable

from instep.core.vocabulary import HookWrite
from instep.model.paths import is_below

FIGHT_REVERTS = 3
FIGHT_WINDOW_MS = 600_000
TRACKED_MAX = 10_000
"""The most paths that are kept; when more drift, the oldest are dropped first."""


class FightDetector:
    """Records when each path was reverted. Not persisted: a restart grants three more reverts."""

    def __init__(self) -> None:
        self._reverts: dict[bytes, tuple[int, ...]] = {}

    def split(self, paths: Iterable[bytes], now_ms: int) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """(paths that may be reverted now, paths that are fought over)."""
        free: list[bytes] = []
        fought: list[bytes] = []
        for path in paths:
            (fought if len(self._recent(path, now_ms)) >= FIGHT_REVERTS else free).append(path)
        return tuple(free), tuple(fought)

    def reverted(self, paths: Iterable[bytes], now_ms: int) -> None:
        """Count a revert of each path."""
        for path in paths:
            recent = (*self._recent(path, now_ms), now_ms)
            self._reverts.pop(path, None)
            self._reverts[path] = recent[-FIGHT_REVERTS:]
        while len(self._reverts) > TRACKED_MAX:
            del self._reverts[next(iter(self._reverts))]

    def ends_at(self, paths: Iterable[bytes], now_ms: int) -> int | None:
        """When the first of the fought paths may be reverted again."""
        ends = [min(r) + FIGHT_WINDOW_MS for p in paths if len(r := self._recent(p, now_ms)) >= FIGHT_REVERTS]
        return min(ends, default=None)

    def forget(self) -> None:
        self._reverts.clear()

    def _recent(self, path: bytes, now_ms: int) -> tuple[int, ...]:
        return tuple(at for at in self._reverts.get(path, ()) if now_ms - at < FIGHT_WINDOW_MS)


DIRTY_MAX = 4_096
DRIFT_PATHS_MAX = 1_000


class DriftView:
    """The known differences between a partner's tree and its live generation: paths to look at
    (``dirty``), paths found to differ (``drifted``), and the programs that fight over them."""

    def __init__(self) -> None:
        self.fights = FightDetector()
        self.drifted: tuple[bytes, ...] = ()
        self.writers: dict[bytes, str] = {}
        """Which program was seen writing a path that drifted."""
        self.hook_writes: dict[bytes, HookWrite] = {}
        """Drifted paths that a hook of this node wrote."""
        self.total = 0
        self.was_away = False
        """The root was out of sight, and the tree was not looked at as a whole since."""
        self.returning: tuple[bytes, ...] = ()
        """Paths that a revert restores, until the look that follows it has seen them."""
        self.returning_total = 0
        """With those that later reverts restore."""
        self._dirty: dict[bytes, None] = {}
        self._is_all_dirty = True
        self._asked: tuple[bytes, ...] = ()
        self._asked_all = False

    @property
    def is_dirty(self) -> bool:
        return self._is_all_dirty or bool(self._dirty)

    @property
    def was_whole(self) -> bool:
        """Whether the last check was of the whole tree."""
        return self._asked_all

    def touch(self, paths: Iterable[bytes], *, everything: bool = False) -> None:
        """These paths (or all) must be looked at."""
        if not everything:
            for path in paths:
                self._dirty[path] = None
        if everything or len(self._dirty) > DIRTY_MAX:
            self._is_all_dirty = True
        if self._is_all_dirty:
            self._dirty.clear()

    def doubt(self) -> None:
        """The root was out of sight: everything must be looked at."""
        self.was_away = True
        self.touch((), everything=True)

    def start_clean(self) -> None:
        """A first apply looked at everything."""
        self._dirty.clear()
        self._is_all_dirty = False

    def ask(self) -> tuple[bytes, ...]:
        """The paths to check now (empty means all); they are no longer dirty."""
        self._asked, self._asked_all = tuple(self._dirty), self._is_all_dirty
        self._dirty.clear()
        self._is_all_dirty = False
        return () if self._asked_all else self._asked

    def failed(self) -> None:
        """The check failed: the paths that it asked about are dirty again."""
        self.returning = ()
        self.touch(self._asked, everything=self._asked_all)

    def found(
        self,
        paths: tuple[bytes, ...],
        total: int,
        writers: tuple[tuple[bytes, str], ...] = (),
        hook_writes: tuple[HookWrite, ...] = (),
    ) -> None:
        """The check's answer, merged into what was known."""
        self.returning = ()
        kept_writes = (
            {} if self._asked_all else {p: w for p, w in self.hook_writes.items() if not self._was_asked(p)}
        )
        self.hook_writes = kept_writes | {each.path: each for each in hook_writes[:DRIFT_PATHS_MAX]}
        self.writers.update(writers[:DRIFT_PATHS_MAX])
        while len(self.writers) > DRIFT_PATHS_MAX:
            del self.writers[next(iter(self.writers))]
        if self._asked_all:
            self.was_away = self.was_away and self._is_all_dirty
            self.drifted, self.total = paths[:DRIFT_PATHS_MAX], total
            return
        kept = [p for p in self.drifted if not self._was_asked(p)]
        merged = dict.fromkeys((*kept, *paths))
        self.drifted = tuple(merged)[:DRIFT_PATHS_MAX]
        self.total = max(len(merged), total)

    def _was_asked(self, path: bytes) -> bool:
        return any(path == a or is_below(path, a) for a in self._asked)

    def begin_revert(self, paths: tuple[bytes, ...]) -> None:
        """These are restored now, the other drifted ones later or never."""
        self.returning = paths
        self.returning_total = len(paths) + self.total - len(self.drifted)

    def reverted(self, paths: tuple[bytes, ...], now_ms: int) -> tuple[HookWrite, ...]:
        """Those were restored: count it, and look at them once more, for a program may have been quicker. What hooks
        of this node wrote is no fight, and is returned."""
        wrote = tuple(each for path in paths if (each := self.hook_writes.pop(path, None)) is not None)
        done = frozenset(paths)
        self.fights.reverted(done.difference(each.path for each in wrote), now_ms)
        left = tuple(p for p in self.drifted if p not in done)
        self.touch(paths, everything=self.total > len(self.drifted))
        self.drifted, self.total = left, len(left)
        return wrote

    def switched(self) -> None:
        """The tree holds another generation: drifted paths must be looked at anew, and count as drifted until then."""
        self.touch(self.drifted, everything=self.total > len(self.drifted))
