"""Partners whose node directory comes back from an older copy, while their tree stays what it is."""

from __future__ import annotations

from random import Random
from typing import Any

from instep.testing.partners.partner import SimPartner


class OldStates:
    """Copies of partners' states, and an operator who restores them."""

    def __init__(self, partners: list[SimPartner], rng: Random) -> None:
        self._partners = partners
        self._rng = rng
        self._copies: dict[str, list[tuple[Any, ...]]] = {}

    def restore_one(self) -> None:
        partner = self._rng.choice(self._partners)
        copies = self._copies.setdefault(partner.name, [])
        if copies:
            _restore(partner, self._rng.choice(copies))
        copies.append(partner.store.backup())


def _restore(partner: SimPartner, copy: tuple[Any, ...]) -> None:
    """Not together with a disk that came back file by file: the doubt about it is recorded only in the present
    state."""
    place = partner.place
    if partner.is_unproven or place.is_copied:
        return
    partner.crash("its state is an older copy")
    journal = place.journal
    is_switched = journal is not None and journal.is_finished
    partner.ledger.restored(
        partner.name, journal.target if journal is not None and is_switched else place.holds
    )
    partner.store.restore(copy)
