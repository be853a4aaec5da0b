"""Which directories a ``validate`` hook is shown for the length of its call."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from instep.core.vocabulary import HookKind, RunHook
from instep.model.manifest.manifest import Change
from instep.node.config.filesets import FilesetSettings
from instep.node.trees.staged_view import staged_view
from instep.node.trees.tree_view import tree_view


@contextlib.asynccontextmanager
async def validate_views(
    fileset: FilesetSettings,
    effect: RunHook,
    stage: bytes | None,
    changed: Sequence[bytes],
    changes: Iterable[Change],
) -> AsyncIterator[Mapping[str, str]]:
    """Variables and the directories that they name; none for other hooks. The whole tree only where a hook asks:
    ``stage`` is where the new files lie, ``changes`` are all that the generation changes."""
    if stage is None or effect.kind is not HookKind.VALIDATE:
        yield {}
        return
    with contextlib.ExitStack() as stack:
        views = {"INSTEP_STAGED": await asyncio.to_thread(stack.enter_context, staged_view(stage, changed))}
        if any(hook.tree for hook in fileset.hooks.validate):
            view = tree_view(os.fsencode(fileset.path), stage, changes)
            views["INSTEP_TREE"] = await asyncio.to_thread(stack.enter_context, view)
        yield views
