"""TLS of peers: contexts that follow the files, and the identity of the other side.

Implements the section "TLS" of ``docs/spec/wire.md``: version 1.3 only, no resumption, client certificates
asked for and needed everywhere but at ``join``. A change of certificate, trust or revocation list builds *new*
contexts, so nothing that OpenSSL cached can outlive it; open connections are checked again by ``Trust``.
"""

from __future__ import annotations

import datetime as dt
import functools
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from instep.errors import ConfigError, InstepError, NotAllowedError
from instep.model.ids import NodeName
from instep.net.connections.presented import presented
from instep.net.connections.tls_errors import RefusedPeer
from instep.net.trust.certs import Purpose, der_of, name_of, pem_of, pin_of, was_issued_by
from instep.net.trust.pki import Pki
from instep.net.trust.revocation import Revoked, issued_s
from instep.net.trust.shown import USE_ANOTHER, Shown, ShownFiles
from instep.net.trust.validity import minute_of
from instep.net.trust.vouching import proven_by

_Check = Callable[[str | None, Sequence[bytes]], None]
"""Gets the name that was dialled and the presented chain; ``NotAllowedError`` where this node does not trust them."""
_NOT_THE_NODE = frozenset({"bad_identity", "no_certificate", "unknown_certificate"})
_NO_CHECK_TIME = 0x200000
"""OpenSSL's ``X509_V_FLAG_NO_CHECK_TIME``: ``Trust.require_current`` looks at the times."""


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """The peer at the other end of a connection."""

    name: NodeName
    serial: int
    pin: str
    not_before: dt.datetime
    not_after: dt.datetime
    issued_s: int = 0
    is_shown: bool = False
    """Whether a certificate of another CA was shown, whose times count, too."""


def system_ms() -> int:
    """The wall clock of this machine, in milliseconds since 1970."""
    return int(dt.datetime.now(dt.UTC).timestamp() * 1000)


class Trust:
    """The identities that this node trusts: the cluster's CA with its revocations, and pinned certificates of
    partners of other clusters. A pinned name is never accepted with another certificate, nor the other way round."""

    def __init__(
        self,
        authorities: Sequence[x509.Certificate],
        crl: Revoked | None,
        pinned: Mapping[NodeName, x509.Certificate],
        *,
        me: str = "this node",
        now_ms: Callable[[], int] = system_ms,
    ) -> None:
        self.me = me
        self._now_ms = now_ms
        self.authorities = tuple(authorities)
        self.crl = crl
        self.pinned = dict(pinned)
        self._pins = {name: pin_of(certificate) for name, certificate in self.pinned.items()}

    def identify(self, der: bytes | None, beside: Sequence[bytes] = ()) -> PeerIdentity:
        """The node that presented this certificate with those ``beside`` it (once a connection), or
        ``NotAllowedError``: ``no_certificate``, ``bad_identity``, ``unknown_certificate``, ``certificate_revoked``."""
        if der is None:
            raise NotAllowedError(
                "no client certificate was presented",
                hint="join the cluster first: on a member: instep invite NAME; here: instep join TOKEN",
                code="no_certificate",
            )
        proven = proven_by((der, *beside))
        certificate, times = proven.own, (proven.not_before, proven.not_after)
        pin, is_shown = pin_of(certificate), bool(proven.beside)
        if self.pinned:
            for name, pinned_pin in self._pins.items():
                if pinned_pin == pin:  # the key is trusted: its certificate is renewed by its own cluster
                    return PeerIdentity(name, -1, pin, *times, is_shown=is_shown)
        name = name_of(certificate, Purpose.TLS)
        if name in self._pins:
            raise self.key_changed(name, pin)
        if not was_issued_by(certificate, self.authorities):
            raise NotAllowedError(
                f"the certificate of {name} is not one that this node knows",
                hint=f"join it to this cluster, or: instep partner add {name} ADDRESS --pin {pin}",
                code="unknown_certificate",
                name=name,
                pin=pin,
            )
        identity = PeerIdentity(name, certificate.serial_number, pin, *times, issued_s(certificate), is_shown)
        self.check(identity)
        return identity

    def key_changed(self, name: NodeName, shown: str) -> NotAllowedError:
        """The refusal of a pinned partner that shows another key: only its administrator can say whether it is its."""
        pinned = self._pins[name]
        return NotAllowedError(
            f"{name} shows another key than the one that is pinned on {self.me}: pinned {pinned}, shown {shown}",
            hint=f"ask the administrator of {name} whether its key was changed; when it was, on {self.me}: "
            f"instep partner add {name} ADDRESS --pin {shown}",
            code="key_changed",
            node=name,
            pinned=pinned,
            shown=shown,
        )

    def check(self, identity: PeerIdentity) -> None:
        """Whether an identity of an open connection is still good; ``NotAllowedError`` when revoked since."""
        if self._is_revoked(identity):
            raise NotAllowedError(
                f"the certificate of {identity.name} was revoked",
                hint="ask for a new token and join again",
                code="certificate_revoked",
                name=identity.name,
            )

    def require_current(self, identity: PeerIdentity, *, is_dialled: bool) -> None:
        """``NotAllowedError`` unless the certificate is valid now, by this node's clock. OpenSSL does not look at
        times here: its alert says neither of the two dates, and a node with an expired certificate could not even ask
        for a new one."""
        now, name = self.now(), identity.name
        if now > identity.not_after:
            state, code = f"expired on {minute_of(identity.not_after)}", "refused_by_peer_expired"
        elif now < identity.not_before:
            state, code = f"is not valid before {minute_of(identity.not_before)}", "refused_by_peer_early"
        else:
            return
        raise NotAllowedError(
            f"{self.me} refused the certificate of {name}: it {state}, and the clock of {self.me} "
            f"shows {minute_of(now)}",
            hint=f"compare the clocks (date -u) of {self.me} and {name}; when they agree, on {name}: "
            + (USE_ANOTHER if identity.is_shown else "instep pki renew"),
            code="certificate_refused_here" if is_dialled else code,
            name=name,
            not_before=minute_of(identity.not_before),
            not_after=minute_of(identity.not_after),
            now=minute_of(now),
        )

    def now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._now_ms() / 1000, dt.UTC)

    def is_good(self, identity: PeerIdentity) -> bool:
        """For closing connections that outlived a revocation, an expiry or a pin."""
        if self._is_revoked(identity) or self.now() > identity.not_after:
            return False
        return identity.serial != -1 or self._pins.get(identity.name) == identity.pin

    def _is_revoked(self, identity: PeerIdentity) -> bool:
        if self.crl is None or identity.serial == -1:
            return False
        return identity.serial in self.crl.serials or identity.issued_s < self.crl.names.get(identity.name, 0)


class TlsContexts:
    """The contexts of one node. Take ``server`` and ``client_for`` anew for each connection."""

    def __init__(self, pki: Pki, now_ms: Callable[[], int] = system_ms) -> None:
        """``now_ms`` is the wall clock that certificates are looked at with."""
        self._pki = pki
        self._now_ms = now_ms
        self._shown = Shown(pki)
        self.shows: ShownFiles | None = None
        """The certificate of another CA that listeners show."""
        self.dialled: dict[NodeName, PeerIdentity] = {}
        """The peers that answered when this node dialled last, by name."""
        self.reload()

    def reload(self) -> None:
        """Follow the files of ``pki/``. Raises and keeps the old contexts when they do not fit together."""
        pki = self._pki
        try:
            chains = pki.pins.chains()
            pinned = {name: chain[0] for name, chain in chains.items()}
            trust = Trust(pki.authorities(), pki.crl(), pinned, me=pki.name, now_ms=self._now_ms)
            shows = self._shown.current(self._now_ms())
            shown_state = self._shown.state(self._now_ms())
            server = self._server(trust, [one for chain in chains.values() for one in chain], shows)
            client = self._client_context(None, trust)
            pinned_clients = {name: self._client_context(name, trust) for name in pinned}
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"the certificates in {pki.directory} do not fit together: {error}",
                hint="instep check; instep pki list",
                code="bad_pki",
            ) from error
        self.shows, self._shown_state = shows, shown_state
        self.trust = trust
        self.server = server
        self._client = client
        self._pinned_clients = pinned_clients
        self.name = pki.name

    @property
    def is_stale(self) -> bool:
        """Whether time alone changed what this node shows: a certificate of another CA began or ended, or is to be
        vouched for anew."""
        return self._shown.state(self._now_ms()) != self._shown_state

    @property
    def browser_files(self) -> tuple[Path, Path]:
        """The certificate and the key of listeners that serve programs without vouchers."""
        if self.shows is None:
            return self._pki.certificate_path(), self._pki.key_path()
        return self.shows.for_browsers, self.shows.key

    def client_for(self, name: NodeName) -> ssl.SSLContext:
        """The context for dialling this partner, to be used with ``server_hostname=name``."""
        return self._pinned_clients.get(name, self._client)

    def _client_context(self, pinned: NodeName | None, trust: Trust) -> _TellingContext:
        """For dialling. OpenSSL verifies that the partner has the key that it shows; whose it is, is looked at in
        ``_check_dialled`` before anything is sent, for it verifies neither pins nor vouchers. Our own authorities go
        along with our certificate, so that the partner knows our issuer."""
        context = _looking_context(functools.partial(self._check_dialled, pinned))
        context.load_cert_chain(self._pki.certificate_path(), self._pki.key_path())
        context.load_verify_locations(cadata=_pem_of_all(trust.authorities))
        return context

    def identify(self, secure: ssl.SSLObject) -> PeerIdentity:
        """The peer of a connection that was accepted."""
        chain = presented(secure)
        identity = self._identified(chain)
        self._keep_renewed(identity, chain)
        return identity

    def _identified(self, chain: Sequence[bytes]) -> PeerIdentity:
        return self.trust.identify(chain[0] if chain else None, chain[1:])

    def _keep_renewed(self, identity: PeerIdentity, chain: Sequence[bytes]) -> None:
        """A pinned partner may come with another certificate of its key, for its own cluster renews it. OpenSSL
        verifies certificates and no keys, so it must know the newest one and its issuer."""
        if identity.serial == -1 and self._pki.pins.renew(identity.name, proven_by(chain).chain):
            self.reload()

    def _check_dialled(self, pinned: NodeName | None, dialled: str | None, chain: Sequence[bytes]) -> None:
        """At the end of each handshake of ours, before anything is sent: the node that was meant, and no other."""
        if pinned is not None and chain:
            shown = pin_of(proven_by(chain).own)
            if shown != pin_of(self.trust.pinned[pinned]):
                raise self.trust.key_changed(pinned, shown)
        try:
            identity = self._identified(chain)
        except NotAllowedError as error:
            if error.error_code not in _NOT_THE_NODE:
                raise
            raise _refused_here(dialled, error.reason) from error
        if pinned is None and identity.name != dialled:
            raise _refused_here(dialled, f"it is that of {identity.name}")
        if (pinned is None) == (identity.serial == -1) or pinned not in (None, identity.name):
            raise NotAllowedError(
                f"{identity.name} answered with a key that is not pinned for it here",
                hint="see the key that it presents: instep pki trust fetch HOST:PORT",
                code="unknown_certificate",
                name=identity.name,
                pin=identity.pin,
            )
        self.trust.require_current(identity, is_dialled=True)
        self._keep_renewed(identity, chain)
        self.dialled[identity.name] = identity

    def lost_trust(self) -> list[NodeName]:
        """Nodes that were dialled and are not trusted any more, each once."""
        lost = [name for name, identity in self.dialled.items() if not self.trust.is_good(identity)]
        for name in lost:
            del self.dialled[name]
        return lost

    def _server(
        self, trust: Trust, exact: Sequence[x509.Certificate], shows: ShownFiles | None
    ) -> _TellingContext:
        context = _bare_context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_flags |= _NO_CHECK_TIME
        own = (self._pki.certificate_path(), self._pki.key_path())
        context.load_cert_chain(*(own if shows is None else (shows.for_partners, shows.key)))
        context.load_verify_locations(cadata=_pem_of_all([*trust.authorities, *exact]))
        if exact:
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        elif trust.crl is not None and len(trust.authorities) == 1:
            context.load_verify_locations(cafile=self._pki.directory / "crl.pem")
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        context.verify_mode = ssl.CERT_OPTIONAL
        context.num_tickets = 0
        return context


class _TellingObject(ssl.SSLObject):
    """Event loops drop the alert that explains a failed handshake; this one hangs it on the exception."""

    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            error.alert = self.outgoing.read()  # type: ignore[attr-defined]
            raise
        check = getattr(self.context, "check_peer", None)
        if check is not None:
            try:
                check(self.server_hostname, presented(self))
            except InstepError as error:
                raise RefusedPeer(error) from error


class _TellingContext(ssl.SSLContext):
    sslobject_class = _TellingObject
    check_peer: _Check | None = None

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **named: Any) -> Any:
        made = super().wrap_bio(incoming, outgoing, *args, **named)
        assert isinstance(made, _TellingObject)
        made.outgoing = outgoing
        return made


def alert_of(error: BaseException) -> bytes:
    """The alert that OpenSSL made for the peer when a handshake of ours failed."""
    alert = getattr(error, "alert", b"")
    return alert if isinstance(alert, bytes) else b""


def _pem_of_all(certificates: Sequence[x509.Certificate]) -> str:
    return "".join(pem_of(one).decode("ascii") for one in certificates)


def _bare_context(protocol: int) -> _TellingContext:
    context = _TellingContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def pinning_context(pin: bytes, seen: Callable[[Sequence[bytes]], None]) -> ssl.SSLContext:
    """For a node whose token has the SHA-256 of the other side's key: no other key passes (``wrong_key``). ``seen``
    gets the certificates that were presented."""

    def check(_: str | None, chain: Sequence[bytes]) -> None:
        proven = proven_by(chain) if chain else None
        shown = pin_of(proven.own) if proven is not None else ""
        if shown != pin.hex():
            raise NotAllowedError(
                f"the node that answered shows the key {shown}, and the token is of the key {pin.hex()}",
                hint="another program answers at this address, or the node has new keys: make a new token",
                code="wrong_key",
                shown=shown,
                pinned=pin.hex(),
            )
        seen(tuple(map(der_of, proven.chain)) if proven is not None else ())

    return _looking_context(check)


def joining_context(authority: x509.Certificate) -> ssl.SSLContext:
    """For a node that has no certificate yet and got the CA's fingerprint in its token."""
    trust = Trust([authority], None, {})

    def check(dialled: str | None, chain: Sequence[bytes]) -> None:
        identity = trust.identify(chain[0] if chain else None, chain[1:])
        if identity.name != dialled:
            raise _refused_here(dialled, f"it is that of {identity.name}")

    return _looking_context(check)


def _looking_context(check: _Check) -> _TellingContext:
    """OpenSSL verifies that the other side has the key that it shows, and ``check`` all the rest."""
    context = _bare_context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.check_peer = check
    return context


def _refused_here(dialled: str | None, why: str) -> NotAllowedError:
    return NotAllowedError(
        f"this node refused the certificate of {dialled}: {why}",
        hint="see the key that it presents: instep pki trust fetch HOST:PORT",
        code="certificate_refused_here",
        node=dialled,
    )
