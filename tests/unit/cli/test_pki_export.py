"""No key of a node is put where a fileset would carry it to others."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from instep.cli.main import run
from instep.model.ids import node_name
from instep.net.trust.pki import Pki
from instep.node.config.editing import edits
from instep.node.directory import NodeDirectory


def test_a_key_is_not_exported_into_a_fileset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree, node = tmp_path / "tree", str(tmp_path / "n")
    tree.mkdir()
    (tmp_path / "link").symlink_to(tree)
    edits.create(NodeDirectory(Path(node)), {"name": "main"})
    Pki.create(Path(node) / "pki", "maps", node_name("main"), int(time.time() * 1000))
    assert run(["--dir", node, "fileset", "add", "maps", str(tree)]) == 0
    for inside in (tree / "main-pem", tmp_path / "link" / "main-pem"):
        capsys.readouterr()
        assert (
            run(["--dir", node, "pki", "export", "main", "--format", "pem", "--to", str(inside), "--json"])
            == 4
        )
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "key_in_a_fileset"
    assert not (tree / "main-pem").exists()
    assert (
        run(["--dir", node, "pki", "export", "main", "--format", "pem", "--to", str(tmp_path / "out")]) == 0
    )
