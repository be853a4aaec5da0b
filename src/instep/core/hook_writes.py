"""Hooks of this node that write into the tree: what they write makes them run again, and that loop is ended here."""

from __future__ import annotations

from collections.abc import Iterable

from instep.core.vocabulary import HookWrite
from instep.model.paths import shown

HOOK_WRITES = "hook_writes"
"""The code of a standing."""
KEPT_MAX = 20
NAMED_MAX = 3


class HookLoop:
    """Judges changes that nothing but hooks of this node made. Where the hook's ``writes`` names them, no hook runs for
    them. Else the hooks run for them once: a person may have changed the path while the hook ran. What they write in
    that run is handled without them."""

    def __init__(self) -> None:
        self._undeclared: dict[bytes, HookWrite] = {}
        self._has_run = False

    @property
    def undeclared(self) -> tuple[HookWrite, ...]:
        """Paths that a hook writes and that its ``writes`` does not name, for the standing."""
        return tuple(self._undeclared.values())

    def is_over(self, wrote: tuple[HookWrite, ...]) -> bool:
        """Whether no hook need run for these changes. ``wrote`` covers all of them, or is empty."""
        unnamed = [each for each in wrote if not each.is_expected]
        if wrote and not unnamed:
            return True
        has_run, self._has_run = self._has_run, bool(wrote)
        for each in unnamed if has_run else ():
            if len(self._undeclared) < KEPT_MAX:
                self._undeclared[each.path] = each
        return has_run and bool(wrote)

    def begin_anew(self) -> None:
        """The next changes have another cause."""
        self._has_run = False


def hook_steps(undeclared: tuple[HookWrite, ...]) -> tuple[str, ...]:
    """The ways to have each hook run once."""
    first = undeclared[0]
    return (
        f'if that is meant, say so in the {first.hook} hook: writes = ["/{shown(first.path)}"]',
        "or ignore the path where the fileset is written",
    )


def hook_words(wrote: Iterable[HookWrite]) -> str:
    """Hooks and their paths, in words: ``the reload hook writes global.xml into the tree``."""
    wrote = tuple(wrote)
    hooks = " and the ".join(dict.fromkeys(each.hook for each in wrote))
    paths = ", ".join(shown(each.path) for each in wrote[:NAMED_MAX])
    more = f" and {len(wrote) - NAMED_MAX} more" if len(wrote) > NAMED_MAX else ""
    return f"the {hooks} hook writes {paths}{more} into the tree"
