"""Which directories a ``validate`` hook is shown for the length of its call."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from instep.core.vocabulary import HookKind, RunHook
from instep.node.config.settings import FilesetSettings
from instep.node.staged_view import staged_view
from instep.node.tree_view import tree_view

if TYPE_CHECKING:
    from instep.node.applying import Applying

__all__ = ["validate_views"]


@contextlib.asynccontextmanager
async def validate_views(
    applying: Applying, fileset: FilesetSettings, effect: RunHook, changed: Sequence[bytes]
) -> AsyncIterator[Mapping[str, str]]:
    """Variables and the directories that they name; none for other hooks. The whole tree only where a hook asks."""
    stage = applying.staged_path() if effect.kind is HookKind.VALIDATE else None
    if stage is None:
        yield {}
        return
    with contextlib.ExitStack() as stack:
        views = {"INSTEP_STAGED": await asyncio.to_thread(stack.enter_context, staged_view(stage, changed))}
        if any(hook.tree for hook in fileset.hooks.validate):
            changes = applying.changes(effect.base, effect.head)
            view = tree_view(os.fsencode(fileset.path), stage, changes)
            views["INSTEP_TREE"] = await asyncio.to_thread(stack.enter_context, view)
        yield views
