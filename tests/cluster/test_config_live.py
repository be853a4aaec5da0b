"""``instep.toml`` edited by hand: all problems at once, the old one goes on, the mended one is taken live."""

from __future__ import annotations

import socket

from tests.support.fleet import Fleet, Node, free_port
from tests.support.waiting import eventually

BAD = """
polll = "1s"
rate_limit = "fast"

[partners.s1]
replicate = "yes"

[filesets.data]
path = "relative/path"
writer = "main"
settle = "soon"
max_deletions = "150%"
[filesets.data.hooks]
validate = { run = "a shell line", timeout = "0s" }
"""


def _config(node: Node) -> tuple[str, str]:
    found = node.status()["config"]
    return found["state"], found["running"]


def test_a_bad_file_is_told_whole_and_changes_nothing(fleet: Fleet) -> None:
    """Goal: every problem with line and value at once, by ``config check``, by the daemon that keeps running the old
    one, in ``status`` and by a daemon that does not start; a mended file is live by itself."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "file").write_text("1")
    fleet.make(1)
    fleet.wait()
    main = fleet.main
    path = main.directory / "instep.toml"
    good = path.read_text()
    running = _config(main)[1]
    bad = f'name = "main"\nlisten = "127.0.0.1:{main.port}"\n' + BAD
    path.write_text(bad)
    for words in (("config", "check"), ("config", "reload")):
        answer = main.run(*words, expect=3).json
        error = answer["error"]
        assert error["code"] == "bad_configuration", error
        problems = {(p["line"], p["key"].rpartition(".")[2]): p["value"] for p in error["facts"]["problems"]}
        wanted = {
            "polll": "1s",
            "rate_limit": "fast",
            "replicate": "yes",
            "path": "relative/path",
            "settle": "soon",
            "max_deletions": "150%",
        }
        number = {
            key: next(n for n, line in enumerate(bad.splitlines(), 1) if line.startswith(key))
            for key in wanted
        }
        for key, value in wanted.items():
            assert (number[key], key) in problems, (key, problems)
            assert value in str(problems[number[key], key]), (key, problems)
        assert len(problems) >= len(wanted) + 1, problems
    status = main.status()["config"]
    assert (status["state"], status["running"]) == ("refused", running)
    assert len(status["problems"]) >= 7
    shown = main.run("status", json=False).stdout
    assert "instep.toml is not in use" in shown and "polll" in shown, shown
    assert main.run("status", "--exit-code", expect=None).code == 3
    assert main.run("check", expect=4).json["ok"] is False
    (tree / "file").write_text("2")
    fleet.wait()
    fleet.assert_same()
    error = main.run("fileset", "set", "data", "settle=1s", expect=3).error
    assert error["code"] == "bad_configuration", "a bad file is not edited"
    assert path.read_text() == bad
    _mended(fleet, good, bad, running)


def _mended(fleet: Fleet, good: str, bad: str, running: str) -> None:
    """Bad files noticed without a command, a daemon that does not start with one, and the way back."""
    main, tree = fleet.main, fleet.tree("main")
    path = main.directory / "instep.toml"
    # Broken syntax, noticed without a command; then a setting that needs a restart.
    path.write_text(good + "\n[filesets.data\n")
    eventually(
        lambda: "TOML" in str(main.status()["config"].get("problems")),
        10,
        lambda: str(main.status()["config"]),
    )
    path.write_text(good.replace('name = "main"', 'name = "other"').replace('"main"', '"other"'))
    eventually(lambda: "restart" in str(main.status()["config"]), 10, lambda: str(main.status()["config"]))
    main.stop()
    path.write_text(bad)
    error = main.run("start", expect=3).error
    assert len(error["facts"]["problems"]) >= 7
    assert main.run("status", expect=None).json["config"]["state"] == "bad"
    path.write_text(good)
    main.start()
    # A right file that was written by hand is live without a command.
    path.write_text(good.replace('settle = "20ms"', 'settle = "30ms"\nignore = ["*.tmp"]'))
    eventually(lambda: _config(main)[1] != running, 10, lambda: str(main.status()["config"]))
    assert _config(main)[0] == "current"
    (tree / "ignored.tmp").write_text("x")
    (tree / "file").write_text("3")
    fleet.wait()
    assert (fleet.tree("s1") / "file").read_text() == "3"
    assert not (fleet.tree("s1") / "ignored.tmp").exists()


def test_a_node_moves_while_its_daemon_runs(fleet: Fleet) -> None:
    """Goal: ``node set-address`` moves the listener of a running writer and notifies its partners, whose files follow; a
    port that is taken is named and the old one stays; a partner that was away names the command, which works."""
    fleet.make(2)
    main, s1, s2 = (fleet[name] for name in ("main", "s1", "s2"))
    fleet.write({"file": "1"})
    fleet.wait()
    before = (main.directory / "instep.toml").read_text()
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = main.run("node", "set-address", "main", where, expect=8).error
        assert f"cannot listen on {where}" in failed["reason"], failed
        assert (main.directory / "instep.toml").read_text() == before, "a port that is taken stands nowhere"
        assert not any("listen" in each for each in main.status()["warnings"])
    s2.stop()
    new = f"127.0.0.1:{free_port()}"
    told = main.run("node", "set-address", "main", new).json
    assert (told["listen"], told["told"], told["next"]) == (
        new,
        ["s1"],
        [f"on s2: instep node set-address main {new}"],
    )
    eventually(lambda: new in (s1.directory / "instep.toml").read_text(), 20, lambda: s1.log())
    fleet.write({"file": "2"})
    fleet.wait("--node", "s1")
    s2.start()
    eventually(lambda: "set-address main" in str(s2.status()["links"]), 20, lambda: str(s2.status()["links"]))
    s2.run("node", "set-address", "main", new)
    fleet.wait()
    fleet.assert_same()
    refused = main.run("node", "set-address", "s1", f"127.0.0.1:{s1.port}", expect=4).error
    assert refused["code"] == "dials_here" and "on s1:" in refused["hint"], refused
