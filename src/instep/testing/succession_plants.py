"""Planted bugs of the change of writer: each breaks one rule, and the simulator must find it."""

from __future__ import annotations

from instep.core import follow_vocabulary as f
from instep.core import publish_vocabulary as p
from instep.core.accept import EpochBook
from instep.core.follow import FollowMachine
from instep.core.publish import PublishMachine
from instep.core.vocabulary import Trouble
from instep.errors import PeerError
from instep.model.generation import SignedEpoch

__all__ = ["FOLLOWER_PLANTS", "SUCCESSION_PLANTS", "WRITER_PLANTS"]


class _PublishesBelowTheBase(PublishMachine):
    """Believes that a record which names it is all that a writer needs."""

    def _not_the_writer(self) -> Trouble | None:
        trouble = super()._not_the_writer()
        return None if trouble is not None and trouble.code == "base_missing" else trouble


class _FirstClaimWins(FollowMachine):
    """Takes the first record of an epoch and does not look at a second."""

    def _epoch_seen(self, event: f.EpochSeen) -> None:
        if not _is_second(event.signed, self._facts.epochs):
            super()._epoch_seen(event)


class _FirstClaimWinsHere(PublishMachine):
    def _epoch_seen(self, event: p.EpochSeen) -> None:
        if not _is_second(event.signed, self._facts.epochs):
            super()._epoch_seen(event)


def _is_second(record: SignedEpoch, book: EpochBook) -> bool:
    try:
        return book.current is not None and record.body().epoch == book.current.epoch
    except PeerError:
        return False


WRITER_PLANTS: dict[str, type[PublishMachine]] = {
    "publishes_below_base": _PublishesBelowTheBase,
    "first_claim_wins": _FirstClaimWinsHere,
}
FOLLOWER_PLANTS: dict[str, type[FollowMachine]] = {"first_claim_wins": _FirstClaimWins}
SUCCESSION_PLANTS = ("gives_what_target_has", "stale_file_counts", *WRITER_PLANTS)
"""Rules of the change of writer that are broken on purpose, by name; the first two in the simulated operator and
driver."""
