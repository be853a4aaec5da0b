"""How many nodes have each document of a line, by the manifest roots that they report, against the copies wanted.

Implements the section "Copies wanted" of ``docs/spec/replication.md``. A node counts only while its word does: of any
other node the copies are not known, and an unknown copy is never enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from instep.errors import PeerError
from instep.model.ids import Digest, NodeName
from instep.model.manifest.entry import Entry, Kind, has_same_contents
from instep.model.manifest.manifest import GetPage, diff, iterate, lookup
from instep.model.replication.copies import CopiesRule

SAMPLE_MAX = 10
NO_WORD = "it never reported this line"
NO_PAGES = "the manifest that it reported is not kept here"

Covers = Callable[[bytes], bool]
"""Whether a rule's patterns name this path."""


@dataclass(frozen=True, slots=True)
class NodeWord:
    """The manifest of the line that a node last reported as its tree's; ``doubt`` is why that word does not count."""

    node: NodeName
    root: Digest | None
    doubt: str | None = None


@dataclass(slots=True)
class NodeCount:
    """Documents of one kind at one node."""

    node: NodeName
    documents: int = 0
    example: bytes | None = None

    def add(self, path: bytes) -> None:
        self.documents += 1
        if self.example is None:
            self.example = path


@dataclass(slots=True)
class CopiesStand:
    """How one rule is kept. ``short`` documents have too few copies whatever the unknown nodes have, ``doubtful`` ones
    may have enough there. ``samples`` are the first of both, each with its copies."""

    rule: CopiesRule
    documents: int = 0
    short: int = 0
    doubtful: int = 0
    samples: list[tuple[bytes, int]] = field(default_factory=list)
    unknown: list[tuple[NodeName, str]] = field(default_factory=list)
    """Nodes whose word does not count, and why."""
    missing: list[NodeCount] = field(default_factory=list)
    """Preferred nodes without some of the documents."""
    blocked: list[NodeCount] = field(default_factory=list)
    """Blocked nodes with some of the documents, by their last word, however old."""

    @property
    def preferred_unknown(self) -> list[NodeName]:
        return [node for node, _ in self.unknown if node in self.rule.prefer]

    @property
    def is_well(self) -> bool:
        """Whether it is known that the rule is kept."""
        return not (self.short or self.doubtful or self.missing or self.blocked or self.preferred_unknown)


def judge(
    rule: CopiesRule,
    covers: Covers,
    head: Digest,
    settled: Digest,
    words: Sequence[NodeWord],
    get: GetPage,
) -> CopiesStand:
    """Compare the manifest ``head`` with those that nodes reported. A document that changed since ``settled``, an
    earlier head, is on its way: it is neither short nor missing yet.

    Reads each manifest once and holds one document at a time. ``get`` raises ``KeyError`` for a page that is not here;
    so does this for a page of ``head``.
    """
    named = {word.node for word in words}
    words = [
        *words,
        *(NodeWord(node, None, NO_WORD) for node in (*rule.prefer, *rule.block) if node not in named),
    ]
    unread: set[Digest] = set()
    while True:
        try:
            return _judged(rule, covers, head, settled, [_without(word, unread) for word in words], get)
        except _Unread as error:
            if error.root == settled:
                settled = head
            else:
                unread.add(error.root)


def holders(
    path: bytes, entry: Entry, words: Iterable[NodeWord], get: GetPage
) -> Mapping[NodeName, bool | None]:
    """Which nodes have this document; None where that is not known."""
    found: dict[NodeName, bool | None] = {}
    for word in words:
        found[word.node] = None
        if word.root is not None and word.doubt is None:
            try:
                there = lookup(word.root, path, get)
            except (KeyError, PeerError):
                continue
            found[word.node] = there is not None and has_same_contents(entry, there)
    return found


class _Unread(Exception):
    """A page of this manifest is not here, or is none that can be read: a peer named it."""

    def __init__(self, root: Digest) -> None:
        super().__init__(root)
        self.root = root


def _without(word: NodeWord, unread: set[Digest]) -> NodeWord:
    return word if word.root not in unread else NodeWord(word.node, None, word.doubt or NO_PAGES)


class _Differing:
    """The paths of ``head`` with other contents in ``other``, asked for in the order of the manifest."""

    def __init__(self, head: Digest, other: Digest, get: GetPage) -> None:
        self._other = other
        self._changes = self._paths(head, get)
        self._next = next(self._changes, None)

    def _paths(self, head: Digest, get: GetPage) -> Iterator[bytes]:
        try:
            for change in diff(head, self._other, get):
                if change.old is not None and not (change.new and has_same_contents(change.old, change.new)):
                    yield change.path
        except (KeyError, PeerError):
            raise _Unread(self._other) from None

    def has(self, path: bytes) -> bool:
        if self._next != path:
            return False
        self._next = next(self._changes, None)
        return True


def _judged(
    rule: CopiesRule, covers: Covers, head: Digest, settled: Digest, words: Sequence[NodeWord], get: GetPage
) -> CopiesStand:
    stand = CopiesStand(rule)
    stand.unknown = [(word.node, word.doubt) for word in words if word.doubt is not None]
    doubted = {node for node, _ in stand.unknown} - set(rule.block)
    sides = {word.root: _Differing(head, word.root, get) for word in words if word.root is not None}
    young = _Differing(head, settled, get)
    counted = [(word.root, word.node) for word in words if word.doubt is None and word.node not in rule.block]
    missing = {node: NodeCount(node) for node in rule.prefer}
    blocked = {node: NodeCount(node) for node in rule.block}
    for entry in iterate(head, get):
        path = entry.path
        lacking = {root for root, side in sides.items() if side.has(path)}
        is_young = young.has(path)
        if entry.kind is Kind.DIR or not covers(path):
            continue
        stand.documents += 1
        for word in words:
            if word.node in blocked and word.root is not None and word.root not in lacking:
                blocked[word.node].add(path)
        if is_young:
            continue
        copies = 0
        for root, node in counted:
            if root not in lacking:
                copies += 1
            elif node in missing:
                missing[node].add(path)
        if copies >= rule.wanted:
            continue
        if copies + len(doubted) >= rule.wanted:
            stand.doubtful += 1
        else:
            stand.short += 1
        if len(stand.samples) < SAMPLE_MAX:
            stand.samples.append((path, copies))
    stand.missing = [each for each in missing.values() if each.documents]
    stand.blocked = [each for each in blocked.values() if each.documents]
    return stand
