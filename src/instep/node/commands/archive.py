"""The archive of a fileset: what a switch replaced or removed, given back or let go."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.core.retention import RetentionPolicy, plan_prune
from instep.errors import UsageError
from instep.model.paths import path_fields
from instep.node.commands.parameters import path_of, service_of
from instep.node.control import Command, Params, Speaker
from instep.node.driver import wall_ms
from instep.node.snapshot import moment
from instep.tree.archive import Archive

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["commands", "policy_of"]

ITEMS_MAX = 100_000


def commands(daemon: Daemon) -> Mapping[str, Command]:
    archives = Archives(daemon)
    return {
        "archive_list": archives.list,
        "archive_restore": archives.restore,
        "archive_prune": archives.prune,
    }


class Archives:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def list(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        service = service_of(self._daemon, params)
        wanted = ("drift", "lost") if params.get("set_aside") else None

        def look() -> dict[str, Any]:
            archive = Archive(service.place())
            items: deque[dict[str, Any]] = deque(maxlen=ITEMS_MAX)
            for item in archive.list_items():
                if wanted is not None and item.why.value not in wanted:
                    continue
                items.appendleft(
                    {
                        **path_fields(item.path),
                        "generation": item.generation or None,
                        "at": moment(item.at_ms),
                        "why": item.why.value,
                        "bytes": item.size_bytes,
                        "entries": item.entries,
                        "batch": item.batch,
                    }
                )
            return {"fileset": service.fileset.name, "items": list(items), "bytes": archive.total_bytes()}

        return await service.worker.run(look)

    async def restore(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        service = service_of(self._daemon, params)
        path = path_of(params)
        if not path:
            raise UsageError("archive restore needs a PATH", hint="instep archive list")
        to = Path(str(params["to"]))
        if not to.is_absolute():
            raise UsageError(f"{to} is not an absolute path", code="no_directory")
        number = params.get("generation")

        def restore() -> bytes:
            return Archive(service.place()).restore(path, to, int(number) if number is not None else None)

        restored = await service.worker.run(restore)
        self._daemon.runtime.note("restored", f"restored to {to}", service.line, **path_fields(path))
        return {
            "fileset": service.fileset.name,
            **path_fields(path),
            "to": restored.decode("utf-8", "replace"),
            "changed": True,
        }

    async def prune(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        service = service_of(self._daemon, params)
        policy = policy_of(service, params)
        is_dry = bool(params.get("dry_run"))

        def prune() -> dict[str, Any]:
            archive = Archive(service.place())
            batches = archive.batches()
            if params.get("keep_within_ms") is not None:  # an operator's own word about time
                names = plan_prune(batches, policy, wall_ms(), from_newest=False).names
            else:
                runtime, fileset = self._daemon.runtime, service.fileset
                now = runtime.retention.now_ms(runtime.store, fileset.name, batches, policy.keep_within_ms)
                names = plan_prune(batches, policy, now).names
            counts = sum(1 for item in archive.list_items() if item.batch in names)
            freed = archive.prune(names, dry_run=is_dry)
            return {
                "fileset": service.fileset.name,
                "changed": bool(names) and not is_dry,
                "dry_run": is_dry,
                "batches": list(names),
                "removed": counts,
                "bytes": freed,
            }

        result = await service.worker.run(prune)
        if result["changed"]:
            self._daemon.runtime.note(
                "archive_pruned",
                f"{len(result['batches'])} batches of the archive were pruned",
                service.line,
                bytes=result["bytes"],
            )
        return result


def policy_of(service: Any, params: Params) -> RetentionPolicy:
    """The fileset's retention, with what the command line says instead."""
    settings = service.fileset.archive
    usage = shutil.disk_usage(service.fileset.path)
    keep_last = params.get("keep_last")
    keep_within = params.get("keep_within_ms")
    return RetentionPolicy(
        keep_last=int(keep_last) if keep_last is not None else settings.keep_last,
        keep_within_ms=int(keep_within) if keep_within is not None else settings.keep_within_ms,
        max_bytes=int(usage.total * settings.max_share_percent / 100),
    )
