"""Events about a certificate of another CA that this node shows: which one, and that it will end."""

from __future__ import annotations

from instep.net.connections.tls import TlsContexts
from instep.net.trust.certs import facts_of, fingerprint_bytes
from instep.net.trust.shown import USE_ANOTHER
from instep.net.trust.shown_file import names_in
from instep.net.trust.validity import minute_at
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime


class ShownWatch:
    """One per node. Asked after each change of trust, and now and then."""

    def __init__(self, runtime: Runtime, tls: TlsContexts) -> None:
        self._runtime = runtime
        self._tls = tls
        self._noted = self._leaf()
        self._ending: bytes | None = None

    def look(self) -> None:
        leaf, shows = self._leaf(), self._tls.shows
        if leaf != self._noted:
            self._noted = leaf
            text = "partners are shown this node's own certificate"
            if shows is not None:
                facts = facts_of(shows.chain.leaf)
                issuer = shows.chain.leaf.issuer.rfc4514_string()
                text = f"partners are shown the certificate of {names_in(shows.chain.leaf)} by {issuer}"
                text += f", until {minute_at(facts.not_after_ms)}"
            self._runtime.note("certificate_shown", text)
        if shows is not None and leaf != self._ending and shows.chain.is_ending(wall_ms()):
            self._ending = leaf
            end = minute_at(facts_of(shows.chain.leaf).not_after_ms)
            text = f"the certificate of {names_in(shows.chain.leaf)} ends on {end}; next: {USE_ANOTHER}"
            self._runtime.note("certificate_ends", text)

    def _leaf(self) -> bytes | None:
        shows = self._tls.shows
        return None if shows is None else fingerprint_bytes(shows.chain.leaf)
