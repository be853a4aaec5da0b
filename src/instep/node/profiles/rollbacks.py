"""The generations of an own line that brought an older one back whole, in the state of its home, for sync runs: a
message of a generation is an operator's, and proves nothing."""

from __future__ import annotations

import msgspec

from instep.model.ids import HeadRef, LineId
from instep.model.sync import ROLLBACKS_KEPT, Rollback
from instep.store.port import NodeStore

_KEY = "rollbacks/"
_OPEN = "rollback/"
"""Where the target is of a restore that no generation has yet."""


def rollbacks_of(store: NodeStore, line: LineId) -> tuple[Rollback, ...]:
    """The newest last."""
    raw = store.get(_key(_KEY, line))
    return msgspec.msgpack.decode(raw, type=tuple[Rollback, ...]) if raw is not None else ()


def open_target(store: NodeStore, line: LineId) -> HeadRef | None:
    """The older generation to which the tree was brought, while no generation has that."""
    raw = store.get(_key(_OPEN, line))
    return msgspec.msgpack.decode(raw, type=HeadRef) if raw is not None else None


def keep_target(store: NodeStore, line: LineId, target: HeadRef | None) -> None:
    """The next generation of the line is a rollback to ``target``, by any publish; None: it is none."""
    if target is None:
        store.delete(_key(_OPEN, line))
    else:
        store.put(_key(_OPEN, line), msgspec.msgpack.encode(target))


def keep_rollback(store: NodeStore, line: LineId, head: HeadRef, target: HeadRef | None) -> None:
    """For the transaction of a commit. ``target``: the older generation that this one brings back."""
    target = target or open_target(store, line)
    if target is not None:
        keep_target(store, line, None)
        new = Rollback(*head.position, *target.position)
        kept = (*rollbacks_of(store, line), new)[-ROLLBACKS_KEPT:]
        store.put(_key(_KEY, line), msgspec.msgpack.encode(kept))


def _key(prefix: str, line: LineId) -> str:
    return f"{prefix}{line.origin}/{line.fileset}"
