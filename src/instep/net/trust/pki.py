"""The keys and certificates of a node, and where ``init`` ran the cluster's CA: the directory ``pki/``.

Implements the section "Keys on disk" of ``docs/spec/wire.md``. Files are replaced atomically and synced; keys
are 0600, the directory 0700. Changes take a lock on the directory, so that daemon and command line can both act.
Renewal keeps the keys and replaces certificates, so pins outlive it.

Over 400 lines: making, reading, issuing and revoking share the files and their lock.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from instep.errors import (
    ConfigError,
    ContentionError,
    DamagedError,
    NotAllowedError,
    PeerError,
    RefusedError,
    ResourceError,
)
from instep.model.generation import Signature
from instep.model.ids import Digest, NodeName
from instep.net.trust import signing
from instep.net.trust.authority import is_ending, make_ca, newest_of, renewed_ca
from instep.net.trust.certs import (
    CA_LIFE_S,
    NODE_LIFE_S,
    CertificateFacts,
    PrivateKey,
    Purpose,
    check_request,
    facts_of,
    issue,
    make_crl,
    make_key,
    make_request,
    name_of,
    pem_of,
    pin_of,
    pin_of_key,
    raw_key_of,
    was_issued_by,
)
from instep.net.trust.decoding import certificates_of_pem
from instep.net.trust.key_files import locked, write_file
from instep.net.trust.pins import Pins
from instep.net.trust.revocation import LISTS_MAX, Revoked, name_extensions, union_of_pem
from instep.net.trust.validity import minute_at

SECRET = frozenset({"ca.key", "node.key", "sign.key", "shown.pem"})
_RENEW_AT = 2 / 3
"""Share of a certificate's life after which it is renewed."""


_LOCK_S = 10.0
_T = TypeVar("_T")


class Record(msgspec.Struct, frozen=True):
    """The CA's record of a certificate: ``issued/SERIAL.json``."""

    name: NodeName
    purpose: str
    serial: str
    pin: str
    issued_at_ms: int
    not_after_ms: int
    revoked_at_ms: int | None = None


class _State(msgspec.Struct, frozen=True):
    backed_up_at_ms: int | None = None
    is_restored: bool = False


@dataclass(frozen=True, slots=True)
class Issued:
    """A node's two certificates, PEM."""

    tls: bytes
    sign: bytes


class Pki:
    """One node's ``pki/`` directory. Looks at a file's stat each time, and reads and parses it again when that
    changed: parsing four files for each record took longer than verifying it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pins = Pins(directory)
        self._parsed: dict[str, tuple[tuple[int, ...], Any]] = {}

    # Making -------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, directory: Path, cluster: str, name: NodeName, now_ms: int) -> Pki:
        """A cluster CA and this node's own keys and certificates. Going on after a crash is safe: present
        files stay."""
        pki = cls(directory)
        pki._make_directories()
        with pki.locked():
            if not pki._path("ca.crt").exists():
                ca_key = pki._key("ca.key", Purpose.TLS)
                assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
                pki._write("ca.crt", pem_of(make_ca(cluster, ca_key, now_ms, CA_LIFE_S)))
            if not pki._path("crl.pem").exists():
                pki._write("crl.pem", pem_of(make_crl(pki.ca(), pki._ca_key(), (), now_ms)))
            requests = pki.requests(name)
        if not pki.has_certificates:
            pki._keep(pki.issue(name, *requests, now_ms, may_replace=True))
        return pki

    def requests(self, name: NodeName) -> tuple[bytes, bytes]:
        """Signing requests (TLS, signing) as DER, for ``join`` and renewal; makes the keys when there are none."""
        self._make_directories()
        tls = make_request(self._key("node.key", Purpose.TLS), name, Purpose.TLS)
        sign = make_request(self._key("sign.key", Purpose.SIGN), name, Purpose.SIGN)
        return tls, sign

    def install(self, name: NodeName, ca: bytes, issued: Issued, crl: bytes) -> None:
        """Take what a join or a renewal brought, after checking that it fits this node's keys and name."""
        authorities = certificates_of_pem(ca)
        for pem, key_file, purpose in (
            (issued.sign, "sign.key", Purpose.SIGN),
            (issued.tls, "node.key", Purpose.TLS),
        ):
            certificate = certificates_of_pem(pem)[0]
            key = self._key(key_file, purpose)
            if not was_issued_by(certificate, authorities):
                raise PeerError(
                    "the issued certificate is not of the CA that came with it", code="bad_certificate"
                )
            if name_of(certificate, purpose) != name or pin_of(certificate) != pin_of_key(key.public_key()):
                raise PeerError(
                    "the issued certificate is not for this node's name and key", code="bad_certificate"
                )
        if not union_of_pem(crl).is_signed_by(authorities):
            raise PeerError("the revocation list is not signed by the CA that came with it", code="bad_crl")
        with self.locked():
            if not self._path("ca.crt").exists():
                self._write("ca.crt", ca)
            if not self._path("crl.pem").exists():
                self._write("crl.pem", crl)
        self.take_authority(ca)
        self._keep(issued)

    def take_renewed(self, issued: Issued, now_ms: int) -> None:
        """New certificates for this node from the CA; ``PeerError`` when they are not valid by the clock here."""
        for pem in (issued.tls, issued.sign):
            facts = facts_of(certificates_of_pem(pem)[0])
            if not facts.not_before_ms <= now_ms <= facts.not_after_ms:
                begin, end = minute_at(facts.not_before_ms), minute_at(facts.not_after_ms)
                raise PeerError(
                    f"the new certificate holds from {begin} to {end}, "
                    f"and the clock here shows {minute_at(now_ms)}",
                    hint="set the clock that is wrong, here or on the CA's node (date -u); then: instep pki renew",
                    code="clocks_apart",
                )
        self.install(self.name, self.authorities_pem(), issued, self.crl_pem())

    def _keep(self, issued: Issued) -> None:
        with self.locked():
            self._write("sign.crt", issued.sign)
            self._write("node.crt", issued.tls)

    # Reading ------------------------------------------------------------------------------------------------

    @property
    def has_certificates(self) -> bool:
        return self._path("node.crt").exists() and self._path("sign.crt").exists()

    @property
    def is_ca(self) -> bool:
        """Whether this node can issue and revoke."""
        return self._path("ca.key").exists()

    def ca(self) -> x509.Certificate:
        return self.authorities()[0]

    def authorities(self) -> list[x509.Certificate]:
        """The cluster's CA certificates: one, or a bring-your-own bundle."""
        return list(self._known("ca.crt", certificates_of_pem))

    def authorities_pem(self) -> bytes:
        return self._read("ca.crt")

    def crl(self) -> Revoked:
        """The union of all lists that are known."""
        return self._known("crl.pem", union_of_pem)

    def crl_pem(self) -> bytes:
        return self._read("crl.pem")

    def certificate(self, purpose: Purpose) -> x509.Certificate:
        return self._known("node.crt" if purpose is Purpose.TLS else "sign.crt", certificates_of_pem)[0]

    @property
    def name(self) -> NodeName:
        return name_of(self.certificate(Purpose.TLS), Purpose.TLS)

    @property
    def pin(self) -> str:
        return pin_of(self.certificate(Purpose.TLS))

    @property
    def sign_key(self) -> bytes:
        """The raw public signing key, for epoch records and pins."""
        return raw_key_of(self.certificate(Purpose.SIGN))

    def tls_key(self) -> ec.EllipticCurvePrivateKey:
        """For exports; TLS itself reads the file."""
        key = self._load_key("node.key")
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def key_path(self) -> Path:
        return self._path("node.key")

    def certificate_path(self) -> Path:
        return self._path("node.crt")

    # Signing ------------------------------------------------------------------------------------------------

    def sign(self, record_id: Digest) -> Signature:
        key = self._known("sign.key", lambda _: self._load_key("sign.key"))
        assert isinstance(key, ed25519.Ed25519PrivateKey)
        certificate = self.certificate(Purpose.SIGN)
        return signing.sign(key, certificate, name_of(certificate, Purpose.SIGN), record_id)

    def sign_as_ca(self, record_id: Digest) -> Signature:
        return signing.sign_as_ca(self._ca_key(), self.ca(), self.name, record_id)

    # The CA's work ------------------------------------------------------------------------------------------

    def issue(
        self,
        name: NodeName,
        tls_csr: bytes,
        sign_csr: bytes,
        now_ms: int,
        *,
        life_s: float = NODE_LIFE_S,
        may_replace: bool = False,
    ) -> Issued:
        """Certificates for a node that proved possession of both keys. A name that is in use with other keys
        is ``RefusedError`` ``name_taken``, unless ``may_replace``, which revokes the older ones."""
        ca, ca_key = self.ca(), self._ca_key()
        keys = {
            Purpose.TLS: check_request(tls_csr, name, Purpose.TLS),
            Purpose.SIGN: check_request(sign_csr, name, Purpose.SIGN),
        }
        pins = {pin_of_key(key) for key in keys.values()}
        made: dict[Purpose, bytes] = {}
        with self.locked():
            others = [
                r for r in self.records() if r.name == name and _is_current(r, now_ms) and r.pin not in pins
            ]
            if others and not may_replace:
                raise RefusedError(
                    f"{name} has certificates for other keys already",
                    hint=f"if that node is gone: instep pki revoke {name}",
                    code="name_taken",
                    name=name,
                )
            if others:
                self._revoke(others, now_ms)
            for purpose, key in keys.items():
                certificate = issue(ca, ca_key, key, name, purpose, now_ms, life_s)
                facts = facts_of(certificate)
                record = Record(name, purpose.value, facts.serial, facts.pin, now_ms, facts.not_after_ms)
                self._write(f"issued/{facts.serial}.json", msgspec.json.encode(record))
                made[purpose] = pem_of(certificate)
            self.pins.forget_introduced(name)  # a node of this cluster signs by its certificate
        return Issued(made[Purpose.TLS], made[Purpose.SIGN])

    def renew_own(self, now_ms: int) -> None:
        """New certificates for this node's keys from the CA that is here; others ask by ``renew``. The CA's own is
        renewed before it, when that is due: its key and name stay, so all that it signed holds."""
        if self._is_authority_due(now_ms):
            with self.locked():
                ca, *others = self.authorities()
                renewed = renewed_ca(ca, self._ca_key(), now_ms, CA_LIFE_S)
                self._write("ca.crt", b"".join(pem_of(one) for one in (renewed, *others)))
                self._sign_list(set(), {}, now_ms)
        self._keep(self.issue(self.name, *self.requests(self.name), now_ms))

    def is_renewal_due(self, now_ms: int) -> bool:
        """Whether one of this node's certificates has spent two thirds of its life, or begins later than now: it was
        made while a clock was ahead."""
        is_own_due = any(self._is_due(facts_of(self.certificate(purpose)), now_ms) for purpose in Purpose)
        return is_own_due or self._is_authority_due(now_ms)

    def _is_authority_due(self, now_ms: int) -> bool:
        """Whether the CA whose key is here ends in a third of its life: each node asks for certificates once in that
        time, and takes the new one along. A CA that another one signed is not renewed here."""
        return self.is_ca and is_ending(self.ca(), now_ms)

    def take_authority(self, pem: bytes) -> bool:
        """Take newer certificates of the authorities that are trusted here, by name and key; whether there was one."""
        with self.locked():
            known = self.authorities()
            newest = newest_of(known, certificates_of_pem(pem))
            if newest == known:
                return False
            self._write("ca.crt", b"".join(pem_of(one) for one in newest))
        return True

    def _is_due(self, facts: CertificateFacts, now_ms: int) -> bool:
        life_ms = facts.not_after_ms - facts.not_before_ms
        return not facts.not_before_ms <= now_ms < facts.not_before_ms + int(life_ms * _RENEW_AT)

    def revoke(self, name: NodeName, now_ms: int, *, for_good: bool = False) -> bool:
        """Revoke all certificates of a node; whether anything changed. ``RefusedError`` ``unknown_name`` when
        this CA never issued one for it. ``for_good``: the list names the node, too, so that every node forgets it."""
        with self.locked():
            current, names = self.revocable(name, now_ms, for_good=for_good)
            return self._revoke(current, now_ms, names, is_removed=for_good)

    def revoked_names(self) -> dict[NodeName, int]:
        """On the CA's node: the nodes whose certificates are all revoked, and since when; without the removed ones."""
        ends: dict[NodeName, list[int | None]] = {}
        for record in self.records() if self.is_ca else ():
            ends.setdefault(record.name, []).append(record.revoked_at_ms)
        gone = self.crl().removed
        return {
            name: max(end for end in each if end is not None)
            for name, each in ends.items()
            if None not in each and name not in gone
        }

    def revocable(
        self, name: NodeName, now_ms: int, *, for_good: bool = False
    ) -> tuple[list[Record], dict[str, int]]:
        """The certificates that ``revoke`` would revoke, and the names with their moments that it would add."""
        if name == self.name:
            raise RefusedError(f"{name} is this node, which holds the CA", code="own_name", name=name)
        records = [record for record in self.records() if record.name == name]
        if not records and not self._state().is_restored and not for_good:
            raise RefusedError(
                f"this CA issued nothing for {name}", hint="instep node list", code="unknown_name", name=name
            )
        current = [r for r in records if r.revoked_at_ms is None]
        # A CA that came back from a backup may have issued what it does not know of: that goes by name.
        names = {str(name): now_ms // 1000} if for_good or self._state().is_restored else {}
        is_news = current or (name not in self.crl().removed if for_good else not records)
        return current, names if is_news else {}

    def _revoke(
        self,
        records: Sequence[Record],
        now_ms: int,
        names: Mapping[str, int] | None = None,
        *,
        is_removed: bool = False,
    ) -> bool:
        if not records and not names:
            return False
        named = dict(names or {})
        serials = {int(record.serial, 16) for record in records}
        self._sign_list(serials, named, now_ms, removed=named if is_removed else {})
        for record in records:
            changed = msgspec.structs.replace(record, revoked_at_ms=now_ms)
            self._write(f"issued/{record.serial}.json", msgspec.json.encode(changed))
        return True

    def _sign_list(
        self, serials: set[int], names: dict[str, int], now_ms: int, removed: Mapping[str, int] | None = None
    ) -> None:
        """One list of all that is known and this, above all numbers that are known."""
        ours = self.crl()
        named = name_extensions(ours.names | names, ours.removed | dict(removed or {}))
        every = sorted(ours.serials | serials)
        self._write("crl.pem", pem_of(make_crl(self.ca(), self._ca_key(), every, now_ms, ours, named)))

    def adopt_crl(self, pem: bytes) -> bool:
        """Take what a peer's revocation lists say beyond ours, whatever their numbers, if the CA signed them. Whether
        that was anything. Nothing that is revoked here becomes valid by it."""
        theirs = union_of_pem(pem)
        authorities = self.authorities()
        if not theirs.is_signed_by(authorities):
            raise PeerError("the revocation list is not signed by this cluster's CA", code="bad_crl")
        with self.locked():
            ours = self.crl()
            both = Revoked((*ours.lists, *theirs.lists))
            if both.lists == ours.lists:
                return False
            if len(both.lists) > LISTS_MAX:
                raise PeerError(f"more than {LISTS_MAX} revocation lists", code="bad_crl")
            self._write("crl.pem", both.pem())
        found, known = ((one.serials, one.names, one.removed) for one in (both, ours))
        return found != known

    def merge_lists(self, now_ms: int) -> bool:
        """At the CA: make one list of several that only together say everything. Whether there was a need."""
        with self.locked():
            if not self.is_ca or len(self.crl().lists) < 2:
                return False
            self._sign_list(set(), {}, now_ms)
        return True

    def take_ca(self, key: bytes, crl: bytes, issued: Mapping[str, bytes]) -> None:
        """Become the cluster's CA from a backup of it; the key comes last, so that a crash leaves either no
        CA or a whole one. Certificates that are revoked here stay revoked."""
        self._make_directories()
        self.adopt_crl(crl)
        self.mark_restored()
        with self.locked():
            for name, data in issued.items():
                if not self._path(name).exists():
                    self._write(name, data)
            self._write("ca.key", key)

    def records(self) -> list[Record]:
        """All that this CA issued, oldest first."""
        found = []
        for path in sorted(self._path("issued").glob("*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Record))
            except msgspec.DecodeError as error:
                raise DamagedError(f"{path.name} cannot be read: {error}", path=str(path)) from error
        return sorted(found, key=lambda record: (record.issued_at_ms, record.serial))

    def has_issued(self, name: NodeName, now_ms: int) -> bool:
        """Whether a certificate of this CA for this name is in force."""
        return any(record.name == name and _is_current(record, now_ms) for record in self.records())

    def backed_up_at_ms(self) -> int | None:
        return self._state().backed_up_at_ms

    def _state(self) -> _State:
        try:
            return msgspec.json.decode(self._path("state.json").read_bytes(), type=_State)
        except FileNotFoundError:
            return _State()
        except msgspec.DecodeError as error:
            raise DamagedError(f"state.json cannot be read: {error}") from error

    def mark_backed_up(self, now_ms: int) -> None:
        self._save(msgspec.structs.replace(self._state(), backed_up_at_ms=now_ms))

    def mark_restored(self) -> None:
        """The CA came from a backup: certificates may be about of which it has no record."""
        self._save(msgspec.structs.replace(self._state(), is_restored=True))

    def _save(self, state: _State) -> None:
        self._write("state.json", msgspec.json.encode(state))

    # Files --------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self.directory / name

    def _make_directories(self) -> None:
        for path in (self.directory, self._path("trusted"), self._path("issued")):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _read(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError as error:
            raise ConfigError(
                f"{self._path(name)} is missing",
                hint="restore it from a backup, or join again with a new token",
                code="pki_missing",
                path=str(self._path(name)),
            ) from error
        except OSError as error:
            raise ResourceError(f"{self._path(name)} cannot be read: {error.strerror}", path=name) from error

    def _known(self, name: str, parse: Callable[[bytes], _T]) -> _T:
        """What ``parse`` makes of a file; kept while the file's stat stays the same."""
        try:
            found = self._path(name).stat()
        except OSError:
            return parse(self._read(name))  # says what is wrong
        stamp = (found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_mode)
        known = self._parsed.get(name)
        if known is None or known[0] != stamp:
            known = self._parsed[name] = (stamp, parse(self._read(name)))
        result: _T = known[1]
        return result

    def _write(self, name: str, data: bytes) -> None:
        write_file(self._path(name), data, mode=0o600 if name in SECRET else 0o644, of_node=True)

    def _key(self, name: str, purpose: Purpose) -> PrivateKey:
        if not self._path(name).exists():
            self._write(name, pem_of(make_key(purpose)))
        return self._load_key(name)

    def _load_key(self, name: str) -> PrivateKey:
        raw = self._read(name)
        mode = stat.S_IMODE(self._path(name).stat().st_mode)
        if mode & 0o077:
            raise ConfigError(
                f"{self._path(name)} is a key that others may read (mode {mode:04o})",
                hint=f"chmod 600 {self._path(name)}",
                code="key_mode",
            )
        try:
            key = serialization.load_pem_private_key(raw, password=None)
        except (ValueError, TypeError) as error:
            raise DamagedError(f"{self._path(name)} is not a key: {error}", path=name) from error
        if not isinstance(key, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)):
            raise ConfigError(f"{self._path(name)} is a key of the wrong kind", code="key_kind")
        return key

    def _ca_key(self) -> ec.EllipticCurvePrivateKey:
        if not self.is_ca:
            raise NotAllowedError(
                "this node does not hold the cluster's CA key",
                hint="run this where the CA key is, or restore its backup here: instep pki restore --from FILE",
                code="no_ca_key",
            )
        key = self._load_key("ca.key")
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError("ca.key is a key of the wrong kind", code="key_kind")
        return key

    def locked(self) -> contextlib.AbstractContextManager[None]:
        busy = ContentionError(f"{self.directory} is being changed by another program", code="pki_locked")
        return locked(self._path(".lock"), os.O_RDWR | os.O_CREAT, _LOCK_S, busy)


def _is_current(record: Record, now_ms: int) -> bool:
    return record.revoked_at_ms is None and record.not_after_ms > now_ms
