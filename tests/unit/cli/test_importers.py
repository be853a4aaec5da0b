"""Old set-ups as plans: what they meant is kept or said, each command can be typed, and the writer's work as they are."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from instep.cli.main import run
from instep.node.config.loading import load
from tests.unit.cli.test_hints import why_not_typed

MIRRORS = """<ServerConfig><ImageManager/><Mirrors>
<Secondary host="images2.example.org" port="8080" ssl="none"/><Secondary host="10.0.0.7" ssl="noverify"/>
<Secondary host="images3.example.org" sslstrictness="strict"/></Mirrors></ServerConfig>"""
CSYNC2 = """nossl * *;
group web {
    host web1 web2 (backup@10.0.0.9);   # the last one only receives
    key /etc/csync2.key_web;
    include @/etc/apache2 @/etc/hosts.conf; include %data%/www;
    exclude @/etc/apache2/envvars *~;
    action { pattern @/etc/apache2/*.conf; exec "apache2ctl graceful"; logfile "/var/log/a.log"; do-local; }
    action { exec "echo %% | logger"; }
    auto younger;
}
prefix data { on web[12]: @/srv; on *: /backup; }
"""
INCRON = """@/geo/global.xml IN_CLOSE_WRITE,IN_MODIFY /usr/local/bin/refresh.py
@/tiles IN_CLOSE_WRITE /usr/local/bin/seed --all
"""
EXPORTS = "@/geo 10.0.0.2(sync,rw,no_subtree_check) geo3.example.org(sync,ro)\n@/tiles 10.0.0.0/24(ro)\n"


def _plan(
    kind: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> dict[str, Any]:
    """The plan for a file whose paths lie below a directory of the test."""
    for folder in ("etc/apache2", "srv/www", "geo", "tiles"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    file = tmp_path / f"{kind}.cfg"
    file.write_text(text.replace("@/", f"{tmp_path}/"))
    assert run(["import", kind, str(file), *words, "--json"]) == 0, capsys.readouterr().err
    plan: dict[str, Any] = json.loads(capsys.readouterr().out)
    typed = [step["command"].replace(" ADDRESS", " 10.0.0.9") for step in plan["steps"] if step["command"]]
    assert not {
        command: why
        for command in typed
        if (why := why_not_typed(command.removeprefix("instep "))) is not None
    }
    return plan


def _on(plan: dict[str, Any], node: str) -> list[str]:
    return [step["command"] for step in plan["steps"] if step["node"] == node and step["command"]]


def _begin(plan: dict[str, Any], node: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Type the writer's commands, up to the first one that needs a daemon; its directory."""
    directory = tmp_path.parent / f"{tmp_path.name}-node"
    for command in _on(plan, node):
        if command.startswith("instep invite"):
            break
        words = [word for word in shlex.split(command)[1:] if word != "--start"]
        assert run(["--dir", str(directory), *words]) == 0, capsys.readouterr().err
    capsys.readouterr()
    return directory


def test_a_mirror_list_becomes_mutual_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: each secondary is invited by name or address, and what its TLS mode allowed until now is said (E7)."""
    plan = _plan("express", MIRRORS, tmp_path, capsys, "--writer", "10.0.0.1")
    invited = [command for command in _on(plan, "main") if "invite" in command]
    assert invited == [
        "instep invite images2 --from ADDRESS", "instep invite s1 --from 10.0.0.7", "instep invite images3 --from ADDRESS",
    ]  # fmt: skip
    said = "\n".join(plan["remarks"])
    assert "images2 (images2.example.org:8080) was reached over plain HTTP" in said
    assert "s1 (10.0.0.7:80) was reached over HTTPS, and any certificate was taken" in said
    assert said.count("mutual TLS, pinned by the token") == 3
    node = _begin(plan, "main", tmp_path, capsys)
    assert "/express.cfg" in str(load(node).filesets["catalogue"].definition)  # type: ignore[index]


def test_groups_become_filesets_with_their_actions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: one host writes, paths and patterns are kept, actions are hooks for the paths they were for, a prefix is another
    root; lines without a counterpart are named."""
    plan = _plan("csync2", CSYNC2, tmp_path, capsys)
    found = load(_begin(plan, "web1", tmp_path, capsys)).filesets
    web, www = found["web"], found["web-2"]  # type: ignore[index]
    assert (web.path, www.path) == (tmp_path / "etc", tmp_path / "srv/www")
    assert web.definition is not None
    assert set(web.definition.include) == {"/hosts.conf", "/apache2/"}
    assert set(web.definition.ignore) == {"/apache2/envvars", "*~"}
    (hook,) = web.hooks.reload
    assert (hook.run, hook.paths) == (("/bin/sh", "-c", "apache2ctl graceful"), ("/apache2/*.conf",))
    assert "instep fileset accept web-2 /backup/www --seed" in _on(plan, "backup")
    assert f"instep fileset accept web-2 {tmp_path}/srv/www --seed" in _on(plan, "web2")
    said = "\n".join(plan["remarks"])
    assert "csync2 took changes of web1, web2" in said and "auto younger has no counterpart" in said
    assert "'echo %% | logger' gets changed paths" in said


def test_a_watched_export_becomes_a_mirror(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: the clients of an export follow its tree, the watched file is what publishes, the program is each node's hook."""
    exports = tmp_path / "exports"
    exports.write_text(EXPORTS.replace("@/", f"{tmp_path}/"))
    plan = _plan("incron", INCRON, tmp_path, capsys, "--exports", str(exports), "--writer", "10.0.0.1")
    found = load(_begin(plan, "main", tmp_path, capsys))
    assert [str(one) for one in found.allow] == ["10.0.0.0/24"]
    assert found.filesets["geo"].trigger == b"global.xml", "by the recipe of GeoServer"  # type: ignore[index]
    assert any("--recipe geoserver" in command for command in _on(plan, "geo3"))
    assert 'instep fileset set tiles \'hooks.reload={ run = ["/usr/local/bin/seed", "--all"] }\'' in _on(
        plan, "s1"
    )
    assert "10.0.0.2 could write" in "\n".join(plan["remarks"])


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("express", "<a><Mirrors/></a>", "only a primary has that list"),
        ("express", "<!DOCTYPE a><a/>", "declares entities"),
        ("express", '<a><Mirrors><Secondary host="x" ssl="maybe"/></Mirrors></a>', "ssl 'maybe'"),
        ("csync2", "group web { host a; include /b;", "its end is missing"),
        ("csync2", "group web { host (a); }", "every host is a slave"),
        ("csync2", "}", "line 1"),
        ("incron", "/a IN_MODIFY", "line 1 is not PATH MASK COMMAND"),
        ("incron", "# nothing", "it watches nothing"),
    ],
)
def test_other_files_are_refused_with_the_reason(
    kind: str, text: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    writer = () if kind == "csync2" else ("--writer", "main")
    assert run(["import", kind, str(file), *writer, "--json"]) == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "import_refused" and why in error["reason"], error


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("csync2", "group a { host x y; include -rf; }", "'-rf' of group a is no absolute path"),
        ("csync2", "group a { host x y; include %gone%/etc; }", "no absolute path"),
        ("csync2", "prefix p { on y: -rf; on *: /srv; } group a { host x y; include %p%; }", "'-rf' on y"),
        ("csync2", 'group a { host x y; include "/etc/\x1b[2J"; }', "cannot be typed"),
        ("incron", "/etc/\x07bell IN_CLOSE_WRITE /bin/true\n", "cannot be typed"),
    ],
)
def test_a_name_that_no_operator_means_is_refused(
    kind: str, text: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: a word of an old file was planned as an option of a command, or as another path than it names."""
    file = tmp_path / "old.cfg"
    file.write_text(text)
    assert run(["import", kind, str(file), "--writer", "x", "--json"]) == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "import_refused" and why in error["reason"], error


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert run(["import", "express", str(tmp_path / "pipe")]) == 3
    assert "it is not a plain file" in capsys.readouterr().err
