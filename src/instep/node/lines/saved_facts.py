"""The saved facts of a line's machine, with the role they were saved in: a change of writer converts it, knowingly.

The store keeps ``[role, facts]``. State of older versions (facts alone) begins with its version number and is
recognised by its second field: a writer's is a number (its epoch), a follower's is none (its head).
"""

from __future__ import annotations

import msgspec

from instep.core.follow.vocabulary import FollowFacts
from instep.core.keep.vocabulary import KeepFacts
from instep.core.publish.vocabulary import PublishFacts
from instep.core.unite.vocabulary import UniteFacts
from instep.core.writer_change import follows_by_itself, to_follow, to_publish
from instep.errors import DamagedError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import LineId, NodeName
from instep.store.port import NodeStore

LineFacts = FollowFacts | KeepFacts | PublishFacts
"""In every role; those of a union are a follower's."""

FOLLOW = "follow"
KEEP = "keep"
PUBLISH = "publish"
UNITE = "unite"
_TYPES: dict[str, type[LineFacts]] = {
    FOLLOW: FollowFacts,
    KEEP: KeepFacts,
    PUBLISH: PublishFacts,
    UNITE: UniteFacts,
}


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    role: str
    facts: msgspec.Raw


def pending_key(line: LineId) -> str:
    """Where the store notes that an accepted epoch record waits for this node's ``instep.toml``."""
    return f"writer_change/{line}"


def note_change(store: NodeStore, line: LineId, configured: NodeName, old: LineFacts, new: LineFacts) -> None:
    """Note a change of writer, in the same transaction as the facts that hold its record.

    The first record that a node receives of a line is no change when it names the ``configured`` writer: a node
    behind a hub goes on asking the hub. A writer that was replaced without its newest generation keeps its file: an
    operator decides about it."""
    current = new.epochs.current
    if new.epochs == old.epochs or current is None:
        return
    if old.epochs.current is None and current.writer == configured:
        return
    if isinstance(new, PublishFacts) and not follows_by_itself(new, new.epochs):
        return
    store.put(pending_key(line), current.id)


def save_facts(store: NodeStore, line: LineId, facts: LineFacts, *, durable: bool = True) -> None:
    """Keep the facts of a line under the role that they are of."""
    role = next(role for role, kind in _TYPES.items() if type(facts) is kind)
    saved = _Saved(role, msgspec.Raw(msgspec.msgpack.encode(facts)))
    store.save_line(line, msgspec.msgpack.encode(saved), durable=durable)


def load_facts(store: NodeStore, line: LineId) -> LineFacts | None:
    """The facts that were saved last, in either role; None for a line without saved facts."""
    raw = store.load_line(line)
    if raw is None:
        return None
    try:
        return _decoded(line, raw)
    except DECODE_ERRORS as error:
        raise DamagedError(
            f"the saved state of {line} cannot be read: {error}",
            hint="stop the node, move state/node.db in its directory away and start it: its state is rebuilt from the "
            "tree and the partners",
            code="line_state_damaged",
        ) from error


def _decoded(line: LineId, raw: bytes) -> LineFacts:
    fields = msgspec.msgpack.decode(raw, type=list[msgspec.Raw])
    role = msgspec.msgpack.decode(fields[0])
    if isinstance(role, int):
        is_writers = isinstance(msgspec.msgpack.decode(fields[1]), int)
        role, facts = (PUBLISH if is_writers else FOLLOW), raw
    else:
        facts = bytes(fields[1])
    if role in _TYPES:
        return msgspec.msgpack.decode(facts, type=_TYPES[role])
    raise DamagedError(f"the saved state of {line} is of role {role!r}", code="unknown_role")


def publish_facts(store: NodeStore, line: LineId) -> PublishFacts:
    """The facts to write the line with; the facts of a follower that became its writer are converted and kept."""
    found = load_facts(store, line)
    if isinstance(found, FollowFacts):
        found = to_publish(found)
        save_facts(store, line, found)
    return found if isinstance(found, PublishFacts) else PublishFacts()


def follow_facts(store: NodeStore, line: LineId) -> FollowFacts:
    """The facts to follow the line with; the facts of a writer that was replaced are converted and kept."""
    found = load_facts(store, line)
    if isinstance(found, PublishFacts):
        found = to_follow(found)
        save_facts(store, line, found)
    return found if isinstance(found, FollowFacts) else FollowFacts()


def keep_facts(store: NodeStore, line: LineId) -> KeepFacts:
    """The facts to keep another home's line with."""
    found = load_facts(store, line)
    return found if isinstance(found, KeepFacts) else KeepFacts()


def unite_facts(store: NodeStore, line: LineId) -> UniteFacts:
    """The facts of the union of a fileset's lines."""
    found = load_facts(store, line)
    return found if isinstance(found, UniteFacts) else UniteFacts()
