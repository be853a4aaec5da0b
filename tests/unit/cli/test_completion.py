"""The shell completion of settings comes from their declarations."""

from __future__ import annotations

from click.shell_completion import ShellComplete

from instep.cli.main import cli


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
    assert completed("drift=") == ["drift=revert", "drift=keep"]
    assert completed("rollout.strategy=c") == ["rollout.strategy=canary"]
    assert completed("settle=") == completed("nothing=") == completed("archive.=") == []
