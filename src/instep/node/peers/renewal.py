"""This node's certificates over time: when a renewal is due, whether the clock may be trusted with it, and events
about a certificate of another CA that it shows."""

from __future__ import annotations

from instep.core.clock_doubt import ClockDoubt, ClockLook, clock_doubt, looked_at
from instep.errors import InstepError, RefusedError, UnavailableError
from instep.net.connections.tls import TlsContexts
from instep.net.messages.messages import RenewRequest
from instep.net.service import RENEW
from instep.net.task_group import TaskGroup
from instep.net.trust.certs import facts_of, fingerprint_bytes
from instep.net.trust.pki import Issued
from instep.net.trust.shown import USE_ANOTHER
from instep.net.trust.shown_file import names_in
from instep.net.trust.validity import minute_at
from instep.node.peers.peers import Peers
from instep.node.runtime.driver import monotonic_ms, wall_ms
from instep.node.runtime.runtime import Runtime

_ANSWER_S = 5.0
_STEP = "compare date -u of this node with its partners, set the clock that is wrong"


class Renewal:
    """One per node. ``trouble`` says in ``status`` why a renewal that is due has not happened."""

    def __init__(self, peers: Peers) -> None:
        self.trouble: str | None = None
        self._peers = peers
        self._runtime = peers.runtime
        self._look = ClockLook(wall_ms())
        self._looked_ms = monotonic_ms()

    async def when_due(self) -> bool:
        """Renew when two thirds of a certificate's life are over and the clock may be trusted; whether it was."""
        self._look_at_clock()
        if not self._runtime.pki.is_renewal_due(wall_ms()):
            self.trouble = None
            return False
        try:
            doubt = await self._doubt()
            if doubt is not None:
                self._waits(
                    f"the certificates are due and were not renewed: {doubt.reason}", _next_step(doubt)
                )
                return False
            await self._renew()
        except InstepError as error:
            self._waits(
                f"the certificates could not be renewed: {error.reason}", error.hint or "instep check"
            )
            return False
        return True

    async def by_hand(self) -> None:
        """An operator's word: only partners that show another time stand against it."""
        self._look_at_clock()
        doubt = await self._doubt()
        if doubt is not None and doubt.is_against:
            raise RefusedError(
                f"{self._runtime.name} renews nothing: {doubt.reason}",
                hint=f"{_STEP}; then: instep pki renew",
                code="clock_in_doubt",
            )
        await self._renew()

    def _waits(self, reason: str, step: str) -> None:
        text = f"{reason}; next: {step}"
        if text != self.trouble:
            self._runtime.note("renewal_waits", text)
        self.trouble = text

    def _look_at_clock(self) -> None:
        now_ms = monotonic_ms()
        self._look = looked_at(self._look, wall_ms(), now_ms - self._looked_ms)
        self._looked_ms = now_ms

    async def _doubt(self) -> ClockDoubt | None:
        peers = self._peers
        async with TaskGroup() as asked:
            for session in peers.sessions.values():
                asked.create_task(session.asks_told(_ANSWER_S))
            for uplink in peers.uplinks.values():
                if uplink.is_up:
                    asked.create_task(uplink.is_heard(_ANSWER_S))
        return clock_doubt(self._look, peers.skews_ms())

    async def _renew(self) -> None:
        pki = self._runtime.pki
        if pki.is_ca:
            pki.renew_own(wall_ms())
        else:
            await self._renew_at_ca()
        self.trouble = None
        self._runtime.note("renewed", "this node's certificates were renewed")

    async def _renew_at_ca(self) -> None:
        name, pki = self._runtime.name, self._runtime.pki
        trouble: InstepError = UnavailableError(
            "no partner is dialled that could renew",
            hint=f"on the CA's node: instep invite {name}; then here: instep join TOKEN",
            code="no_ca",
        )
        for uplink in self._peers.uplinks.values():
            try:
                reply = await uplink.client.call(RENEW, RenewRequest(*pki.requests(name)))
                pki.take_renewed(Issued(reply.tls_cert, reply.sign_cert), wall_ms())
                if reply.ca:
                    pki.take_authority(reply.ca)
            except InstepError as error:
                trouble = error if error.error_code != "no_ca" else trouble
                continue
            return
        raise trouble


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


def _next_step(doubt: ClockDoubt) -> str:
    return (
        f"{_STEP}; it then goes on by itself"
        if doubt.is_against
        else "when date -u is right: instep pki renew"
    )
