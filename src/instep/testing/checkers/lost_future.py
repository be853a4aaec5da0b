"""Generations that a writer lost with its older state: no partner leaves one of them for another branch unasked."""

from __future__ import annotations

from collections.abc import Mapping

from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, HeadRef
from instep.testing.world.world import BrokenPromise


class LostFuture:
    """The generations that were published after the state that the writer came back with, until an operator says
    which is right."""

    def __init__(self) -> None:
        self._lost: dict[Digest, None] = {}
        self._decided: dict[Digest, None] = {}
        """Generations that an operator went past: a partner may leave them whenever it hears of that."""

    def came_back(self, committed: Mapping[Digest, SignedGeneration], kept: Mapping[Digest, object]) -> None:
        """The writer's state is an older one: of everything that was ever ``committed`` it ``kept`` these."""
        gone = (id_ for id_ in committed if id_ not in kept and id_ not in self._decided)
        self._lost.update(dict.fromkeys(gone))

    def decided(self) -> None:
        """An operator said which is right, or the tree is the newest generation again."""
        self._decided |= self._lost
        self._lost.clear()

    def leaves(
        self,
        partner: str,
        committed: Mapping[Digest, SignedGeneration],
        old: HeadRef | None,
        new: HeadRef | None,
    ) -> None:
        """A partner that follows the writer itself has a newer head: it descends from the old one when that is of the
        lost future. A partner behind a hub is left out: a hub does not know what its writer's head descends from."""
        if old is None or new is None or old == new or old.id not in self._lost:
            return
        if new.id in self._lost or new.id in self._decided:
            return  # Of two lost futures the writer adopts the higher one, and asks before it publishes.
        signed = committed.get(new.id)
        while signed is not None and signed.ref().position > old.position:
            signed = committed.get(signed.body().parent)
        if signed is not None and signed.id != old.id:
            raise BrokenPromise(
                "P10",
                f"{partner} goes from generation {old.number}, which the writer lost, to {new.number} of another "
                "branch, and no operator said so",
            )
