"""The CA's key on a node that asked for a promotion: it stays where the node became the writer, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instep.cli.main import run
from instep.model.ids import node_name
from instep.net.trust import keystore
from instep.net.trust.pki import Pki
from instep.node.config.editing import edits
from instep.node.directory import NodeDirectory
from tests.support.control_server import FakeDaemon

NOW = 1_900_000_000_000


def plan(*, changed: bool) -> dict[str, Any]:
    return {
        "fileset": "maps", "writer": "s1", "changed": changed, "epoch": 1, "generation": None, "base": None, "lost": [],
        "has_ca_key": False, "next": [], "unheard": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("is_writer", "code"), [(False, "home_lives"), (False, "timed_out"), (True, "timed_out")]
)
def test_a_promotion_that_fails_leaves_no_key_behind_on_a_node_that_does_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_writer: bool, code: str
) -> None:
    monkeypatch.setattr(keystore, "_SCRYPT_N", 1 << 10)
    ca = Pki.create(tmp_path / "ca", "maps", node_name("main"), NOW)
    keystore.backup(ca, tmp_path / "backup", b"correct horse", NOW)
    words = tmp_path / "words"
    words.write_text("correct horse")
    words.chmod(0o600)
    node = NodeDirectory(tmp_path / "n")
    edits.create(node, {"name": "s1", "listen": "127.0.0.1:7443", "allow": []})
    pki = Pki(node.pki)
    pki.install(
        node_name("s1"),
        ca.authorities_pem(),
        ca.issue(node_name("s1"), *pki.requests(node_name("s1")), NOW),
        ca.crl_pem(),
    )
    asked: list[bool] = []

    def promoted(params: dict[str, Any]) -> list[dict[str, Any]]:
        if params.get("dry_run"):
            return [{"result": plan(changed=not (asked and is_writer))}]
        asked.append(pki.is_ca)
        return [{"error": {"exit_code": 4 if code == "home_lives" else 6, "reason": "refused", "code": code}}]

    with FakeDaemon(node.socket).running() as daemon:
        daemon.replies("promote", promoted)
        given = (
            "--home-is-dead",
            "--yes",
            "--pki-backup",
            str(tmp_path / "backup"),
            "--passphrase-file",
            str(words),
        )
        assert run(["--dir", str(node.path), "promote", "maps", *given]) in (4, 6)
    assert asked == [True], "the daemon signs with it"
    assert pki.is_ca is is_writer
