"""The settings of a simulated partner's own file, and operators who edit it while it runs."""

from __future__ import annotations

from random import Random
from typing import Any

from msgspec.structs import replace

from instep.core.follow import vocabulary as f
from instep.core.vocabulary import HookAdded
from instep.model.ids import Digest, LineId, NodeName
from instep.testing.partners.partner_drift import PartnerDrift
from instep.testing.partners.rollout_partner import RolloutSide
from instep.testing.world.hook_writes import SimHookWrites
from instep.testing.world.network import Network
from instep.testing.world.world import BrokenPromise, World

_TOGGLED = ("has_gates", "has_validate", "has_reload", "has_probe", "is_observing", "drift")


class SimPartnerSettings(PartnerDrift):
    """Hooks and gates come and go, a node observes for a while, local changes are kept or reverted."""

    def __init__(self, world: World, net: Network, name: str, line: LineId, sources: tuple[str, ...]) -> None:
        super().__init__(world, net, name, line)
        self.sources = sources
        self.rollouts: RolloutSide | None = None
        self.hook_writes = SimHookWrites(self)
        self.loaded: Digest | None = None
        """The generation that the reload hook ran for last."""
        self._not_owed: dict[Digest, None] = {}
        """Generations that were here or on their way when the file began to name a reload hook."""
        self.config = self._own_config()
        self.is_hook_known = self.config.has_reload
        """The node's record that the present reload hook ran, or that the fileset began with it."""

    def boot(self) -> None:
        super().boot()
        self._tell_of_hook()

    def _tell_of_hook(self) -> None:
        """As the node does: an added hook is told of until it ran."""
        if not self.config.has_reload:
            self.is_hook_known = False
        elif not self.is_hook_known and self.world.plant != "hook_not_told":
            self.take(HookAdded())

    def _own_config(self) -> f.FollowConfig:
        options = self.world.options
        has_reload = options.has_hooks and not (options.one_hook_less and self.name == "p0")
        return f.FollowConfig(
            writer=NodeName(self.line.origin),
            poll_ms=options.poll_ms,
            drift=f.DriftPolicy.KEEP if options.keeps_drift and self.name != "hub" else f.DriftPolicy.REVERT,
            drift_scan_ms=20_000,
            is_observing=self._only_observes(),
            has_gates=options.has_gates,
            has_validate=options.has_hooks,
            has_reload=has_reload,
            has_probe=options.has_hooks,
            retry_min_ms=100,
            knows_orders=options.has_rollouts,
            orders_from=None if self.line.origin in self.sources else NodeName(self.sources[0]),
        )

    def _only_observes(self) -> bool:
        """For good only where no file is edited: one that began to observe with half a generation in its tree could not
        go on to the next."""
        options = self.world.options
        return options.is_one_observing and self.name == "p0" and not options.reconfigure_every_ms

    def toggle_a_setting(self, rng: Random) -> None:
        """The file was edited, and is read while the node runs or at its next start."""
        what, config = rng.choice(_TOGGLED), self.config
        changed: dict[str, Any] = {what: not getattr(config, what)}
        if what == "drift":
            keeps = (
                config.drift is f.DriftPolicy.REVERT and self.name != "hub"
            )  # It serves what is in its tree.
            changed = {what: f.DriftPolicy.KEEP if keeps else f.DriftPolicy.REVERT}
        self._reconfigure(replace(config, **changed))

    def change_hook(self, *, is_there: bool) -> None:
        """The reload hook goes, or comes where the first settings have one."""
        self._reconfigure(replace(self.config, has_reload=is_there and self._own_config().has_reload))

    def restore_settings(self) -> None:
        """Restore the file's first settings."""
        self._reconfigure(self._own_config())

    def _reconfigure(self, config: f.FollowConfig) -> None:
        old, self.config = self.config, config
        if not config.has_reload:
            self.loaded = None  # the next one is another hook
        if config.has_reload and not old.has_reload:
            journal, facts = self.place.journal, self.store.facts
            here = () if facts is None else (facts.tree, facts.live)
            there = (*here, None if journal is None else journal.target)
            self._not_owed.update(dict.fromkeys(ref.id for ref in there if ref is not None))
        if config.has_probe and not old.has_probe and self.rollouts is not None:
            self.rollouts.watch.probed(self.name)  # No probe existed for the tree that it holds now.
        if self.is_alive and config != old:
            if self.rollouts is not None:
                self.rollouts.watch.forgiven(self.name)
            self.take(f.FollowConfigChanged(config))
            self._tell_of_hook()

    def owes_a_reload(self, generation: Digest) -> bool:
        """P2: whether its reload hook never ran for this generation, and had to."""
        return self.config.has_reload and self.loaded != generation and generation not in self._not_owed

    def never_reloaded(self, live: Digest) -> bool:
        """Whether the reload hook, be it an added one, never ran for the generation that is live."""
        return self.config.has_reload and self.loaded != live

    def _reloaded(self, generation: Digest) -> None:
        self.loaded, self.is_hook_known = generation, True
        self._not_owed.clear()

    def may_write(self, effect: f.FollowEffect) -> None:
        """P3: a node that only observes begins no switch and reverts nothing."""
        if self.config.is_observing and isinstance(effect, f.Switch | f.Revert):
            raise BrokenPromise("P3", f"{self.name} observes, and begins to {type(effect).__name__.lower()}")
