"""Where the contents of each generation are: here, at which partners, or nowhere. For ``log``.

A place is named when it has every content of the generation. Where no single place has all of them, ``parts`` says
which places have them together. Partners that are connected are asked; of one that is away its last report counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from instep.errors import InstepError
from instep.model.ids import Digest, HeadRef, LineId, NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import diff, lookup
from instep.node.lines.line_net import Lender
from instep.node.lines.partner_contents import PartnerContents
from instep.tree.archive.contents import Contents

ENTRIES_MAX = 20_000
"""So many contents are looked for; generations beyond them are judged by reports alone."""
ASK_S = 10.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ContentPlaces:
    """``places`` have all of it, each alone; ``parts`` have all of it together, where none has it alone."""

    places: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


class Whereabouts:
    """One look at the generations of a line. ``found`` is the root of the tree as it lies here, ``lives`` are the
    generations that partners reported live."""

    def __init__(
        self,
        line: LineId,
        found: Digest | None,
        lives: Mapping[NodeName, HeadRef],
        get: Callable[[Digest], bytes],
    ) -> None:
        self._line = line
        self._found = found
        self._lives = lives
        self._get = get
        self._needed: dict[Digest, tuple[Entry, ...] | None] = {}
        self._astray: frozenset[Digest] = frozenset()
        self._held: dict[NodeName, PartnerContents] = {}

    def look_here(self, refs: Sequence[HeadRef], contents: Contents) -> None:
        """The contents that each generation needs besides the tree, and which of them are in history and archive. In
        a thread."""
        every: dict[Digest, Entry] = {}
        for ref in refs:
            needed = self._new_in(self._found, ref.root)
            if needed is not None and len(every) + len(needed) > ENTRIES_MAX:
                needed = None
            self._needed[ref.id] = needed
            for entry in needed or ():
                every.setdefault(entry.digest, entry)
        self._astray = frozenset(entry.digest for entry in contents.missing_of(list(every.values())))

    def _new_in(self, old: Digest | None, new: Digest) -> tuple[Entry, ...] | None:
        """The contents that ``new`` has at paths where ``old`` has others; None when a manifest is not here."""
        try:
            return tuple(
                change.new
                for change in diff(old, new, self._get)
                if change.new is not None
                and change.new.kind is not Kind.DIR
                and (change.old is None or change.old.digest != change.new.digest)
            )
        except KeyError:
            return None

    async def ask(self, refs: Sequence[HeadRef], lenders: Iterable[Lender]) -> None:
        """Ask the partners, all at once."""
        await asyncio.gather(*(self._ask(refs, lender) for lender in lenders))

    async def _ask(self, refs: Sequence[HeadRef], lender: Lender) -> None:
        asked = PartnerContents(self._line, (lender,))
        wants = await asyncio.to_thread(self._wanted_of, refs, lender.who)
        try:
            async with asyncio.timeout(ASK_S):
                await asked.locate(wants)
        except TimeoutError:
            log.info("%s: %s did not say within %.0f s which contents it has", self._line, lender.who, ASK_S)
            return
        except InstepError as error:
            log.info("%s: %s does not say which contents it has: %s", self._line, lender.who, error.reason)
            return
        if not asked.failures:
            self._held[lender.who] = asked

    def _wanted_of(self, refs: Sequence[HeadRef], who: NodeName) -> list[Entry]:
        live = self._lives.get(who)
        wants: dict[Digest, Entry] = {}
        for ref in refs:
            if self._needed.get(ref.id) is None:
                continue
            for entry in (*(self._new_in(live.root if live else None, ref.root) or ()), *self._missing(ref)):
                wants.setdefault(entry.digest, entry)
            if len(wants) > ENTRIES_MAX:
                break
        return list(wants.values())[:ENTRIES_MAX]

    def _missing(self, ref: HeadRef) -> list[Entry]:
        return [e for e in self._needed.get(ref.id) or () if e.digest in self._astray]

    def where(self, ref: HeadRef) -> ContentPlaces:
        """The answer for one of the generations. In a thread."""
        needed = self._needed.get(ref.id)
        places: list[str] = []
        if self._found == ref.root or (needed is not None and not self._missing(ref)):
            places.append("here")
        places += [who for who in sorted({*self._lives, *self._held}) if self._has_all(who, ref)]
        if places or needed is None:
            return ContentPlaces(tuple(places))
        parts = {"here"} if len(self._missing(ref)) < len(needed) or not needed else set()
        for entry in self._missing(ref):
            who = next((name for name in sorted(self._held) if self._has(name, entry)), None)
            if who is None:
                return ContentPlaces()
            parts.add(who)
        return ContentPlaces((), tuple(sorted(parts)))

    def _has_all(self, who: NodeName, ref: HeadRef) -> bool:
        live = self._lives.get(who)
        if live is not None and live.root == ref.root:
            return True
        held = self._held.get(who)
        if held is None or self._needed.get(ref.id) is None:
            return False
        wanted = self._new_in(live.root if live else None, ref.root)
        return wanted is not None and all(held.who_has(entry) for entry in wanted)

    def _has(self, who: NodeName, entry: Entry) -> bool:
        if self._held[who].who_has(entry):
            return True
        live = self._lives.get(who)
        if live is None:
            return False
        try:
            there = lookup(live.root, entry.path, self._get)
        except KeyError:
            return False
        return there is not None and there.digest == entry.digest
