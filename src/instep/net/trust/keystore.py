"""Keys and certificates leaving the node on purpose: encrypted backups of the CA, exports for other programs.

Implements the section "Backup and export" of ``docs/spec/wire.md``. Passphrases come from a file or a prompt
and arrive here as bytes; they are never arguments of a program.
"""

from __future__ import annotations

import contextlib
import enum
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import pkcs12

from instep.errors import DamagedError, NotAllowedError, RefusedError, ResourceError, UsageError
from instep.net.trust.certs import Purpose, pin_of
from instep.net.trust.decoding import certificates_of_pem
from instep.net.trust.key_files import sync_folder, write_file
from instep.net.trust.pki import Pki
from instep.net.trust.revocation import union_of_pem

_MAGIC = b"instep pki backup 1\n"
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 16, 8, 1
"""64 MiB and about 0.2 s for each guess."""
_PASSPHRASE_MIN = 8
_BACKUP_MAX = 64 << 20
_KEYTOOL_S = 60.0
Scratch = Callable[[], AbstractContextManager[Path]]
"""Makes a folder of this user's alone, which is removed at the end of the block."""


class ExportFormat(enum.Enum):
    PEM = "pem"
    PKCS12 = "pkcs12"
    JKS = "jks"


class _Backup(msgspec.Struct, frozen=True):
    """Everything that a new machine needs to be this cluster's CA and this node."""

    made_at_ms: int
    files: dict[str, bytes]


_ALWAYS = ("ca.crt", "ca.key", "node.crt", "node.key", "sign.crt", "sign.key", "crl.pem")


def backup(pki: Pki, to: Path, passphrase: bytes, now_ms: int) -> None:
    """Write the CA, its records and this node's keys, encrypted (scrypt, AES-256-GCM), and note that it was
    done. ``NotAllowedError`` where there is no CA; ``RefusedError`` when ``to`` exists."""
    if not pki.is_ca:
        raise NotAllowedError(
            "this node does not hold the cluster's CA",
            hint="run it on the node that holds the CA key",
            code="no_ca_key",
        )
    if len(passphrase) < _PASSPHRASE_MIN:
        raise UsageError(f"a passphrase has at least {_PASSPHRASE_MIN} characters", code="passphrase_short")
    if to.exists():
        raise RefusedError(f"{to} exists", hint="name another file", code="exists", path=str(to))
    names = [*_ALWAYS, *(f"issued/{path.name}" for path in sorted((pki.directory / "issued").glob("*.json")))]
    files = {name: (pki.directory / name).read_bytes() for name in names}
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    plain = msgspec.msgpack.encode(_Backup(now_ms, files))
    sealed = AESGCM(_key(passphrase, salt)).encrypt(nonce, plain, _MAGIC)
    write_file(to, _MAGIC + salt + nonce + sealed, mode=0o600)
    pki.mark_backed_up(now_ms)


def restore(file: Path, directory: Path, passphrase: bytes) -> Pki:
    """Put a backup into a ``pki/`` directory that has no CA. Nothing is written before all of it was checked;
    a revocation list there that is newer stays. ``NotAllowedError`` ``bad_passphrase``, ``DamagedError``."""
    if (directory / "ca.key").exists():
        raise RefusedError(f"{directory} holds a CA already", code="exists", path=str(directory))
    content = _opened(file, passphrase)
    certificates_of_pem(content.files["ca.crt"])
    union_of_pem(content.files["crl.pem"])
    (directory / "trusted").mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "issued").mkdir(mode=0o700, exist_ok=True)
    for name, data in sorted(content.files.items(), key=lambda item: item[0] == "ca.key"):
        if name == "crl.pem" and (directory / name).exists():
            continue
        mode = 0o600 if name.endswith(".key") else 0o644
        write_file(directory / name, data, mode=mode, of_node=True)
    restored = Pki(directory)
    restored.mark_restored()
    return restored


def adopt_ca(file: Path, pki: Pki, passphrase: bytes) -> bool:
    """Take the CA of a backup, and nothing else of it, into a node that has its own keys: it issues and revokes from
    now on. Whether it was news. ``RefusedError`` ``other_cluster`` when this node trusts another CA."""
    content = _opened(file, passphrase)
    theirs = certificates_of_pem(content.files["ca.crt"])[0]
    if pin_of(theirs) not in {pin_of(one) for one in pki.authorities()}:
        raise RefusedError(
            f"{file} is the backup of another cluster's CA ({theirs.subject.rfc4514_string()})",
            hint="name the backup of this cluster; see its CA: instep pki list",
            code="other_cluster",
            path=str(file),
            ours=pin_of(pki.ca()),
            theirs=pin_of(theirs),
        )
    if pki.is_ca:
        return False
    pki.take_ca(
        content.files["ca.key"],
        content.files["crl.pem"],
        {name: data for name, data in content.files.items() if name.startswith("issued/")},
    )
    return True


def give_up_ca(pki: Pki) -> None:
    """Be no CA any more, durably: the other way from ``adopt_ca``."""
    (pki.directory / "ca.key").unlink()
    sync_folder(pki.directory)


def _opened(file: Path, passphrase: bytes) -> _Backup:
    """A backup whose seal fits the passphrase and whose names are all ours."""
    try:
        if file.stat().st_size > _BACKUP_MAX:
            raise DamagedError(f"{file} is no backup of instep's keys: too large", code="bad_backup")
        raw = file.read_bytes()
    except OSError as error:
        raise ResourceError(f"{file} cannot be read: {error.strerror}", path=str(file)) from error
    body = raw.removeprefix(_MAGIC)
    if body == raw or len(body) < 44:
        raise DamagedError(f"{file} is no backup of instep's keys", code="bad_backup", path=str(file))
    try:
        plain = AESGCM(_key(passphrase, body[:16])).decrypt(body[16:28], body[28:], _MAGIC)
    except InvalidTag as error:
        raise NotAllowedError(
            "the passphrase is wrong or the backup is damaged", code="bad_passphrase", path=str(file)
        ) from error
    try:
        content = msgspec.msgpack.decode(plain, type=_Backup)
    except msgspec.DecodeError as error:
        raise DamagedError(f"{file} cannot be decoded: {error}", code="bad_backup") from error
    for name in content.files:
        folder, _, base = name.rpartition("/")
        if name not in _ALWAYS and (folder != "issued" or not base.endswith(".json") or base.startswith(".")):
            raise DamagedError(f"{file} holds {name!r}, which is not ours", code="bad_backup")
    return content


def _key(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P).derive(passphrase)


def export(pki: Pki, form: ExportFormat, to: Path, passphrase: bytes, scratch: Scratch) -> list[Path]:
    """This node's TLS identity for another program (E8, K13); the written files, keys with mode 0600.
    ``pem``: ``NAME.crt`` (with the CA), ``NAME.key`` (encrypted) and ``ca-bundle.crt`` below the directory
    ``to``; ``pkcs12`` and ``jks``: one file. ``scratch`` gives a folder for the length of a call."""
    if len(passphrase) < _PASSPHRASE_MIN:
        raise UsageError(f"a passphrase has at least {_PASSPHRASE_MIN} characters", code="passphrase_short")
    name = pki.name
    key = pki.tls_key()
    certificate = pki.certificate(Purpose.TLS)
    if form is ExportFormat.PEM:
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        encrypted = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase),
        )
        files = {
            f"{name}.crt": pki.certificate_path().read_bytes() + pki.authorities_pem(),
            f"{name}.key": encrypted,
            "ca-bundle.crt": pki.authorities_pem(),
        }
        for base, data in files.items():
            write_file(to / base, data, mode=0o600 if base.endswith(".key") else 0o644)
        return [to / base for base in files]
    packed = pkcs12.serialize_key_and_certificates(
        name.encode("ascii"),
        key,
        certificate,
        pki.authorities(),
        serialization.BestAvailableEncryption(passphrase),
    )
    if form is ExportFormat.PKCS12:
        write_file(to, packed, mode=0o600)
        return [to]
    with scratch() as folder:
        write_file(to, _keytool(packed, to, passphrase, folder), mode=0o600)
    return [to]


def export_open(pki: Pki, to: Path) -> list[Path]:
    """This node's TLS identity for a program that reads no encrypted key: ``NAME.pem`` with the certificate, the CA and
    the key, mode 0600, below the directory ``to``."""
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = pki.tls_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = to / f"{pki.name}.pem"
    write_file(file, pki.certificate_path().read_bytes() + pki.authorities_pem() + key, mode=0o600)
    return [file]


def _keytool(packed: bytes, to: Path, passphrase: bytes, folder: Path) -> bytes:
    """Only Java writes its old format. The passphrase is in memory, never in a file of the disk or an argument."""
    tool = shutil.which("keytool")
    if tool is None:
        raise ResourceError(
            "writing a JKS file needs Java's keytool, which is not installed",
            hint="use --format pkcs12, which Java 9 and later read too, or install a Java runtime",
            code="no_keytool",
        )
    if to.exists():
        raise RefusedError(f"{to} exists", hint="name another file", code="exists", path=str(to))
    source, made = folder / "source.p12", folder / "made.jks"
    write_file(source, packed, mode=0o600)
    with _in_memory(passphrase) as secret:
        arguments = [tool, "-importkeystore", "-noprompt", "-srcstoretype", "PKCS12", "-deststoretype", "JKS"]
        arguments += ["-srckeystore", str(source), "-destkeystore", str(made)]
        arguments += ["-srcstorepass:file", f"/dev/fd/{secret}", "-deststorepass:file", f"/dev/fd/{secret}"]
        try:
            done = subprocess.run(
                arguments, capture_output=True, timeout=_KEYTOOL_S, check=False, stdin=subprocess.DEVNULL,
                pass_fds=(secret,),
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ResourceError(f"keytool took longer than {_KEYTOOL_S:.0f} s", code="keytool") from error
    if done.returncode or not made.exists():
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()[-500:]
        raise ResourceError(f"keytool failed: {said}", code="keytool")
    return made.read_bytes()


@contextlib.contextmanager
def _in_memory(secret: bytes) -> Iterator[int]:
    """A descriptor that a program opens again by its number."""
    fd = os.memfd_create("passphrase", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(secret)
        yield fd
    finally:
        os.close(fd)
