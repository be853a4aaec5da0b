"""Partners of other clusters, each trusted by its key alone. Implements "Federation" of ``docs/spec/wire.md``.

A file ``trusted/NAME.crt`` has the newest certificate of the key and, where it is known, its issuer: TLS verifies
certificates and no keys. ``trusted/NAME.sign`` has the key that the partner signs with, in hexadecimal.
``trusted/NAME.introduced`` has the key of a node that is no partner, and the partner that introduced it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography import x509

from instep.errors import DamagedError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import NodeName, node_name
from instep.net.trust.certs import certificates_of_pem, pem_of, was_issued_by
from instep.net.trust.key_files import sync_folder, write_file


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
        self._introduced: tuple[int, dict[NodeName, Introduced]] = -1, {}

    def pin(self, name: NodeName, chain: Sequence[x509.Certificate]) -> bool:
        """Trust the key of the first of these certificates for this partner; whether that changed the file."""
        known = self.chains().get(node_name(name), [])
        kept = _with_issuer([*chain, *known[1:]])
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
        raw = msgspec.json.encode(found)
        self._introduced = -1, {}  # two writes may bear one time
        write_file(self._folder / f"{node_name(name)}.introduced", raw, mode=0o644, of_node=True)

    def introduced(self) -> dict[NodeName, Introduced]:
        """The nodes that were introduced, by name; read again when a file came or went."""
        try:
            stamp = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return {}
        if self._introduced[0] != stamp:
            self._introduced = stamp, dict(map(_introduced, sorted(self._folder.glob("*.introduced"))))
        return self._introduced[1]

    def forget_introduced(self, name: NodeName) -> bool:
        """The next introduction of this node counts as the first one; whether there was one."""
        try:
            (self._folder / f"{node_name(name)}.introduced").unlink()
        except FileNotFoundError:
            return False
        self._introduced = -1, {}
        sync_folder(self._folder)
        return True

    def certificates(self) -> dict[NodeName, x509.Certificate]:
        """The certificate of each partner; its key is what is trusted."""
        return {name: chain[0] for name, chain in self.chains().items()}

    def chains(self) -> dict[NodeName, list[x509.Certificate]]:
        """The same, each with its issuer, where that is known."""
        return {
            node_name(path.stem): certificates_of_pem(path.read_bytes())
            for path in sorted(self._folder.glob("*.crt"))
        }


def _introduced(path: Path) -> tuple[NodeName, Introduced]:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Introduced)
        if is_sign_key(found.raw):
            return node_name(path.stem), found
    except (*DECODE_ERRORS, ValueError) as error:
        raise DamagedError(f"{path} has no key: {error}", hint=f"rm {path}", code="bad_pin") from error
    raise DamagedError(f"{path} has no key", hint=f"rm {path}", code="bad_pin")


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
