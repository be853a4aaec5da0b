"""``pki trust import``: a bundle of several certificates, each shown with subject and expiry, and trusted where it is a
node's."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from instep.cli.main import run
from instep.model.ids import node_name
from instep.net.trust.certs import Purpose, pem_of
from instep.net.trust.pki import Pki
from instep.node.config.editing import edits
from instep.node.directory import NodeDirectory
from instep.node.runtime.driver import wall_ms

UNTIL = dt.datetime(2031, 5, 4, tzinfo=dt.UTC)


def _of_another_program(subject: str, *, is_ca: bool) -> bytes:
    """As ``openssl req -x509`` makes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(7).not_valid_before(dt.datetime(2021, 5, 4, tzinfo=dt.UTC)).not_valid_after(UNTIL)
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
    )  # fmt: skip
    return pem_of(made.sign(key, hashes.SHA256()))


def test_a_bundle_is_split_and_each_certificate_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = NodeDirectory(tmp_path / "node")
    edits.create(node, {"name": "main", "listen": "127.0.0.1:7443", "allow": []})
    Pki.create(node.pki, "here", node_name("main"), wall_ms())
    monkeypatch.setenv("INSTEP_DIR", str(node.path))
    far = Pki.create(tmp_path / "far", "elsewhere", node_name("far"), wall_ms()).certificate(Purpose.TLS)
    vendor = _of_another_program("images2.example.org", is_ca=False)
    own = _of_another_program("images3.example.org", is_ca=True)
    bundle = tmp_path / "ca-bundle.crt"
    bundle.write_bytes(b"# images2\n" + vendor + own)

    assert run(["pki", "trust", "import", str(bundle), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["trusted"], told["changed"]) == ([], False)
    shown = [(row["subject"], row["not_after"], row["is_ca"], row["trusted"]) for row in told["certificates"]]
    assert shown == [
        ("CN=images2.example.org", "2031-05-04", False, None),
        ("CN=images3.example.org", "2031-05-04", True, None),
    ]
    bundle.write_bytes(bundle.read_bytes() + pem_of(far))
    assert run(["pki", "trust", "import", str(bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "CN=images3.example.org  until 2031-05-04" in lines and "  trusted as far" in lines
    assert sum("not trusted" in line for line in lines) == 2 and lines[-1] == "trusted: far"
    assert list(Pki(node.pki).pins.certificates()) == ["far"]
    bundle.write_text("no certificate")
    assert run(["pki", "trust", "import", str(bundle)]) == 9
