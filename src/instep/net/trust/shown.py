"""A certificate of another CA that a node shows: ``shown.pem`` as ``pki use`` took it, ``presented.pem`` made of it.

Implements "Certificates of another CA" of ``docs/spec/wire.md``. One file holds key and chain, so that a crash never
leaves a certificate without its key. What partners are sent is made anew from it and from the own certificate.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from instep.errors import ConfigError, InstepError, ResourceError
from instep.net.trust.certs import Purpose, facts_of, fingerprint_bytes, pem_of, spki_of
from instep.net.trust.decoding import certificates_of_pem
from instep.net.trust.key_files import sync_folder, write_beside, write_file
from instep.net.trust.pki import Pki
from instep.net.trust.vouching import is_fresh, make_voucher, vouches

USE_ANOTHER = "instep pki use FILE, with a new one; or: instep pki use --cluster"
_DAY_MS = 86_400_000
_WARN_MS = 14 * _DAY_MS
_WARN_SHARE = 1 / 4
"""Or, of certificates that live for days, this share of their life."""


@dataclass(frozen=True, slots=True)
class ShownChain:
    """A certificate of another CA with its issuers; ``key_pem`` is empty where its key is the node's own."""

    certificates: tuple[x509.Certificate, ...]
    key_pem: bytes = b""

    @property
    def leaf(self) -> x509.Certificate:
        return self.certificates[0]

    def pem(self) -> bytes:
        return self.key_pem + b"".join(map(pem_of, self.certificates))

    def is_current(self, now_ms: int) -> bool:
        facts = facts_of(self.leaf)
        return facts.not_before_ms <= now_ms <= facts.not_after_ms

    def is_ending(self, now_ms: int) -> bool:
        """Whether its operator should see to another one."""
        facts = facts_of(self.leaf)
        life_ms = facts.not_after_ms - facts.not_before_ms
        return now_ms > facts.not_after_ms - min(_WARN_MS, life_ms * _WARN_SHARE)


@dataclass(frozen=True, slots=True)
class ShownFiles:
    """The chain in use, the file that partners are sent, the one for programs that know no vouchers, and the key's."""

    chain: ShownChain
    for_partners: Path
    for_browsers: Path
    key: Path


class Shown:
    """The shown certificate of one node."""

    def __init__(self, pki: Pki) -> None:
        self._pki = pki
        self.path = pki.directory / "shown.pem"
        self._presented = pki.directory / "presented.pem"

    def chain(self) -> ShownChain | None:
        """None when the node shows its own. ``InstepError`` where the file cannot be used."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be read: {error.strerror}", hint=USE_ANOTHER, code="bad_pki"
            ) from error
        certificates = tuple(certificates_of_pem(raw))
        key = raw[: raw.index(b"-----BEGIN CERTIFICATE-----")] if b"PRIVATE KEY-----" in raw else b""
        return ShownChain(certificates, key)

    def current(self, now_ms: int) -> ShownFiles | None:
        """What partners are sent; None when the node shows its own certificate: it has no other, or that one is not
        current or cannot be used, which ``check`` and ``status`` say."""
        try:
            chain = self.chain()
            if chain is None or not chain.is_current(now_ms):
                return None
            with contextlib.suppress(ResourceError):  # a full disk: the one from before holds for days
                self._refresh(chain, now_ms)
            key = self.path if chain.key_pem else self._pki.key_path()
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._presented, key)
        except (InstepError, OSError):  # an ssl.SSLError is one
            return None
        return ShownFiles(chain, self._presented, self.path, key)

    def state(self, now_ms: int) -> tuple[bytes, int, bool] | None:
        """Changes whenever ``current`` must be asked again."""
        try:
            chain = self.chain()
            if chain is None or not chain.is_current(now_ms):
                return None
            serial = self._pki.certificate(Purpose.TLS).serial_number
            return fingerprint_bytes(chain.leaf), serial, self._is_made_of(chain, now_ms)
        except InstepError:
            return None

    def use(self, chain: ShownChain, now_ms: int) -> bool:
        """Show this one from now on, for which the caller has looked; whether that is news."""
        with self._pki.locked():
            if self.path.exists() and self.path.read_bytes() == chain.pem():
                return False
            write_file(self.path, chain.pem(), mode=0o600, of_node=True)
        self._refresh(chain, now_ms)
        return True

    def drop(self) -> bool:
        """Show the node's own certificate again; whether that is news."""
        with self._pki.locked():
            was_shown = self.path.exists()
            for path in (self.path, self._presented):
                path.unlink(missing_ok=True)
            sync_folder(self._pki.directory)
        return was_shown

    def require_loadable(self, chain: ShownChain) -> None:
        """``ConfigError`` for a chain that OpenSSL cannot show; nothing of it stays."""
        with self._pki.locked():
            beside = self._pki.directory / "trial.pem"
            try:
                trial = write_beside(beside, chain.pem(), 0o600, None)
            except OSError as error:
                raise ResourceError(
                    f"{beside} cannot be written: {error.strerror}", path=str(beside)
                ) from error
            try:
                path = trial if chain.key_pem else self._pki.key_path()
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(trial, path)
            except ssl.SSLError as error:
                raise ConfigError(
                    f"OpenSSL cannot use this certificate: {error.reason or error}",
                    hint="ask its CA for one with a key of RSA 2048 or P-256 and SHA-256",
                    code="bad_certificate",
                ) from error
            finally:
                trial.unlink(missing_ok=True)

    def _refresh(self, chain: ShownChain, now_ms: int) -> None:
        if self._is_made_of(chain, now_ms):
            return
        pki = self._pki
        own, vouchers = pki.certificate(Purpose.TLS), []
        if spki_of(own.public_key()) != spki_of(chain.leaf.public_key()):
            vouchers.append(make_voucher(pki.tls_key(), own, chain.leaf, now_ms))
        parts = (*chain.certificates, *vouchers, own, *pki.authorities()[:1])
        with pki.locked():
            write_file(self._presented, b"".join(map(pem_of, parts)), mode=0o644, of_node=True)

    def _is_made_of(self, chain: ShownChain, now_ms: int) -> bool:
        try:
            made = certificates_of_pem(self._presented.read_bytes())
        except (OSError, InstepError):
            return False
        own, count = self._pki.certificate(Purpose.TLS), len(chain.certificates)
        rest: Sequence[x509.Certificate] = made[count:]
        if tuple(made[:count]) != chain.certificates:
            return False
        if spki_of(own.public_key()) != spki_of(chain.leaf.public_key()):
            if not rest or not vouches(rest[0], own, chain.leaf) or not is_fresh(rest[0], now_ms):
                return False
            rest = rest[1:]
        return list(rest) == [own, *self._pki.authorities()[:1]]
