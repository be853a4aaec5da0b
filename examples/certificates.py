"""A self-signed certificate with its key, and the one that a server shows."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from pathlib import Path

from examples.servers import program

__all__ = ["certificate_at", "new_certificate"]

COMMAND_S = 60.0


def new_certificate(tree: Path, name: str) -> str:
    """``server.key`` and ``server.crt`` in ``tree``, made beside it; the digest of the certificate."""
    key, certificate = (tree.parent / f"server.{end}" for end in ("key", "crt"))
    subprocess.run(
        [
            program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "90", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(certificate),
        ],
        check=True, capture_output=True, timeout=COMMAND_S,
    )  # fmt: skip
    for file in (key, certificate):
        file.chmod(0o600)
        file.rename(tree / file.name)
    return _digest((tree / certificate.name).read_text())


def certificate_at(port: int) -> str:
    """The digest of the certificate that a server on loopback shows."""
    return _digest(ssl.get_server_certificate(("127.0.0.1", port), timeout=5))


def _digest(pem: str) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
