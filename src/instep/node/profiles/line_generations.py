"""Whether a generation is one of a line that is written here: also of one that another node wrote before."""

from __future__ import annotations

from instep.model.ids import Digest, LineId
from instep.store.port import NodeStore


def has_generation(store: NodeStore, line: LineId, generation: Digest) -> bool:
    """Every later epoch must go on from it, or from a newer one. A record that is kept here no more proves nothing:
    the answer is no then."""
    signed = store.generation(generation)
    if signed is None or signed.body().line != line:
        return False
    position = signed.ref().position
    for each in store.epochs(line):
        body = each.body()
        if body.epoch > position[0]:
            base = store.generation(body.base)
            if base is None or base.ref().position < position:
                return False
    return True
