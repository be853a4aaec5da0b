"""Heads that sources sent with a definition and a bundle: stored only once the machine wants that very head."""

from __future__ import annotations

from collections import OrderedDict

from instep.model.definition import decode_definition
from instep.model.ids import Digest, HeadRef, NodeName
from instep.net.messages.messages import Head
from instep.node.following.answers import refuse_unusable
from instep.node.following.page_fetch import Fetcher
from instep.node.runtime.runtime import Runtime

OFFERED_MAX = 8
SMALL_BUNDLE_BYTES = 128 << 10
"""Pages of so many bytes are checked on the event loop, in 2 or 3 ms: less than a thread may keep one waiting."""


class OfferedHeads:
    """The newest head of each source, of the last ``OFFERED_MAX`` sources. ``bundle`` comes from the last stored
    head: its generation's id, and contents by digest."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._heads: OrderedDict[NodeName, Head] = OrderedDict()
        self.bundle: tuple[Digest, dict[Digest, bytes]] | None = None
        self.has_small_bundle = False

    def take(self, source: NodeName, head: Head) -> None:
        """A source sent a head whose signature is valid."""
        self._heads[source] = head
        while len(self._heads) > OFFERED_MAX:
            self._heads.popitem(last=False)
        self._heads.move_to_end(source)

    def keep_wanted(self, wanted: HeadRef) -> None:
        """Store definition and bundle of this head from every source that sent it. ``PeerError`` when the definition is
        not to be used."""
        self.has_small_bundle = False
        for source, head in list(self._heads.items()):
            if head.generation.id == wanted.id:
                del self._heads[source]
                self.keep(head)

    def keep(self, head: Head) -> None:
        """Store what came with one head."""
        store, body = self._runtime.store, head.generation.body()
        if head.definition:
            definition = decode_definition(head.definition)
            if definition.digest == body.definition:
                refuse_unusable(definition)
                if store.get_blob(body.definition) is None:
                    store.put_blob(body.definition, head.definition)
        if head.bundle is not None:
            contents = Fetcher(self._runtime).keep_bundle(body.root, head.bundle)
            self.bundle = (head.generation.id, contents)
            self.has_small_bundle = sum(map(len, head.bundle.pages)) <= SMALL_BUNDLE_BYTES
