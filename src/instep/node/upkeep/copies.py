"""The look at copies wanted: what nodes report of a line that is written here, against the rules of its fileset.

It runs by itself once a poll interval, and when ``check`` asks. It moves nothing.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence

from instep.api.parts import (
    CopiesDocument,
    DocumentCopiesDocument,
    NodeCopiesDocument,
    PathCopiesDocument,
    UnknownCopiesDocument,
)
from instep.core.copies import NO_PAGES, NO_WORD, CopiesStand, Covers, NodeCount, NodeWord, holders, judge
from instep.model.counts import counted, which
from instep.model.definition import Definition
from instep.model.ids import Digest, FilesetName, HeadRef, NodeName
from instep.model.manifest.manifest import lookup
from instep.model.paths import path_fields, shown
from instep.model.replication.copies import CopiesRule
from instep.model.standing import Standing
from instep.net.messages.messages import Report
from instep.node.lines.line_service import LineService
from instep.node.node import Node
from instep.node.peers.network.partner_rows import rows_of_topology
from instep.node.trees.keeping.page_walk import must_have
from instep.tree.scan.rules import Rules

_DOUBTFUL = frozenset(
    {Standing.UNKNOWN, Standing.UNREACHABLE, Standing.DRIFTED, Standing.FAILING, Standing.DAMAGED}
)
"""Standings in which a tree is not, or need not be, what its node reported as live."""


class CopiesWatch:
    """The stands of all rules. ``copies_short`` is noted when two looks in a row find a rule not kept."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.stands: dict[FilesetName, tuple[CopiesDocument, ...]] = {}
        self._settled: dict[FilesetName, Digest] = {}
        """The head at the last look: what came since then is on its way."""
        self._lasting: dict[FilesetName, int] = {}
        """How many looks in a row found a rule not kept."""

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._node.runtime.settings.poll_ms / 1000)
            for service in list(self._node.services.values()):
                await self._look(service)

    async def _look(self, service: LineService) -> None:
        name = service.fileset.name
        found = await self.look(service)
        if not found:
            self.stands.pop(name, None)
            self._lasting.pop(name, None)
            return
        self.stands[name] = found
        if service.head is not None:
            self._settled[name] = service.head.root
        trouble = [text for each in found for text in each.trouble if not each.kept]
        before = self._lasting.get(name, 0)
        self._lasting[name] = before + 1 if trouble else 0
        if trouble and before == 1:
            self._node.runtime.note("copies_short", "; ".join(trouble), service.line)
        elif not trouble and before > 1:
            self._node.runtime.note("copies_kept", f"all copies wanted of {name} are there", service.line)

    async def look(self, service: LineService) -> tuple[CopiesDocument, ...]:
        """How the rules of a fileset are kept now; nothing where none is written here or nothing is published."""
        head, rules = service.head, service.fileset.copies
        if head is None or not rules or not service.fileset.is_written_here:
            return ()
        words = self.words(service)
        settled = self._settled.get(service.fileset.name, head.root)
        get = must_have(self._node.runtime.store.get_page)

        def judged() -> list[CopiesStand]:
            return [
                judge(rule, covers(rule), head.root, settled, self._with_strangers(rule, words), get)
                for rule in rules
            ]

        try:
            stands = await asyncio.to_thread(judged)
        except KeyError:  # a home that came back from an older copy fetches the manifest of its head
            return tuple(_not_known(service, rule, head) for rule in rules)
        return tuple(_document(service, stand, words) for stand in stands)

    def of_path(self, service: LineService, path: bytes) -> tuple[PathCopiesDocument, ...]:
        """Which nodes have one document of the head, by each rule that names it."""
        head, found = service.head, []
        if head is None or not service.fileset.copies or not service.fileset.is_written_here:
            return ()
        get, known = must_have(self._node.runtime.store.get_page), self.words(service)
        for rule in service.fileset.copies:
            entry = lookup(head.root, path, get) if covers(rule)(path) else None
            if entry is None:
                continue
            words = self._with_strangers(rule, known)
            there = holders(path, entry, words, get)
            doubts = {word.node: word.doubt for word in words}
            having = [node for node, has in there.items() if has]
            found.append(
                PathCopiesDocument(
                    rule.paths,
                    rule.wanted,
                    at=tuple(node for node in having if node not in rule.block),
                    lacking=tuple(node for node, has in there.items() if has is False),
                    blocked=tuple(node for node in having if node in rule.block),
                    unknown=tuple(
                        UnknownCopiesDocument(node, doubts[node] or "its manifest is not kept here")
                        for node, has in there.items()
                        if has is None
                    ),
                )
            )
        return tuple(found)

    def words(self, service: LineService) -> list[NodeWord]:
        """The last word of each node that may have the line from here, or over a hub that may. Only manifests of the
        line's generations are read: a peer could name pages of its own that take for ever."""
        peers, reports = self._node.peers, service.reports()
        known = {each.body().root for each in self._node.runtime.store.generations(service.line, 1_000_000)}
        names = {*peers.access.current(service, reports)}
        names |= {
            name
            for name in self._node.runtime.settings.partners
            if peers.access.why_not(name, service) is None
        }
        words = (self._word(service, name, reports.get(name)) for name in sorted(names))
        return [
            word
            if word.root is None or word.root in known
            else NodeWord(word.node, None, word.doubt or NO_PAGES)
            for word in words
        ]

    def _word(self, service: LineService, name: NodeName, report: Report | None) -> NodeWord:
        if report is None:
            return NodeWord(name, None, NO_WORD)
        root = Digest(report.attested_root) if report.attested_root else None
        way, standing = NodeName(report.via or name), report.standing.standing
        doubt = None
        if way not in self._node.peers.sessions:
            doubt = f"{way} is not connected"
        elif not self._node.peers.has_reported(service.line, name):
            doubt = "it has not reported since this node started"
        elif standing in _DOUBTFUL:
            doubt = f"it stands {standing.value}"
        elif root is None:
            doubt = f"it stands {standing.value}, and does not say that its tree is whole"
        return NodeWord(name, root, doubt)

    def _with_strangers(self, rule: CopiesRule, words: Sequence[NodeWord]) -> list[NodeWord]:
        """The words, and of each other node that the rule names why there is none."""
        known, runtime = {word.node for word in words}, self._node.runtime
        rows = rows_of_topology(runtime.settings, self._node.membership.members)
        return [
            *words,
            *(
                NodeWord(
                    name, None, NO_WORD if name in rows else "no partner list that is known here names it"
                )
                for name in (*rule.prefer, *rule.block)
                if name not in known
            ),
        ]


def covers(rule: CopiesRule) -> Covers:
    """The patterns of a rule, as those of ``ignore`` are read."""
    rules = Rules(Definition(ignore=rule.paths))
    return lambda path: rules.ignored(path, is_dir=False)


def _document(service: LineService, stand: CopiesStand, words: Sequence[NodeWord]) -> CopiesDocument:
    rule = stand.rule
    return CopiesDocument(
        rule.paths,
        rule.wanted,
        stand.is_well,
        stand.documents,
        stand.short,
        stand.doubtful,
        tuple(DocumentCopiesDocument(copies=copies, **path_fields(path)) for path, copies in stand.samples),
        tuple(UnknownCopiesDocument(node, why) for node, why in stand.unknown),
        tuple(_of_node(each) for each in stand.missing),
        tuple(_of_node(each) for each in stand.blocked),
        tuple(_troubles(stand, words)),
        () if stand.is_well else tuple(_steps(service.fileset.name, stand)),
    )


def _not_known(service: LineService, rule: CopiesRule, head: HeadRef) -> CopiesDocument:
    name = service.fileset.name
    why = f"which documents of {rule} there are is not known: the manifest of generation {head.number} is not here yet"
    return CopiesDocument(
        rule.paths,
        rule.wanted,
        False,
        0,
        0,
        0,
        (),
        (),
        (),
        (),
        (why,),
        (f"instep status {name}", "instep check"),
    )


def _of_node(count: NodeCount) -> NodeCopiesDocument:
    return NodeCopiesDocument(node=count.node, documents=count.documents, **path_fields(count.example or b""))


def _troubles(stand: CopiesStand, words: Sequence[NodeWord]) -> list[str]:
    rule, said = stand.rule, []
    wanted = "the copy" if rule.wanted == 1 else f"the {rule.wanted} copies"
    if stand.short:
        has = which(stand.short, "has", "have")
        said.append(f"{_documents(stand.short, rule)} {has} not {wanted} wanted{_such(stand)}")
    if stand.doubtful:
        has = which(stand.doubtful, "has", "have")
        said.append(
            f"whether {_documents(stand.doubtful, rule)} {has} {wanted} wanted is not known{_such(stand)}"
        )
    possible = sum(word.node not in rule.block for word in words)
    if (stand.short or stand.doubtful) and possible < rule.wanted:
        said.append(f"{counted(possible, 'node')} may have this fileset, and {rule.wanted} would be needed")
    said += (f"{each.node}, which is preferred, lacks {_some(each, rule)}" for each in stand.missing)
    said += (f"{each.node}, which is blocked, has {_some(each, rule)}" for each in stand.blocked)
    if stand.short or stand.doubtful or stand.preferred_unknown:
        said += (
            f"what {node} has is not known: {why}" for node, why in stand.unknown if node not in rule.block
        )
    return said


def _documents(number: int, rule: CopiesRule) -> str:
    return f"{counted(number, 'document')} of {rule}"


def _such(stand: CopiesStand) -> str:
    path, copies = stand.samples[0]
    return f", such as {shown(path)} with {copies}"


def _some(count: NodeCount, rule: CopiesRule) -> str:
    return f"{_documents(count.documents, rule)}, such as {shown(count.example or b'')}"


def _steps(name: FilesetName, stand: CopiesStand) -> list[str]:
    examples = [path for path, _ in stand.samples]
    examples += (each.example for each in (*stand.missing, *stand.blocked) if each.example is not None)
    steps = [f"instep explain {name} {shlex.quote(shown(path))}" for path in examples[:1]]
    return [*steps, "instep check"]
