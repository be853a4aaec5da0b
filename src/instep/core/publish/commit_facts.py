"""The saved facts of a writer around a commit: no ``Save`` takes back what a ``Commit`` made durable.

The generation and the facts that name it become durable in one transaction. The machine learns of it later, and the
facts that it saves in between still say *before the commit*. A crash at that moment would lose the head, and with it
the base that the next generation is judged by (P10).
"""

from __future__ import annotations

import msgspec

from instep.core.publish.vocabulary import PublishFacts
from instep.model.ids import HeadRef


def committed(facts: PublishFacts, head: HeadRef) -> PublishFacts:
    """These facts once ``head`` is committed. It goes past the twins that are known, for an operator said so."""
    decided = head.position if facts.twins else facts.descends_from
    return msgspec.structs.replace(
        facts, head=head, base=head, is_adopted=False, twins=(), descends_from=decided
    )


class LastCommit:
    """The newest commit of one line, for the code that performs ``Save`` and ``Commit``."""

    def __init__(self) -> None:
        self._parent: HeadRef | None = None
        self._head: HeadRef | None = None

    def is_durable(self, parent: HeadRef | None, head: HeadRef) -> None:
        """``head`` was stored above ``parent``; the machine gets the event later."""
        self._parent, self._head = parent, head

    def saved(self, facts: PublishFacts) -> PublishFacts:
        """The facts that a ``Save`` of ``facts`` has to keep: with the committed head while the machine does not know
        it."""
        if self._head is None or facts.head != self._parent:
            return facts
        return committed(facts, self._head)
