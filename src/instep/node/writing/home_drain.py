"""A home out of its balancers while changes from elsewhere go live in its own tree and its application reloads.

Followers are drained by their rollout; the home's tree is no part of one. It is drained before its tree is changed, and
returned once its application has reloaded and before the generation is announced: no follower is drained meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from instep.model.ids import HeadRef
from instep.node.lines.hook_calls import is_any_meant
from instep.node.lines.line_net import LineNet
from instep.node.lines.snapshot import reports_of
from instep.node.runtime.draining import changes_key
from instep.node.runtime.runtime import Runtime
from instep.node.trees.fileset_tree import FilesetTree

TOLD_WITHIN_S = 30.0
"""The longest wait for a balancer to ask, that this node is drained and again that it is back."""
OTHERS_WITHIN_S = 60.0
"""The longest wait for a follower that serves the head, so that it can take over."""


class HomeDrain:
    """One per line that is written here. ``head`` gives its newest announced generation."""

    def __init__(
        self, runtime: Runtime, tree: FilesetTree, net: LineNet, head: Callable[[], HeadRef | None]
    ) -> None:
        self._runtime = runtime
        self._tree = tree
        self._net = net
        self._head = head

    @property
    def _key(self) -> str:
        return changes_key(self._tree.name)

    async def begin(self, paths: Collection[bytes]) -> None:
        """Drain this node before these paths are changed, where that helps: its application reloads by itself for
        them, a balancer asks, and a follower serves in its place. Returns when every balancer knows."""
        hooks, draining = self._tree.fileset.hooks.reload, self._runtime.draining
        is_by_hand = self._tree.fileset.publish == "manual"
        if is_by_hand or not is_any_meant(hooks, paths) or not draining.probers():
            return
        if draining.get(self._key) is None and not await self._is_replaced():
            self._note(
                "not_drained", "stays in its balancers while changes go live: no follower serves in its place"
            )
            return
        if draining.begin(self._key, f"changes of {self._tree.name} are going live"):
            self._note("drained", f"is drained: changes of {self._tree.name} are going live")
        draining.linger_ms = self._runtime.settings.drain_linger_ms
        self._name_untold("is drained", await draining.told_out(TOLD_WITHIN_S))

    async def give_back(self) -> None:
        """Offer this node again, where it was drained, and wait until every balancer knows."""
        if self.end():
            self._name_untold("is back", await self._runtime.draining.told_in(TOLD_WITHIN_S))

    def end(self) -> bool:
        """Offer this node again; whether it was drained for changes."""
        was_drained = self._runtime.draining.end(self._key)
        if was_drained:
            self._note("undrained", f"is not drained any more for changes of {self._tree.name}")
        return was_drained

    async def _is_replaced(self) -> bool:
        """Wait until a connected follower serves the head and is in its balancers; false when there is none."""
        try:
            async with asyncio.timeout(OTHERS_WITHIN_S):
                while self._net.connected(self._tree.line) and not self._serving():
                    await self._runtime.changed.wait()
        except TimeoutError:
            return False
        return bool(self._serving())

    def _serving(self) -> list[str]:
        head = self._head()
        reports = reports_of(self._runtime.store, self._tree.line)
        return [
            name
            for name in self._net.connected(self._tree.line)
            if (told := reports.get(name)) is not None
            and head is not None
            and told.live == head
            and not (told.is_drained or told.drain_reason)
        ]

    def _name_untold(self, state: str, untold: Collection[str]) -> None:
        if untold:
            named = ", ".join(untold)
            self._note("untold", f"{state} for changes, but these did not ask in time: {named}")

    def _note(self, what: str, text: str) -> None:
        self._runtime.note(what, f"{self._runtime.name} {text}", self._tree.line)
