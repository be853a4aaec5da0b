"""The homes whose lines are kept here: across restarts once a head of the line was verified, until then while it is
offered. So no partner takes the places of others by naming homes that do not exist."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from instep.model.ids import FilesetName, LineId, NodeName
from instep.node.lines.line_net import LineNet
from instep.node.lines.line_service import LineService
from instep.node.lines.saved_facts import keep_facts
from instep.node.runtime.runtime import Runtime

LINES_MAX = 256
"""So many lines of other homes a fileset can have."""
UNPROVEN_MAX = 64
"""So many of the lines that one partner offers are kept without a verified head."""


class Origins:
    """Those of one fileset, in the state of this node."""

    def __init__(self, runtime: Runtime, fileset: FilesetName, net: LineNet) -> None:
        self._runtime = runtime
        self._fileset = fileset
        self._net = net
        self._key = f"kept/{fileset}"
        self._proven = set(self.known())
        self._named: set[NodeName] = set()

    def known(self) -> list[NodeName]:
        """The homes of which a head was verified."""
        store = self._runtime.store
        raw = store.get(self._key)
        saved = [] if raw is None else msgspec.msgpack.decode(raw, type=list[NodeName])
        return [each for each in saved if keep_facts(store, LineId(self._fileset, each)).head is not None]

    def named(self, origin: NodeName) -> bool:
        """The state or the tree names this home, which needs no offer then; whether there is room for it."""
        if len(self._named) < LINES_MAX:
            self._named.add(origin)
        return origin in self._named

    def proved(self, origin: NodeName) -> bool:
        """A head of this home is verified; whether it is the first one."""
        if origin in self._proven:
            return False
        self._proven.add(origin)
        known = [each for each in self.known() if each != origin]
        self._runtime.store.put(self._key, msgspec.msgpack.encode([*known, origin]))
        return True

    def has_room(self, origin: NodeName, kept: Collection[LineService]) -> bool:
        """Whether the line of another home may be kept beside these."""
        unproven = [line.line for line in kept if line.head is None]
        if len(kept) - len(unproven) >= LINES_MAX:
            return False
        offered = [self._net.offerers(line) for line in unproven]
        return any(
            sum(source in sources for sources in offered) < UNPROVEN_MAX
            for source in self._net.offerers(LineId(self._fileset, origin))
        )

    def is_over(self, line: LineService) -> bool:
        """Whether nothing is left of a line: no head of it was verified, nothing here names it, and no partner offers
        it any more."""
        return line.head is None and line.line.origin not in self._named and not self._net.offerers(line.line)
