"""Partners and the writer's own past: heads and epoch records of the line that partners hold."""

from __future__ import annotations

from instep.core.publish import vocabulary as p
from instep.core.publish.look import PublishLook
from instep.core.publish.state import PublishPhase
from instep.core.vocabulary import Cancel, KeepGeneration, SetTimer, Trouble
from instep.errors import PeerError, Retry
from instep.model.ids import Digest, HeadRef, NodeName

ADOPT_TRIES_MAX = 5
"""So often the pages of an adopted head are asked for."""


class PublishHeads(PublishLook):
    """Asks partners for their heads, adopts newer ones, and takes in the records of the line's writers."""

    def _ask_partners(self) -> None:
        self._asked_at_ms = self._now
        if not self._config.partners:
            self._is_asked = True
            return
        self._ask_req = self._next_req()
        self._ask_until_ms = self._now + self._config.ask_wait_ms
        self._out.append(p.AskPartners(self._ask_req))
        self._out.append(SetTimer("ask", self._ask_until_ms))

    def _partners_answered(self, answered: tuple[NodeName, ...]) -> None:
        if not answered:
            return
        self._is_asked = True
        if not self._facts.was_confirmed:
            self._set(was_confirmed=True)

    def _head_of_ours(self, event: p.HeadOfOursSeen) -> None:
        """A head of this line at a partner: when it is ours and not below what we know, it is our parent."""
        if self._job is not None and self._job.phase is PublishPhase.COMMIT:
            self._heard[event.source] = event  # the number that is being committed may be its own
            return
        try:
            ref = event.signed.ref()
            is_this_line = event.signed.body().line == self.line
        except PeerError as error:
            self._refuse(event.source, error.error_code, error.reason)
            return
        head = self._facts.head
        known = self._facts.twins
        self._set(twins=tuple(twin for twin in known if twin[0] != event.source))
        if not is_this_line:
            self._refuse(
                event.source, "wrong_line", "a generation of another line was offered as one of ours"
            )
        elif not event.verdict.is_valid:
            self._refuse(event.source, event.verdict.code or "bad_signature", event.verdict.reason)
        elif head is not None and ref.position < head.position:
            if event.verdict.signer == self._config.node and self._is_no_ancestor(ref, event.ours):
                self._found_twin(ref, event.source, is_new=(event.source, ref) not in known)
        elif head is not None and ref == head:
            self._holders[event.source] = None
            if not self._facts.has_pages:
                self._pages_from[event.source] = None
        elif event.verdict.signer != self._config.node and not self._is_our_base(ref):
            self._refuse(event.source, "not_ours", f"{event.verdict.signer} signed generation {ref.number}")
        elif head is not None and ref.position == head.position:
            self._found_twin(ref, event.source, is_new=(event.source, ref) not in known)
        else:
            self._adopt(ref, event)

    def _found_twin(self, ref: HeadRef, source: NodeName, *, is_new: bool) -> None:
        """Both bear our signature: this node came back with an older state, and published before it heard of that one.
        It is no parent, for its number is taken here; nothing is published over it unasked."""
        self._set(twins=tuple(sorted((*self._facts.twins, (source, ref)))))
        if not is_new:
            return
        self._unpublished.touch((), self._now, everything=True)
        self._refuse_over()
        text = f"{source} holds another generation {ref.number} of epoch {ref.epoch} that bears our signature"
        self._note("generation_twice", text, source=source, generation=ref.number, id=ref.id.hex())

    def _is_no_ancestor(self, ref: HeadRef, ours: Digest | None) -> bool:
        """Whether the head goes past this older generation of the same epoch, and no operator decided that it does."""
        head = self._facts.head
        assert head is not None
        is_decided = ref.position < self._facts.descends_from
        return not is_decided and ref.epoch == head.epoch and ours is not None and ours != ref.id

    def _take_heard(self) -> None:
        """Judge the heads that partners reported while the commit was under way."""
        heard, self._heard = self._heard, {}
        for event in heard.values():
            self._head_of_ours(event)

    def _is_our_base(self, ref: HeadRef) -> bool:
        """Another writer's generation that our own epoch builds on: part of our past like what we signed."""
        current = self._facts.epochs.current
        return current is not None and current.writer == self._config.node and ref.id == current.base

    def _adopt(self, ref: HeadRef, event: p.HeadOfOursSeen) -> None:
        highest = max(self._facts.highest, ref.number)
        self._out.append(KeepGeneration(event.signed))
        self._set(head=ref, highest=highest, epoch=max(self._facts.epoch, ref.epoch), has_pages=False)
        self._set(is_adopted=True, descends_from=ref.position)
        self._difference = None
        self._holders = {event.source: None}
        self._pages_from = {event.source: None}
        self._backoff.clear("adopt")
        if self._job is not None and self._job.phase in (
            PublishPhase.SCAN,
            PublishPhase.FETCH,
            PublishPhase.PLAN,
        ):
            self._out.append(Cancel(self._job.req))
            self._job = None
        self._unpublished.touch((), self._now, everything=True)
        self._refuse_over()
        self._note(
            "adopted",
            f"{event.source} holds our generation {ref.number} of epoch {ref.epoch}, which is not known "
            "here: it becomes the parent of the next generation",
            source=event.source,
            generation=ref.number,
        )

    def _refuse_over(self) -> None:
        """Refuse requests to publish over a head: the operator who said that the tree is right did not know the
        present head."""
        for request in [r for r in self._requests if isinstance(r, p.PublishAsked) and r.is_over]:
            self._requests.remove(request)
            head = self._facts.head
            moved = Trouble(
                "head_moved",
                f"generation {head.number if head else 0} became known meanwhile",
                Retry.LATER,
                6,
                f"look again: instep diff {self.line.fileset}; then repeat the command",
            )
            self._out.append(p.GiveAnswer(request.request, p.NotPublished(moved)))

    def _give_up_pages(self) -> None:
        """No node has the pages of the adopted head: its name and number are enough to go on above it."""
        self._adopt_tries += 1
        if self._adopt_tries >= ADOPT_TRIES_MAX:
            self._go_on_without_pages()

    def _go_on_without_pages(self) -> None:
        self._adopt_tries = 0
        self._trouble = None
        self._pages_from.clear()
        self._set(has_pages=True)
        self._unpublished.touch((), self._now, everything=True)

    def _epoch_seen(self, event: p.EpochSeen) -> None:
        judged = self._judge_epoch(event, self._config.node)
        if judged is None:
            return
        current = judged.book.current
        if current is not None and current.writer == self._config.node and judged.book.disputed is None:
            self._set(epoch=max(self._facts.epoch, current.epoch))
        self._note("epoch", f"{judged.body.writer} writes epoch {judged.body.epoch}")
