"""A line's hooks: from settings to a call, from its outcome to the machine's event."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import msgspec

from instep.core.vocabulary import HookAdded, HookKind, RunHook, Trouble
from instep.errors import Retry
from instep.fleet.hooks.hooks import run_hook as run_one
from instep.fleet.hooks.spec import HookCall, HookSpec
from instep.model.definition import Definition
from instep.node.config.filesets import FilesetSettings
from instep.node.config.hooks import HookSettings
from instep.node.runtime.runtime import Runtime
from instep.node.trees.fileset_tree import FilesetTree
from instep.store.port import NodeStore
from instep.tree.scan.rules import Rules

CHANGED_MAX = 100_000
"""The most changed paths that a hook gets; of more, none is left out by its ``paths``."""


def spec_of(hook: HookSettings) -> HookSpec:
    """The call of a hook: all of its settings except when it is due."""
    return HookSpec(**{field.name: getattr(hook, field.name) for field in dataclasses.fields(HookSpec)})


def is_meant(hook: HookSettings, changed: Collection[bytes], *, is_known: bool) -> bool:
    """Whether a changed path matches the hook's ``paths``; always where what changed is not known."""
    if not hook.paths or not is_known:
        return True
    rules = Rules(Definition(ignore=hook.paths))
    return any(rules.ignored(path, False) for path in changed)


def is_any_meant(hooks: Collection[HookSettings], changed: Collection[bytes]) -> bool:
    """Whether any of a slot's hooks is for a path that changed between two known generations."""
    is_known = 0 < len(changed) < CHANGED_MAX
    return any(is_meant(hook, changed, is_known=is_known) for hook in hooks)


async def run_hook(
    tree: FilesetTree,
    effect: RunHook,
    changed: Collection[bytes],
    views: Mapping[str, str] = MappingProxyType({}),
) -> Trouble | None:
    """Run the hooks that this node's own configuration names (P7); None when all went well or there is none. Paths
    of the tree that are written meanwhile count as theirs.

    ``views`` are directories for ``validate`` by the name of their variable."""
    fileset, slot = tree.fileset, effect.kind.value
    call = HookCall(slot, fileset.name, effect.head, effect.base, changed, views)
    with tree.hook_writes.during(
        slot, (path for hook in getattr(fileset.hooks, slot) for path in hook.writes)
    ):
        trouble = await run_slot(tree.runtime, fileset, call, changed)
    if trouble is None and effect.kind is HookKind.RELOAD:
        _note_reloaded(tree.runtime.store, fileset)
    return trouble


async def run_slot(
    runtime: Runtime, fileset: FilesetSettings, call: HookCall, changed: Collection[bytes] = ()
) -> Trouble | None:
    """The hooks of the slot ``call.hook``, in order, up to the first that fails.

    All run where the changes are unknown: at the first apply, after a put-back, with too many changes to list. Of
    ``thaw`` all run in any case: when several programs are frozen, the failure of one must not leave the later ones
    frozen.
    """
    is_known = call.previous not in (None, call.generation) and 0 < len(changed) < CHANGED_MAX
    slot: tuple[HookSettings, ...] = getattr(fileset.hooks, call.hook)
    first: Trouble | None = None
    for hook in slot:
        if is_meant(hook, changed, is_known=is_known):
            trouble = await _run_one(runtime, fileset, hook, call)
            first = first or trouble
            if first is not None and call.hook != "thaw":
                break
    return _counted(runtime, fileset, call.hook, first)


def _counted(
    runtime: Runtime, fileset: FilesetSettings, kind: str, trouble: Trouble | None
) -> Trouble | None:
    """The trouble with how often in a row this hook has failed, counted over restarts, until it goes well."""
    key = f"hook_failures:{fileset.name}:{kind}"
    known = runtime.store.get(key)
    if trouble is None:
        if known is not None:
            runtime.store.delete(key)
        return None
    failures = (int(known) if known is not None else 0) + 1
    runtime.store.put(key, str(failures).encode("ascii"))
    if failures == 1:
        return trouble
    return msgspec.structs.replace(trouble, reason=f"{trouble.reason} ({failures} times in a row)")


async def _run_one(
    runtime: Runtime, fileset: FilesetSettings, hook: HookSettings, call: HookCall
) -> Trouble | None:
    kind = call.hook
    told = {"INSTEP_PATH": str(fileset.path), **call.extra}
    if hook.tree:
        told.setdefault("INSTEP_TREE", str(fileset.path))
    outcome = await run_one(spec_of(hook), dataclasses.replace(call, extra=told))
    line = fileset.line
    if outcome.ok:
        runtime.note(
            "hook",
            f"{kind} of {fileset.name} went well",
            line,
            attempts=outcome.attempts,
            ms=outcome.duration_ms,
            is_unverified=outcome.is_unverified,
        )
        return None
    reason = f"{kind} hook of {fileset.name}: {outcome.explained}"
    runtime.note("hook_failed", reason, line, attempts=outcome.attempts, output=outcome.output_tail[-2000:])
    return Trouble(
        f"{kind}_failed",
        reason,
        Retry.LATER,
        4,
        f"look at its output: instep events; then: instep retry {fileset.name}",
        (("attempts", outcome.attempts), ("output", outcome.output_tail[-2000:])),
    )


_NONE, _SOME = b"none", b"some"


def note_hooks(store: NodeStore, fileset: FilesetSettings, post: Callable[[HookAdded], None]) -> None:
    """Post when the fileset has a reload hook and had none before, also while the daemon was down: the application has
    not seen the present generation through it. Posted again after a restart, until the hook ran. A fileset that is new
    here has the hooks that it begins with: its first generation runs them."""
    key, before = _key(fileset), store.get(_key(fileset))
    if fileset.hooks.reload and before == _NONE:
        post(HookAdded())
    elif before is None or not fileset.hooks.reload:
        now = _SOME if fileset.hooks.reload else _NONE
        if before != now:
            store.put(key, now)


def _note_reloaded(store: NodeStore, fileset: FilesetSettings) -> None:
    if store.get(_key(fileset)) == _NONE:
        store.put(_key(fileset), _SOME)


def _key(fileset: FilesetSettings) -> str:
    return f"reload_hooks/{fileset.name}"
