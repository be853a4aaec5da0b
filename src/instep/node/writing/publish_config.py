"""The settings of a written fileset as its machine takes them."""

from __future__ import annotations

from instep.core.guards.guards import DeletionPolicy
from instep.core.guards.losses import LossGuard
from instep.core.publish.machine import PublishMachine
from instep.core.publish.vocabulary import PublishConfig, PublishMode
from instep.node.config.filesets import FilesetSettings
from instep.node.lines.epoch_records import overrules
from instep.node.trees.fileset_tree import FilesetTree

RESCAN_MS = 600_000


def deletions_of(fileset: FilesetSettings) -> DeletionPolicy:
    """So many removals are made without asking an operator."""
    most = fileset.max_deletions
    share = int(most.percent) if most.percent is not None else 100
    return DeletionPolicy(share_percent=share, count=most.count)


def loss_guard(tree: FilesetTree, machine: PublishMachine) -> LossGuard:
    """The measure of the next loss."""
    facts = machine.facts
    return LossGuard(deletions_of(tree.fileset), facts.checkpoints, facts.missing)


def publish_config(tree: FilesetTree) -> PublishConfig:
    """As ``instep.toml`` says now, and what the root and the state show."""
    fileset, runtime = tree.fileset, tree.runtime
    read_only = runtime.read_only.trouble()
    return PublishConfig(
        node=runtime.name,
        mode=PublishMode.MANUAL if read_only is not None else PublishMode(fileset.publish),
        settle_ms=fileset.settle_ms,
        settle_max_ms=fileset.settle_max_ms,
        trigger=fileset.trigger,
        trigger_max_ms=fileset.trigger_max_ms,
        deletions=deletions_of(fileset),
        rescan_ms=RESCAN_MS,
        has_validate=bool(fileset.hooks.validate),
        has_reload=bool(fileset.hooks.reload),
        partners=tuple(name for name in runtime.settings.partners if fileset.offers_to(name)),
        overrules=overrules(runtime.store, fileset.line, fileset.writer),
        is_strict=fileset.strict,
        has_past=runtime.state_note is not None or (tree.live is None and tree.has_past),
        read_only=read_only,
    )
