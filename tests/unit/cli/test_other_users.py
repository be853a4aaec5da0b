"""A person who may not use a node gets the reason and a way, from every command, and root starts no daemon as root for
a node of another user's."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from instep.api.command import Role
from instep.api.looking import PingCommand, PingDocument, StopCommand, StopDocument
from instep.cli.cluster.launch import owner_of
from instep.cli.control import Control
from instep.cli.main import cli, run
from instep.cli.session import InstepCommand
from instep.errors import NotAllowedError, RefusedError
from instep.node.access.door import CommandDoor
from instep.node.commands.control import ControlServer, Speaker
from instep.node.directory import NodeDirectory, not_allowed
from instep.node.trees import placing
from instep.node.upkeep.after_reboot import Host, Installation
from tests.unit.cli.test_hostile_arguments import TYPED, _commands

OTHER = pwd.getpwnam("daemon").pw_uid
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
WITHOUT_A_NODE = frozenset({"demo", "recipe list", "recipe show", "layout detect", "layout show",
                            "completion", "debug replay", "pki trust fetch", "pki trust import",
                            "init", "join", "config check", "pki restore", "import csync2", "import express", "import incron"})  # fmt: skip
"""Commands that use no node, make one, or read a file first."""


def _lines() -> Iterator[list[str]]:
    for words, command in _commands(cli, ()):
        if " ".join(words) not in WITHOUT_A_NODE:
            yield _right_line(words, command)


def _right_line(words: tuple[str, ...], command: InstepCommand) -> list[str]:
    line = list(words)
    for one in command.params:
        if isinstance(one, click.Option) and one.required:
            line += [one.opts[0], *([] if one.is_flag else [TYPED.get(str(one.name), "/tmp/nowhere")])]
        elif isinstance(one, click.Argument) and one.required:
            line.append(TYPED.get(str(one.name), "s1"))
    return [*line, "--home-is-dead"] if words == ("promote",) else line


@pytest.fixture
def node() -> Iterator[NodeDirectory]:
    """Not below pytest's own folder, which each run of pytest closes to other users."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)
        found = NodeDirectory(Path(folder) / "node")
        found.create()
        found.config.write_text('name = "main"\n')
        yield found


LATE = placing
"""Imported here: the other user may not be able to read a module that a command imports late."""


@AS_ROOT
@pytest.mark.parametrize("line", list(_lines()), ids=" ".join)
@pytest.mark.parametrize("mode", [0o700, 0o711])
def test_another_user_is_told_so(
    line: list[str],
    mode: int,
    node: NodeDirectory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node.path.chmod(mode)
    node.config.chmod(0o600)
    node.socket.touch(0o600)
    monkeypatch.setenv("INSTEP_DIR", str(node.path))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.seteuid(OTHER)
    try:
        code = run([line[0], "--json", *line[1:]])
    finally:
        os.seteuid(0)
    error = json.loads(capsys.readouterr().out)["error"]
    assert (code, error["code"]) == (5, "not_your_node"), error
    assert "sudo" in error["hint"] and "belongs to root" in error["reason"]


@AS_ROOT
def test_root_starts_a_node_as_its_owner(node: NodeDirectory, tmp_path: Path) -> None:
    open_to_all = Host(installation=Installation(Path("/usr"), Path("/usr/bin/env"), Path("/usr/lib")))
    assert owner_of(node, open_to_all) is None
    os.chown(node.path, OTHER, OTHER)
    user = owner_of(node, open_to_all)
    assert user is not None
    assert (user.name, user.uid, user.gid) == (pwd.getpwuid(OTHER).pw_name, OTHER, OTHER)
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    with pytest.raises(RefusedError, match="cannot enter"):
        owner_of(node, Host(installation=Installation(closed, Path("/usr/bin/env"), closed)))


@AS_ROOT
async def test_members_of_the_group_may_look(node: NodeDirectory) -> None:
    async def ping(_: PingCommand, __: Speaker) -> PingDocument:
        return PingDocument("main", 1)

    async def stop(_: StopCommand, __: Speaker) -> StopDocument:
        return StopDocument("main", True)

    def role_of(uid: int) -> Role:
        return Role.ADMIN if uid == 0 else Role.VIEWER

    served = ControlServer(node.socket, CommandDoor({PingCommand: ping, StopCommand: stop}, None), role_of)
    await served.start()
    control = Control(node.socket)
    try:
        for group, code in ((None, "not_your_node"), ("daemon", "role_missing"), (None, "not_your_node")):
            node.share_socket(group)
            os.setegid(OTHER)
            os.seteuid(OTHER)
            try:
                with pytest.raises(NotAllowedError) as refused:
                    await asyncio.to_thread(control.ask, StopCommand(), timeout_s=10.0)
                assert refused.value.error_code == code
                if group is not None:
                    assert (
                        await asyncio.to_thread(control.ask, PingCommand(), timeout_s=10.0)
                    ).node == "main"
                    said = str(not_allowed(node.path).hint)
                    assert "sudo" in said and "name a group" not in said, "it is in the group"
            finally:
                os.seteuid(0)
                os.setegid(0)
            closed = stat.S_IMODE(node.path.stat().st_mode) == 0o700
            assert closed is (group is None), "closed again as it was"
        with pytest.raises(LookupError):
            node.share_socket("no-such-group")
    finally:
        await served.stop()


@AS_ROOT
def test_root_serves_no_node_of_another_user(
    node: NodeDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    os.chown(node.path, OTHER, OTHER)
    assert run(["--dir", str(node.path), "serve"]) == 4
    assert f"sudo -u daemon instep --dir {node.path} serve" in capsys.readouterr().err
