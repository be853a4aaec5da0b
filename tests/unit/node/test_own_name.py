"""A daemon does not start under another name than its certificates have: a rename was interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.daemon.process import require_own_name
from instep.errors import ConfigError
from instep.model.ids import NodeName
from instep.net.trust.pki import Pki

NOW_MS = 1_800_000_000_000


def test_a_node_that_is_half_renamed_names_the_command_that_ends_it(tmp_path: Path) -> None:
    pki = Pki.create(tmp_path / "pki", "cluster", NodeName("web1"), NOW_MS)
    require_own_name(pki, NodeName("web1"))
    with pytest.raises(ConfigError) as refused:
        require_own_name(pki, NodeName("s1"))
    assert refused.value.error_code == "name_differs"
    assert "instep node rename s1 web1;" in str(refused.value.hint)


def test_damaged_certificates_are_left_to_their_own_words(tmp_path: Path) -> None:
    pki = Pki.create(tmp_path / "pki", "cluster", NodeName("web1"), NOW_MS)
    (tmp_path / "pki" / "node.crt").write_bytes(b"no certificate")
    require_own_name(pki, NodeName("web1"))
    (tmp_path / "pki" / "node.crt").unlink()
    require_own_name(pki, NodeName("web1"))
