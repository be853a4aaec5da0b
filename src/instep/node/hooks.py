"""A line's hooks: from settings to a call, from its outcome to what the machine is told."""

from __future__ import annotations

from collections.abc import Iterable

from instep.core.vocabulary import HookKind, RunHook, Trouble
from instep.errors import Retry
from instep.fleet.hooks import HookCall, HookSpec
from instep.fleet.hooks import run_hook as run_one
from instep.node.runtime import Runtime
from instep.node.settings import FilesetSettings, HookSettings

__all__ = ["run_hook", "spec_of"]


def spec_of(hook: HookSettings) -> HookSpec:
    return HookSpec(
        run=hook.run,
        http=hook.http,
        timeout_ms=hook.timeout_ms,
        retries=hook.retries,
        auth_file=hook.auth_file,
        expect_status=hook.expect_status,
        expect_body=hook.expect_body,
    )


def _settings_of(fileset: FilesetSettings, kind: HookKind) -> HookSettings | None:
    hooks = fileset.hooks
    match kind:
        case HookKind.VALIDATE:
            return hooks.validate
        case HookKind.RELOAD:
            return hooks.reload
        case HookKind.PROBE:
            return hooks.probe


async def run_hook(
    runtime: Runtime,
    fileset: FilesetSettings,
    effect: RunHook,
    changed: Iterable[bytes],
    staged: str | None = None,
) -> Trouble | None:
    """Run the hook that this node's own configuration names (P7); None when it went well or there is none."""
    settings = _settings_of(fileset, effect.kind)
    if settings is None:
        return None
    kind = effect.kind.value
    extra = {"INSTEP_PATH": str(fileset.path)}
    if staged is not None:
        extra["INSTEP_STAGED"] = staged
    call = HookCall(kind, fileset.name, effect.head, effect.base, changed, extra)
    outcome = await run_one(spec_of(settings), call)
    line = fileset.line
    if outcome.ok:
        runtime.note(
            "hook",
            f"{kind} of {fileset.name} went well",
            line,
            attempts=outcome.attempts,
            ms=outcome.duration_ms,
        )
        return None
    reason = f"{kind} hook of {fileset.name}: {outcome.reason}"
    runtime.note("hook_failed", reason, line, attempts=outcome.attempts, output=outcome.output_tail[-2000:])
    return Trouble(
        f"{kind}_failed",
        reason,
        Retry.LATER,
        4,
        f"look at its output: instep events; then: instep retry {fileset.name}",
        (("attempts", outcome.attempts), ("output", outcome.output_tail[-2000:])),
    )
