"""Whether this node is read-only: it publishes, takes and offers no edits until an operator ends that.

It goes on following and serving, and restarts change nothing. Belongs to the thread of the event loop.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from instep.core.vocabulary import Trouble, error_of
from instep.errors import Retry
from instep.model.ids import NodeName
from instep.net.trust.validity import minute_at
from instep.node.runtime.driver import wall_ms
from instep.store.port import NodeStore

READ_ONLY = "read_only"
"""Key in the store, and the code of each refusal."""
REASON_MAX = 500
ENDING = "instep readonly off"


class ReadOnlySince(msgspec.Struct, frozen=True):
    """``by`` is the person that began it."""

    since_ms: int
    by: str
    reason: str = ""

    def words(self, node: NodeName) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"{node} is read-only since {minute_at(self.since_ms)}, by {self.by or 'an operator'}{why}"


def read_only_in(store: NodeStore) -> ReadOnlySince | None:
    """As the state of a node says."""
    raw = store.get(READ_ONLY)
    return msgspec.msgpack.decode(raw, type=ReadOnlySince) if raw is not None else None


class ReadOnly:
    """One per node; each change wakes the daemon."""

    def __init__(
        self, store: Callable[[], NodeStore], tell: Callable[[], None], name: Callable[[], NodeName]
    ) -> None:
        self._store, self._tell, self._name = store, tell, name
        self.now = read_only_in(store())
        """None where the node takes edits."""

    def begin(self, by: str, reason: str) -> bool:
        """On disk when it returns; whether that changed anything. A new reason keeps the beginning."""
        before, reason = self.now, reason[:REASON_MAX]
        if before is not None and reason in ("", before.reason):
            return False
        since_ms = wall_ms() if before is None else before.since_ms
        self._keep(ReadOnlySince(since_ms, by, reason))
        return True

    def end(self) -> bool:
        """Whether that changed anything."""
        if self.now is None:
            return False
        self._keep(None)
        return True

    def _keep(self, now: ReadOnlySince | None) -> None:
        if now is None:
            self._store().delete(READ_ONLY)
        else:
            self._store().put(READ_ONLY, msgspec.msgpack.encode(now))
        self.now = now
        self._tell()

    def trouble(self, asker: NodeName | None = None) -> Trouble | None:
        """Why an edit of ``asker``, or one of this node itself, is not taken; None where it is."""
        if self.now is None:
            return None
        name = self._name()
        ending = ENDING if asker in (None, name) else f"on {name}: {ENDING}"
        return Trouble(READ_ONLY, self.now.words(name), Retry.LATER, 4, ending)

    def require_off(self, asker: NodeName | None = None) -> None:
        """``RefusedError`` ``read_only`` with the reason, to be retried."""
        trouble = self.trouble(asker)
        if trouble is not None:
            error = error_of(trouble)
            error.retry = Retry.LATER
            raise error
