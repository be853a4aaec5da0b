"""How a simulated partner looks for local changes, reverts them, and compares its tree with a head."""

from __future__ import annotations

from instep.core.follow import vocabulary as f
from instep.model.ids import Digest, HeadRef
from instep.testing.partners.tree_jobs import TreeJobs
from instep.testing.world.disk import Plan, content_digest
from instep.testing.world.hook_writes import SimHookWrites
from instep.testing.world.node import trouble


class PartnerDrift(TreeJobs):
    """Reads and restores the tree; faults of the disk happen here too."""

    hook_writes: SimHookWrites

    def differing(self, base: HeadRef) -> list[bytes]:
        return [path for path, _, _ in self.place.plan_to(self.store.entries(base.root))]

    def _check_drift(self, effect: f.CheckDrift) -> None:
        if self.is_cancelled(effect.req):
            return
        if not self.place.has_marker:
            self.post(f.DriftCheckFailed(effect.req, trouble("marker_missing", 4)))
        elif self.fails(self.world.options.read_error):
            self.post(f.DriftCheckFailed(effect.req, trouble("read_error", 8)))
        else:
            paths = [p for p in self.differing(effect.base) if not effect.paths or p in effect.paths]
            is_kept = self.config.drift is f.DriftPolicy.KEEP
            if not effect.paths and (is_kept or not paths):
                self.is_unproven = False  # Where they are kept, what a whole look finds are local changes.
            wrote = self.hook_writes.among(paths)
            self.post(f.DriftChecked(effect.req, tuple(paths), len(paths), hook_writes=wrote))

    def _revert(self, effect: f.Revert) -> None:
        if self.fails(self.world.options.disk_full) or not self.place.has_marker:
            self.post(f.RevertFailed(effect.req, trouble("disk_full", 8)))
            return
        self.place.stage.clear()  # A revert is staged itself, in the place of the staged generation.
        self.place.sealed_for = None
        wanted = self.store.entries(effect.base.root)
        plan: Plan = []
        for path in effect.paths:
            digest, there = wanted.get(path), self.place.tree.get(path)
            if digest is not None:
                data = self._content(digest, effect.source)
                if data is None:
                    self.post(f.RevertFailed(effect.req, trouble("unavailable")))
                    return
                self.place.stage[digest] = data
            plan.append((path, None if there is None else content_digest(there), digest))
        self.go(
            effect.base,
            plan,
            lambda _: self._reverted(effect),
            lambda why: f.RevertFailed(effect.req, why),
            archives=self.world.plant != "revert_unarchived",
        )

    def _reverted(self, effect: f.Revert) -> f.Reverted:
        self.place.close()
        return f.Reverted(effect.req, effect.paths)

    def _content(self, digest: Digest, source: str | None) -> bytes | None:
        """From here, else from ``source``."""
        found = self.place.content_of(digest)
        return self.content_of_others(digest, (source,)) if found is None and source is not None else found

    def _compare(self, effect: f.CompareTree) -> None:
        wanted, there = self.store.entries(effect.head.root), self.place.digests()
        added = [p for p in wanted if p not in there]
        removed = [p for p in there if p not in wanted]
        changed = [p for p in wanted if p in there and wanted[p] != there[p]]
        sample = tuple(sorted((*added, *changed, *removed))[:5])
        self.post(f.Compared(effect.req, len(added), len(changed), len(removed), sample))

    # --- operators ------------------------------------------------------------------------------------------

    def edit_live(self, path: bytes, data: bytes | None) -> None:
        """An operator or a program writes into the partner's tree."""
        self.hook_writes.touched(path)
        self.world.record(self.name, "!", f"someone writes {path!r} here")
        if self.switching is not None:
            self.switching = [step for step in self.switching if step[0] != path]
        if data is None:
            self.place.tree.pop(path, None)
        else:
            self.place.tree[path] = data
        if self.is_alive and not self.fails(self.world.options.watch_loss):
            self.post(f.TreeTouched((path,)), 1)
