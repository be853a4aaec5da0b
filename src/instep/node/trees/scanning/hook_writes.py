"""Which paths of a tree were touched while a hook of this node ran, and by nothing else since."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from instep.core.vocabulary import HookWrite
from instep.model.definition import Definition
from instep.model.paths import parent_of
from instep.node.runtime.driver import monotonic_ms
from instep.tree.scan.rules import Rules

LATE_MS = 5_000
"""A path that a hook's ``writes`` names counts as the hook's for so long after its end: a server may answer first."""
KEPT_MAX = 10_000
ALONE_MAX = 1_000


class HookWrites:
    """One per tree. ``look`` reads what the watch has to report, before and after each hook."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._found: dict[bytes, HookWrite] = {}
        self._hook = ""
        self._named: Rules | None = None
        self._is_running = False
        self._ended_ms = 0

    @contextlib.contextmanager
    def during(self, hook: str, named: Iterable[str]) -> Iterator[None]:
        """The hooks of a slot run now; ``named`` are the patterns of the paths that they say they write."""
        self._look()
        self._hook, self._named, self._is_running = hook, Rules(Definition(ignore=tuple(named))), True
        try:
            yield
        finally:
            self._look()
            self._is_running, self._ended_ms = False, monotonic_ms()

    def touched(self, path: bytes, is_tree: bool) -> None:
        """The kernel reported a change of this path; of all below it as well when ``is_tree``. The root itself: the
        watch lost track, and no path can be given to a hook any more."""
        if not path:
            self._found.clear()
            return
        is_named = self._named is not None and self._named.ignored(path, is_tree)
        is_late = is_named and monotonic_ms() - self._ended_ms <= LATE_MS
        if self._is_running or is_late:
            self._found[path] = HookWrite(path, self._hook, is_named)
            if len(self._found) > KEPT_MAX:
                self._found.clear()
        else:
            self._found.pop(path, None)

    def among(self, paths: Iterable[bytes]) -> tuple[HookWrite, ...]:
        """Those of ``paths`` that a hook wrote, or that lie in a directory that it made."""
        return tuple(found for path in paths if (found := self._of(path)) is not None)

    def alone(self, paths: tuple[bytes, ...]) -> tuple[HookWrite, ...]:
        """All of ``paths`` when hooks wrote all of them, else none. No hook of the kind writes very many."""
        found = self.among(paths) if self._found and len(paths) <= ALONE_MAX else ()
        return found if len(found) == len(paths) else ()

    def _of(self, path: bytes) -> HookWrite | None:
        at = path
        while at:
            found = self._found.get(at)
            if found is not None:
                return HookWrite(path, found.hook, found.is_expected)
            at = parent_of(at)
        return None
