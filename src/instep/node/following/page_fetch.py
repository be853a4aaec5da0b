"""What a source offers: heads with their definitions and bundles, and manifests, page by page, verified before they are
stored."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator

from blake3 import blake3

from instep.core.vocabulary import SignerVerdict
from instep.errors import ConfigError, InstepError, PeerError, RefusedError, UnavailableError
from instep.model.definition import Definition, Mode, decode_definition
from instep.model.ids import Digest, HeadRef, LineId, NodeName
from instep.model.manifest.check import build_difference, check_diff, check_tree, missing
from instep.model.manifest.pages import PAGE_MAX_BYTES, decode_inner, digest_of, level_of, verify_page
from instep.model.rollout import decode_policy
from instep.net.messages import messages as m
from instep.net.messages.messages import Head
from instep.net.messages.syncing import DifferenceReply, DifferenceRequest
from instep.net.service import HEADS, PeerCalls
from instep.node.lines.signed_again import keep_newer_signature
from instep.node.runtime.runtime import Runtime
from instep.node.runtime.signers import verdict_on
from instep.node.trees.keeping.page_walk import must_have
from instep.tree.scan.rules import Rules


def refuse_unusable(definition: Definition, mode: Mode = Mode.MIRROR) -> None:
    """``PeerError`` for a definition that cannot be used here: found before it is stored, not by the next scan."""
    try:
        Rules(definition)
    except ConfigError as error:
        raise PeerError(f"the definition cannot be used: {error.reason}", code="bad_definition") from error
    decode_policy(definition.rollout)
    if definition.mode is not mode:
        raise RefusedError(
            f"a fileset of mode {definition.mode.value} cannot be had as one of mode {mode.value}",
            hint="instep fileset list",
            code="unknown_mode",
        )


OFFERED_MAX = 8
SMALL_BUNDLE_BYTES = 128 << 10
"""Pages of so many bytes are checked on the event loop, in 2 or 3 ms: less than a thread may keep one waiting."""


class OfferedHeads:
    """The newest head of each source, of the last ``OFFERED_MAX`` sources. ``bundle`` comes from the last stored
    head: its generation's id, and contents by digest."""

    def __init__(self, runtime: Runtime, mode: Mode = Mode.MIRROR) -> None:
        self._runtime = runtime
        self._mode = mode
        self._heads: OrderedDict[NodeName, Head] = OrderedDict()
        self.bundle: tuple[Digest, dict[Digest, bytes]] | None = None
        self.has_small_bundle = False

    def take(self, source: NodeName, head: Head) -> SignerVerdict:
        """A source sent a head. It is kept where its signature is valid."""
        signed = head.generation
        verdict = verdict_on(self._runtime, signed.signature, signed.id)
        if verdict.is_valid:
            keep_newer_signature(self._runtime, signed)
            self._heads[source] = head
            while len(self._heads) > OFFERED_MAX:
                self._heads.popitem(last=False)
            self._heads.move_to_end(source)
        return verdict

    def keep_wanted(self, wanted: HeadRef) -> None:
        """Store definition and bundle of this head from every source that sent it. ``PeerError`` when the definition is
        not to be used."""
        self.has_small_bundle = False
        for source, head in list(self._heads.items()):
            if head.generation.id == wanted.id:
                del self._heads[source]
                self.keep(head)

    async def fetch_definition(self, client: PeerCalls, line: LineId, wanted: HeadRef) -> None:
        """Ask a source for this head with its definition, and store that. A source that went on has it no longer."""
        request = m.HeadsRequest((m.KnownLine(line, None),), with_bundles=False)
        for head in (await client.call(HEADS, request)).heads:
            if head.line == line and head.generation.id == wanted.id:
                self.keep(head)

    def keep(self, head: Head) -> None:
        """Store what came with one head."""
        store, body = self._runtime.store, head.generation.body()
        if head.definition:
            definition = decode_definition(head.definition)
            if definition.digest == body.definition:
                refuse_unusable(definition, self._mode)
                if store.get_blob(body.definition) is None:
                    store.put_blob(body.definition, head.definition)
        if head.bundle is not None:
            contents = Fetcher(self._runtime).keep_bundle(body.root, head.bundle)
            self.bundle = (head.generation.id, contents)
            self.has_small_bundle = sum(map(len, head.bundle.pages)) <= SMALL_BUNDLE_BYTES


async def ask_for_heads(
    client: PeerCalls, line: LineId, known: HeadRef | None, *, is_repeated: bool
) -> Iterator[Head]:
    """The heads of the line that a source has; raises its refusal. A source leaves out a head that the request says is
    known."""
    holds = (m.KnownLine(line, known),)
    asked = (m.KnownLine(line),) if is_repeated else holds
    reply = await client.call(HEADS, m.HeadsRequest(asked, not is_repeated, holds))
    for refused, refusal in reply.refused:
        if refused == line:
            raise UnavailableError(refusal.reason, hint=refusal.hint, code=refusal.code)
    return (head for head in reply.heads if head.line == line)


ROUNDS_MAX = 64
"""More levels or repeated partial answers than any tree of 2**40 entries needs."""
PAGES_MAX = 1 << 18
"""Of one manifest: enough for 60 million entries."""
SLACK = 64

_NO_DIFFERENCE = frozenset({"superseded", "unknown_request"})
"""A generation or page that the source keeps no more, and a source from before differences were sent."""
AskDifference = Callable[[DifferenceRequest], Awaitable[DifferenceReply]]
AskPages = Callable[[m.PagesRequest], Awaitable[m.PagesReply]]


class Fetcher:
    """Stores pages that hash to the digest that was asked for; it refuses everything else that a peer sends."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def pages(
        self, line: LineId, head: HeadRef, complete: Digest | None, ask: AskPages, *, is_small: bool = False
    ) -> None:
        """All pages of ``head``. ``complete`` is a root whose pages are all here. Raises the errors of ``ask``, and
        ``PeerError`` for wrong pages or a manifest that breaks a rule. ``is_small``: the difference came in a small
        bundle, and is looked at here and now rather than in a thread."""
        store = self._runtime.store
        if complete is not None and store.get_page(complete) is None:
            complete = None
        elif complete is not None and is_small and not self._missing(head.root, complete):
            self._check(head.root, complete)
            return
        room = self._room(head)
        for _ in range(ROUNDS_MAX):
            absent = await asyncio.to_thread(self._missing, head.root, complete)
            if not absent:
                break
            room -= len(absent)
            if room < 0:
                raise PeerError(
                    "the manifest has more pages than the entries that its generation claims",
                    code="endless_manifest",
                )
            start = 0
            while start < len(absent):
                start += await self._batch(line, head, absent[start : start + m.DIGESTS_MAX], ask)
        else:
            raise PeerError("the manifest has more levels than any tree needs", code="endless_manifest")
        await asyncio.to_thread(self._check, head.root, complete)

    async def difference(self, line: LineId, head: HeadRef, since: HeadRef, ask: AskDifference) -> bool:
        """All pages of ``head``, made of what changed since an older generation whose pages are here. False where the
        source cannot say what changed, or it is too much: then ``pages`` has them. ``PeerError`` as there."""
        if head.root == since.root:
            return True
        if self._runtime.store.get_page(since.root) is None:
            return False
        try:
            reply = await ask(DifferenceRequest(line, head.id, since.id))
        except InstepError as error:
            if error.error_code not in _NO_DIFFERENCE:
                raise
            return False
        if reply.is_whole:
            await asyncio.to_thread(self._build, since.root, head.root, reply)
        return reply.is_whole

    def _build(self, old: Digest, new: Digest, reply: DifferenceReply) -> None:
        pages: dict[Digest, bytes] = {}
        get = must_have(self._runtime.store.get_page)
        build_difference(old, new, reply.entries, reply.removed, get, pages.__setitem__)
        self._runtime.store.put_pages(pages.items())

    def _missing(self, root: Digest, complete: Digest | None) -> list[Digest]:
        return missing(root, self._runtime.store.get_page, complete=complete)

    def _room(self, head: HeadRef) -> int:
        """How many pages may be fetched: each leaf has an entry, and inner pages are far fewer."""
        signed = self._runtime.store.generation(head.id)
        claimed = signed.body().entries if signed is not None else PAGES_MAX
        return min(PAGES_MAX, 4 * claimed + SLACK)

    async def _batch(self, line: LineId, head: HeadRef, wanted: list[Digest], ask: AskPages) -> int:
        reply = await ask(m.PagesRequest(line, head.id, tuple(wanted)))
        pages: list[tuple[Digest, bytes]] = []
        for digest, raw in zip(wanted, reply.pages, strict=False):
            verify_page(digest, raw)
            pages.append((digest, raw))
        if not pages:
            reason = reply.error.reason if reply.error is not None else "no pages came"
            raise UnavailableError(f"pages cannot be had: {reason}", code="superseded")
        self._runtime.store.put_pages(pages)
        return len(pages)

    def _check(self, root: Digest, complete: Digest | None) -> None:
        get = must_have(self._runtime.store.get_page)
        if complete is None:
            check_tree(root, get)
        else:
            check_diff(complete, root, get)

    def keep_bundle(self, root: Digest, bundle: m.Bundle) -> dict[Digest, bytes]:
        """Store those pages of a head's bundle that belong to its manifest under their true digests; return its
        contents by theirs, verified. Other pages are dropped: they would never be looked at, nor removed."""
        brought = {digest_of(raw): raw for raw in bundle.pages if len(raw) <= PAGE_MAX_BYTES}
        kept: dict[Digest, bytes] = {}
        row = [root]
        while row:
            below: list[Digest] = []
            for digest in row:
                raw = brought.pop(digest, None)
                if raw is not None:
                    kept[digest] = raw
                    if level_of(raw):
                        below += [child.digest for child in decode_inner(raw)]
            row = below
        self._runtime.store.put_pages(kept.items())
        return {digest: data for digest, data in bundle.contents if blake3(data).digest() == digest}
