"""Whether the approvals of a rollout are enough, by its policy: pure functions of its facts.

A generation lets out the changes of its author, and those of the generations before it without an approval. With
``other_than_author`` each author needs an approval by another person: any other person alone, or two authors together.
"""

from __future__ import annotations

from instep.core.authors import persons_of
from instep.core.rollout.vocabulary import RolloutFacts
from instep.model.rollout import Approval

UNAPPROVED_MAX = 64
"""Persons of earlier generations that are recorded. Beyond one of them the rule is the same: two persons approve."""


def unapproved(facts: RolloutFacts) -> tuple[str, ...]:
    """The persons whose changes are without an approval when a newer generation comes."""
    if facts.policy.approve is Approval.OFF or facts.approved_by:
        return ()
    return tuple(sorted({*persons_of(facts.author), *facts.unapproved}))[:UNAPPROVED_MAX]


def authors_of(facts: RolloutFacts) -> frozenset[str]:
    """The persons whose changes an approval lets out."""
    return persons_of(facts.author).union(facts.unapproved)


def is_enough(facts: RolloutFacts, approvals: tuple[str, ...]) -> bool:
    """Whether these callers (``ana``, ``ana by token deploy``) may let the partners have it."""
    if facts.policy.approve is not Approval.OTHER_THAN_AUTHOR:
        return bool(approvals)
    approving = frozenset[str]().union(*map(persons_of, approvals))
    return all(approving - {author} for author in authors_of(facts))


def is_own(facts: RolloutFacts, person: str) -> bool:
    """Whether a person made all of it alone, so that the person's word says nothing."""
    is_to_differ = facts.policy.approve is Approval.OTHER_THAN_AUTHOR
    authors = authors_of(facts)
    return is_to_differ and bool(authors) and authors <= persons_of(person)
