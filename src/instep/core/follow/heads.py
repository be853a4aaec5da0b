"""Heads of a followed line: a new one wins over what is left of the one before."""

from __future__ import annotations

from instep.core.follow import vocabulary as f
from instep.core.follow.state import FollowJob, FollowPhase, FollowState, named
from instep.core.vocabulary import SetTimer, Trouble
from instep.errors import Retry
from instep.model.ids import HeadRef

SUPERSEDED_TOLD = 3
"""After so many failures in a row *superseded* is shown as trouble; once or twice it is everyday life."""


class FollowHeads(FollowState):
    """What a new head ends at a partner, and a source that does not have it any more."""

    def _head_accepted(self, head: HeadRef) -> None:
        facts = self._facts
        # No operator can confirm it any more, and it was no loss of contact.
        if facts.unconfirmed is not None:
            self._set(unconfirmed=None)
            self._out.append(SetTimer("confirm", None))
        job = self._job
        switching_to = job.head if job is not None and job.phase is FollowPhase.SWITCH else None
        if facts.refused is not None and facts.refused not in (facts.tree, switching_to):
            self._forget_refusal()
        self._compared = None
        if self._stuck is not None:
            self._stuck = None
            self._troubles.pop("apply", None)
            self._backoff.clear("apply")

    def _source_moved_on(self, job: FollowJob) -> None:
        self._sticky = None
        assert job.source is not None
        source = self._sources.get(job.source)
        if source is not None:
            source.lost()
            self._penalize(job.source)
            if source.failures >= SUPERSEDED_TOLD:
                reason = f"{job.source} does not have the contents of {named(job.head)} (any more)"
                self._troubles["apply"] = Trouble("superseded", reason, Retry.LATER, 7)
            self._out.append(f.AskHeads(self._next_req(), job.source, is_repeated=True))
