"""Planted bugs of the change of writer: each breaks one rule, and the simulator must find it."""

from __future__ import annotations

from instep.core.follow import vocabulary as f
from instep.core.follow.machine import FollowMachine
from instep.core.lines.accept import EpochBook
from instep.core.publish import vocabulary as p
from instep.core.publish.machine import PublishMachine
from instep.errors import PeerError
from instep.model.generation import SignedEpoch


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
    "first_claim_wins": _FirstClaimWinsHere,
}
FOLLOWER_PLANTS: dict[str, type[FollowMachine]] = {"first_claim_wins": _FirstClaimWins}
SUCCESSION_PLANTS = ("gives_what_target_has", "stale_file_counts", *WRITER_PLANTS)
"""Rules of the change of writer that are broken on purpose, by name; the first two in the simulated operator and
driver."""
