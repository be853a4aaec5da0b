"""Partners of other clusters, each trusted by its key alone. Implements "Federation" of ``docs/spec/wire.md``.

A file ``trusted/NAME.crt`` has the newest certificate of the key and, where it is known, its issuer: TLS verifies
certificates and no keys. ``trusted/NAME.sign`` has the key that the partner signs with, in hexadecimal.
``trusted/NAME.introduced`` has the key of a node that is no partner, and the partner that introduced it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from cryptography import x509

from instep.errors import DamagedError, InstepError, UsageError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import NodeName, node_name
from instep.net.trust.certs import pem_of, was_issued_by
from instep.net.trust.decoding import certificates_of_pem, require_loadable
from instep.net.trust.key_files import sync_folder, write_file

T = TypeVar("T")


def is_sign_key(key: bytes) -> bool:
    """Whether this can be an Ed25519 key, by its length."""
    return len(key) == 32


class Introduced(msgspec.Struct, frozen=True):
    """A node that a partner introduced: the key that it signs with, in hexadecimal, and when that was."""

    key: str
    by: NodeName
    at_ms: int

    @property
    def raw(self) -> bytes:
        return bytes.fromhex(self.key)


class Pins:
    """Those of one node, in its ``pki/`` directory."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / "trusted"
        self._certificates = _Files(self._folder, "crt", _chain_of)
        self._introductions = _Files(self._folder, "introduced", _introduced_in)

    def pin(self, name: NodeName, chain: Sequence[x509.Certificate]) -> bool:
        """Trust the key of the first of these certificates for this partner; whether that changed the file.
        ``PeerError`` ``bad_certificate`` for one that no handshake could use."""
        known = self.chains().get(node_name(name), [])
        kept = _with_issuer([*chain, *known[1:]])
        require_loadable(kept)
        if known == kept:
            return False
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(self._folder / f"{name}.crt", b"".join(map(pem_of, kept)), mode=0o644, of_node=True)
        return True

    def renew(self, name: NodeName, chain: Sequence[x509.Certificate]) -> bool:
        """Keep another certificate of a key that is trusted; whether that changed the file. A partner that was removed
        meanwhile stays removed."""
        return name in self.chains() and self.pin(name, chain)

    def unpin(self, name: NodeName) -> bool:
        """Trust a node of another cluster no more; whether it was pinned."""
        paths = [path for kind in ("crt", "sign") if (path := self._folder / f"{name}.{kind}").exists()]
        for path in paths:
            path.unlink()
        if paths:
            sync_folder(self._folder)
        return bool(paths)

    def keep_sign_key(self, name: NodeName, key: bytes) -> bool:
        """Believe what this partner signs with this key, and no other; whether that is news."""
        if not is_sign_key(key) or self.sign_key(name) == key:
            return False
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(self._folder / f"{name}.sign", key.hex().encode(), mode=0o644, of_node=True)
        return True

    def sign_key(self, name: NodeName) -> bytes | None:
        """The key that this partner signs with, once it is known. ``DamagedError`` when the file has none."""
        path = self._folder / f"{name}.sign"
        try:
            key = bytes.fromhex(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            key = b""
        if not is_sign_key(key):
            raise DamagedError(f"{path} has no key", hint=f"rm {path}; it comes again", code="bad_pin")
        return key

    def introduce(self, name: NodeName, found: Introduced) -> None:
        """Believe what a node that is no partner signs with this key, and no other."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(self._introduction(name), msgspec.json.encode(found), mode=0o644, of_node=True)

    def introduced(self) -> dict[NodeName, Introduced]:
        """The nodes that were introduced, by name; one whose file is damaged is not among them."""
        read = self._introductions.read()
        return {NodeName(path.stem): each for path, each in read.items() if isinstance(each, Introduced)}

    def is_introduced(self, name: NodeName) -> bool:
        """Whether a first introduction of this node was taken, also where the file with it is damaged."""
        return self._introduction(name).exists()

    def forget_introduced(self, name: NodeName) -> bool:
        """The next introduction of this node counts as the first one; whether there was one."""
        try:
            self._introduction(name).unlink()
        except FileNotFoundError:
            return False
        sync_folder(self._folder)
        return True

    def _introduction(self, name: NodeName) -> Path:
        return self._folder / f"{node_name(name)}.introduced"

    def is_pinned(self, name: NodeName) -> bool:
        """Whether a node of another cluster is to be trusted by its key, also where the file with it is damaged."""
        return (self._folder / f"{name}.crt").exists()

    def certificates(self) -> dict[NodeName, x509.Certificate]:
        """The certificate of each partner; its key is what is trusted."""
        return {name: chain[0] for name, chain in self.chains().items()}

    def chains(self) -> dict[NodeName, list[x509.Certificate]]:
        """The same, each with its issuer, where that is known. A partner whose file is damaged is not among them."""
        read = self._certificates.read()
        return {NodeName(path.stem): chain for path, chain in read.items() if isinstance(chain, list)}

    def damaged(self) -> dict[Path, DamagedError]:
        """The files that cannot be used: no node is trusted by them, and the others are."""
        read = self._certificates.read() | self._introductions.read()
        return {path: error for path, error in read.items() if isinstance(error, DamagedError)}


class _Files(Generic[T]):
    """What ``parse`` makes of each file of a folder with one suffix; one that did not change is not parsed again."""

    def __init__(self, folder: Path, suffix: str, parse: Callable[[Path], T]) -> None:
        self._folder, self._suffix, self._parse = folder, suffix, parse
        self._known: dict[Path, tuple[tuple[int, ...], T | DamagedError]] = {}

    def read(self) -> dict[Path, T | DamagedError]:
        read: dict[Path, tuple[tuple[int, ...], T | DamagedError]] = {}
        for path in sorted(self._folder.glob(f"*.{self._suffix}")):
            try:
                found = path.stat()
            except FileNotFoundError:
                continue  # it has just gone
            stamp = (found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size)
            known = self._known.get(path)
            read[path] = known if known is not None and known[0] == stamp else (stamp, self._parsed(path))
        self._known = read
        return {path: value for path, (_, value) in read.items()}

    def _parsed(self, path: Path) -> T | DamagedError:
        try:
            node_name(path.stem)
        except UsageError as error:
            return DamagedError(error.reason, hint=f"move {path} elsewhere", code="bad_pin")
        try:
            return self._parse(path)
        except OSError as error:
            why = error.strerror or str(error)
        except (InstepError, *DECODE_ERRORS, ValueError) as error:
            why = str(error)
        cure = f"instep pki trust forget {path.stem}; the next introduction counts as the first"
        if self._suffix == "crt":
            cure = f"instep partner add {path.stem} ADDRESS --pin FINGERPRINT; or: instep partner remove {path.stem}"
        return DamagedError(why, hint=cure, code="bad_pin")


def _chain_of(path: Path) -> list[x509.Certificate]:
    chain = certificates_of_pem(path.read_bytes())
    require_loadable(chain)
    return chain


def _introduced_in(path: Path) -> Introduced:
    found = msgspec.json.decode(path.read_bytes(), type=Introduced)
    if not is_sign_key(found.raw):
        raise ValueError("it has no key")
    return found


def _with_issuer(presented: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """A node's certificate and, where it is among those that were presented with it, the authority that issued it. One
    whose key identifier is not that of its key is left out: it could pass for another authority when OpenSSL
    looks for an issuer."""
    first, *others = presented
    return [first, *[one for one in others if was_issued_by(first, [one]) and _is_true_to_its_key(one)][:1]]


def _is_true_to_its_key(authority: x509.Certificate) -> bool:
    key_id = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    try:
        return authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value == key_id
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
