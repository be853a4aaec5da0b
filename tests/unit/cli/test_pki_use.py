"""``pki use``: a certificate of another CA is checked before anything changes, and goes again."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from instep.cli.main import run
from instep.model.ids import node_name
from instep.net.connections.tls import TlsContexts
from instep.net.trust.certs import pem_of
from instep.net.trust.pki import Pki
from instep.net.trust.pki_problems import problems_of
from instep.net.trust.shown import Shown
from instep.node.config.editing import edits
from instep.node.directory import NodeDirectory
from tests.support.certificates import DAY_MS, OtherAuthority, new_key, pem_of_key

NOW = time.time_ns() // 1_000_000
OTHER = OtherAuthority(NOW)
KEY = new_key()
GOOD = OTHER.issue(["main.example.org"], KEY)
CHAIN = OTHER.bundle(GOOD)
SEALED = pem_of_key(KEY, b"a passphrase")


@pytest.fixture
def node(tmp_path: Path) -> NodeDirectory:
    node = NodeDirectory(tmp_path / "n")
    edits.create(node, {"name": "main"})
    Pki.create(node.pki, "maps", node_name("main"), NOW)
    return node


def _with(names: list[str], **how: object) -> Callable[[], bytes]:
    return lambda: OTHER.bundle(OTHER.issue(names, KEY, **how), KEY)  # type: ignore[arg-type]


def _weak() -> bytes:
    key = rsa.generate_private_key(65_537, 1024)
    return OTHER.bundle(OTHER.issue(["main"], key), key)


BAD: dict[str, tuple[Callable[[], bytes], str, int]] = {
    "no certificate": (lambda: pem_of_key(KEY), "bad_certificate", 3),
    "no PEM": (lambda: b"\x00" * 100, "bad_certificate", 3),
    "no key": (lambda: CHAIN, "key_missing", 3),
    "another key": (lambda: CHAIN + pem_of_key(new_key()), "key_mismatch", 3),
    "a sealed key": (lambda: CHAIN + SEALED, "key_encrypted", 3),
    "a broken key": (lambda: CHAIN + pem_of_key(KEY).replace(b"\nMI", b"\nXX"), "bad_key", 3),
    "a weak key": (_weak, "weak_key", 4),
    "the CA's certificate": (lambda: pem_of(OTHER.issuer) + pem_of_key(OTHER.key), "is_authority", 4),
    "for clients": (_with(["main"], usages=(ExtendedKeyUsageOID.CLIENT_AUTH,)), "wrong_usage", 4),
    "another host": (_with(["www.example.org", "*.example.org"]), "wrong_host", 4),
    "a longer name": (_with(["notmain.example.org"]), "wrong_host", 4),
    "no name": (lambda: OTHER.bundle(OTHER.issue(["instep:node:main"], KEY), KEY), "wrong_host", 4),
    "over": (_with(["main"], days=(-30, -1)), "certificate_expired", 4),
    "not yet": (_with(["main"], days=(1, 30)), "certificate_early", 4),
    "not its issuer": (
        lambda: pem_of(GOOD) + pem_of(OtherAuthority(NOW).issuer) + pem_of_key(KEY),
        "chain_broken",
        4,
    ),
    "a bundle": (lambda: pem_of(GOOD) * 200 + pem_of_key(KEY), "too_many_certificates", 2),
    "a large file": (lambda: b"x" * (2 << 20), "too_many_certificates", 2),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_named_and_changes_nothing(
    what: str, node: NodeDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, code, exit_code = BAD[what]
    file = tmp_path / "file.pem"
    file.write_bytes(make())
    before = {path.name: path.read_bytes() for path in node.pki.iterdir() if path.is_file()}
    assert run(["--dir", str(node.path), "pki", "use", str(file), "--json"]) == exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code
    assert "\0" not in error["reason"] and error["hint"]
    after = {path.name: path.read_bytes() for path in node.pki.iterdir() if path.is_file()}
    assert after == before


def test_a_pipe_is_read_and_one_that_never_ends_is_named(
    node: NodeDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write, "wb") as writer:
        writer.write(CHAIN + pem_of_key(KEY))
        writer.close()
        assert _use(node, capsys, f"/proc/self/fd/{read}")["changed"] is True
    monkeypatch.setattr("instep.net.trust.shown_file._PIPE_S", 0.05)
    os.mkfifo(tmp_path / "pipe")
    assert run(["--dir", str(node.path), "pki", "use", str(tmp_path / "pipe"), "--json"]) == 8
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "unreadable"


def test_a_full_disk_is_named_and_the_certificate_of_before_stays(
    node: NodeDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.pem"
    file.write_bytes(CHAIN + pem_of_key(KEY))
    _use(node, capsys, str(file))
    before = Shown(Pki(node.pki)).path.read_bytes()

    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("instep.net.trust.shown.write_beside", full)
    assert run(["--dir", str(node.path), "pki", "use", str(file), "--json"]) == 8
    error = json.loads(capsys.readouterr().out)["error"]
    assert "No space left on device" in error["reason"] and str(node.pki) in error["reason"]
    assert Shown(Pki(node.pki)).path.read_bytes() == before


def test_a_key_that_others_can_read_is_named(
    node: NodeDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file.pem"
    file.write_bytes(CHAIN + pem_of_key(KEY))
    for mode, is_said in ((0o644, True), (0o600, False)):
        file.chmod(mode)
        assert run(["--dir", str(node.path), "pki", "use", str(file)]) == 0
        told = capsys.readouterr()
        assert (f"chmod 600 {file}" in told.out + told.err) is is_said


def _use(node: NodeDirectory, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert run(["--dir", str(node.path), "pki", "use", *arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert isinstance(told, dict)
    return told


def test_a_good_file_is_shown_until_it_ends(
    node: NodeDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: keys from each place; the same again changes nothing; the end is said beforehand, and then the node shows its
    own certificate again."""
    pki = Pki(node.pki)
    pin = pki.pin
    file, key_file, passphrase = tmp_path / "file.pem", tmp_path / "key.pem", tmp_path / "pass"
    passphrase.write_bytes(b"a passphrase\n")
    passphrase.chmod(0o600)
    key_file.write_bytes(SEALED)
    file.write_bytes(CHAIN)
    asked = (str(file), "--key", str(key_file), "--passphrase-file", str(passphrase))
    assert _use(node, capsys, *asked, "--dry-run")["changed"] is False
    assert not Shown(pki).path.exists()
    told = _use(node, capsys, *asked)
    assert (told["changed"], told["missing_issuer"]) == (True, "CN=Root")
    assert _use(node, capsys, *asked)["changed"] is False
    assert Shown(pki).path.stat().st_mode & 0o777 == 0o600
    assert pki.pin == pin, "the node is the same"
    assert not problems_of(pki, NOW)
    file.write_bytes(OTHER.bundle(OTHER.issue(["main"], pki.tls_key(), days=(-1, 60))))
    assert _use(node, capsys, str(file))["changed"] is True
    assert b"PRIVATE" not in Shown(pki).path.read_bytes(), "the key is the node's own"
    for days, said in ((0, None), (50, "ends on"), (61, "expired on")):
        at_ms = NOW + days * DAY_MS
        found = [each for each in problems_of(pki, at_ms) if each.path.name == "shown.pem"]
        assert [said in each.detail for each in found if said] == [True] * (said is not None), found
        assert (TlsContexts(pki, partial(int, at_ms)).shows is not None) is (days < 60)
    assert [_use(node, capsys, "--cluster")["changed"] for _ in range(2)] == [True, False]
    assert {path.name for path in node.pki.glob("*.pem")} == {"crl.pem"}


@pytest.mark.parametrize("raw", [b"", b"junk", pem_of(GOOD), pem_of_key(KEY), CHAIN + pem_of_key(new_key())])
def test_a_damaged_file_stops_no_node(node: NodeDirectory, raw: bytes) -> None:
    """Goal: after an edit of ``shown.pem`` the node starts, shows its own certificate and says so."""
    pki = Pki(node.pki)
    path = Shown(pki).path
    path.write_bytes(raw)
    path.chmod(0o600)
    assert TlsContexts(pki).shows is None
    assert [each.what for each in problems_of(pki, NOW) if each.path == path] == ["damaged"]
