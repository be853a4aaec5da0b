"""Whose files a followed tree holds: the rule in force, also after one that gave files away has ended."""

from __future__ import annotations

import os
from collections.abc import Callable

from instep.model.definition import Preserve
from instep.model.ids import FilesetName
from instep.node.config.filesets import FilesetSettings
from instep.node.facts.daemon_rights import may_give_away
from instep.store.port import NodeStore
from instep.tree.objects.fidelity import Allow, Local
from instep.tree.objects.owners import OwnerRules, Owners

_GIVEN = b"given"


class FollowedOwners:
    """The metadata that this node lets manifests set in one tree that it follows (P7), and what it noted of owners.

    Once a rule of this node gave objects of the tree to other accounts, owners are looked at for good: with no rule
    left, they belong to the daemon's user again, as all that arrives does. Before that owners are left as they are."""

    def __init__(self, store: Callable[[], NodeStore], fileset: FilesetName) -> None:
        """``store`` is the calling thread's own."""
        self._store = store
        self._fileset = fileset
        self._is_given: bool | None = None
        self.unknown: dict[str, None] = {}
        """Users and groups of manifests that stand for no account here, as ``user tomcat``."""

    def local(
        self,
        fileset: FilesetSettings,
        preserve: frozenset[Preserve],
        allow: frozenset[Allow],
        *,
        is_secret: bool = False,
    ) -> Local:
        """The rules for a definition's ``preserve``; ``allow`` is the node's ``allow_preserve``."""
        without = frozenset(Preserve(name) for name in fileset.without)

        def by(rules: OwnerRules) -> Local:
            owners = Owners(rules, is_careful=Allow.OWNER not in allow, unknown=self.unknown)
            return Local(preserve, allow, without, is_secret=is_secret, owners=owners)

        if not may_give_away():
            return by(OwnerRules())
        found = by(OwnerRules.of(fileset.owners))
        if found.keeps(Preserve.OWNER):
            self._note()
        elif Preserve.OWNER not in without and self._has_given():
            return by(OwnerRules(everything=(str(os.geteuid()), str(os.getegid()))))
        return found

    def _note(self) -> None:
        """Durable before the first object gets its owner, so that a rule that ends can take it back."""
        if not self._has_given():
            self._store().put(_key(self._fileset), _GIVEN)
            self._is_given = True

    def _has_given(self) -> bool:
        if self._is_given is None:
            self._is_given = self._store().get(_key(self._fileset)) is not None
        return self._is_given


def forget_owners(store: NodeStore, fileset: FilesetName) -> None:
    """The fileset is not in the settings any more."""
    store.delete(_key(fileset))


def _key(fileset: FilesetName) -> str:
    return f"owners/{fileset}"
