"""The shell completion of settings comes from their declarations."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from instep.cli.main import cli
from instep.node.directory import NodeDirectory


def completed(incomplete: str) -> list[str]:
    shell = ShellComplete(cli, {}, "instep", "_INSTEP_COMPLETE")
    return [
        item.value
        for item in shell.get_completions(["fileset", "set", "catalog", "observe=true"], incomplete)
    ]


def test_settings_of_a_fileset_are_completed_with_their_words() -> None:
    assert completed("se") == ["settle=", "settle_max=", "service="]
    assert completed("hooks.validate.t") == [
        f"hooks.validate.{key}=" for key in ("timeout", "tls", "touch", "tree")
    ]
    assert completed("rollout.on") == ["rollout.on_failure="]
    assert completed("drift=") == ["drift=revert", "drift=keep", "drift=offer"]
    assert completed("rollout.strategy=c") == ["rollout.strategy=canary"]
    assert completed("settle=") == completed("nothing=") == completed("archive.=") == []


@pytest.fixture
def node(tmp_path: Path) -> NodeDirectory:
    found = NodeDirectory(tmp_path / "node")
    found.create()
    found.config.write_text(
        'name = "main"\n[partners.s1]\naddress = "10.0.0.2:7443"\n[partners.s2]\n'
        f'[filesets.catalog]\npath = "{tmp_path}/a"\nwriter = "main"\n'
        f'[filesets.styles]\npath = "{tmp_path}/b"\nwriter = "main"\n'
    )
    return found


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        (["status"], "", ["catalog", "styles"]),
        (["fileset", "show"], "c", ["catalog"]),
        (["handover", "catalog"], "", ["main", "s1", "s2"]),
        (["partner", "remove"], "s", ["s1", "s2"]),
        (["node", "drain"], "m", ["main"]),
        (["rollback"], "st", ["styles"]),
        (["rollback", "catalog"], "", []),
    ],
)
def test_names_of_the_node_are_completed(
    node: NodeDirectory, words: list[str], incomplete: str, offered: list[str]
) -> None:
    """Generations come from the daemon: with none running there are none, and no error."""
    shell = ShellComplete(cli, {}, "instep", "_INSTEP_COMPLETE")
    found = shell.get_completions(["--dir", str(node.path), *words], incomplete)
    assert [item.value for item in found] == offered


def test_without_a_node_there_is_nothing_to_offer(tmp_path: Path) -> None:
    shell = ShellComplete(cli, {}, "instep", "_INSTEP_COMPLETE")
    assert shell.get_completions(["--dir", str(tmp_path), "status"], "") == []
