"""Golden answers in a fleet: a difference that was not declared is put back and named, the rest goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import Fleet, Node
from tests.support.pictures import png
from tests.support.served import Application, application
from tests.support.waiting import eventually

STAMP = "ignore = ['answered at [0-9]+']"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def _golden(node: Node, head: str, **requests: str) -> None:
    """Replace the node's golden answers; ``head`` are keys of the section, each request the keys of one."""
    path = node.directory / "instep.toml"
    text = path.read_text().split("\n[filesets.data.golden]")[0] + f"\n[filesets.data.golden]\n{head}\n"
    for name, keys in requests.items():
        text += f'\n[filesets.data.golden.requests.{name}]\nrequest = "GET /{name}?q=1"\n{keys}\n'
    path.write_text(text)
    node.run("config", "reload")


def _holds(path: Path, text: str) -> bool:
    return path.read_text() == text


def _events(node: Node, what: str) -> list[dict[str, Any]]:
    return [event for event in node.run("events").json["events"] if event["what"] == what]


def _start(fleet: Fleet, stack: ExitStack, partners: int) -> dict[str, Application]:
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "page").write_text("welcome")
    (tree / "map").write_bytes(png(40, 30))
    fleet.make(partners)
    fleet.wait()
    return {name: stack.enter_context(application(fleet.tree(name))) for name in fleet.nodes}


def test_an_answer_that_was_not_declared_different_is_put_back(fleet: Fleet, stack: ExitStack) -> None:
    """Goal: an unchanged answer lets a generation through; a changed one puts each node back that asks for it, and is
    named with both values; declared different it goes live without a further command, and is recorded anew."""
    apps = _start(fleet, stack, 2)
    for name in ("s1", "s2"):
        _golden(fleet[name], f'url = "{apps[name].url}"', page=STAMP)
    fleet.write({"other": "no request asks for it"})
    second = fleet.wait()["generation"]["number"]
    assert "1 golden answers of data are right, 1 of them compared" in str(_events(fleet["s1"], "golden"))
    document = fleet["s1"].run("test").json
    assert document["ok"] and document["generation"]["number"] == second
    assert [(t["name"], t["kind"], t["node"], t["compared"]) for t in document["tests"]] == [
        ("page", "golden", "s1", True)
    ]
    fleet.write({"page": "farewell"})
    third = fleet.publish()
    for name in ("s1", "s2"):
        line = fleet[name].await_standing("failing", code="probe_failed")
        asked = f"golden answer page (GET {apps[name].url}/page?...): before 200 sha256 "
        assert asked in line["reason"] and ", now 200 sha256 " in line["reason"], line
        eventually(partial(_holds, fleet.tree(name) / "page", "welcome"), 20, fleet[name].log)
        assert line["live"]["number"] == second and line["head"]["number"] == third, line
    eventually(
        lambda: {p["code"] for p in fleet.main.line()["partners"]} == {"probe_failed"}, 20, fleet.main.log
    )
    _golden(fleet["s1"], f'url = "{apps["s1"].url}"', page=STAMP + '\nchanges = "expected"')
    fleet["s1"].await_standing("in_step")
    assert (fleet.tree("s1") / "page").read_text() == "farewell"
    assert fleet["s2"].standing() == "failing"
    # Not declared any more: the answers since then count, also after a restart.
    _golden(fleet["s1"], f'url = "{apps["s1"].url}"', page=STAMP)
    fleet["s1"].stop()
    fleet["s1"].start()
    fleet.write({"other": "again"})
    fleet.publish()
    fleet["s1"].await_standing("in_step")
    fleet["s2"].await_standing("failing", code="probe_failed")
    assert "page" in fleet["s2"].line()["reason"]


def test_in_a_rollout_the_first_difference_is_the_last(fleet: Fleet, stack: ExitStack) -> None:
    """Goal: where nodes go one at a time, the first one that answers otherwise is put back and ends the rollout, so
    that the second never has the generation; declared different, a retry brings it to both."""
    apps = _start(fleet, stack, 2)
    seen = {name: fleet.base / f"{name}.seen" for name in ("s1", "s2")}
    reload = 'reload = {{ run = ["/bin/cp", "--backup=t", "{tree}/page", "{seen}"] }}'
    for name, there in seen.items():
        hook = reload.format(tree=fleet.tree(name), seen=there)
        with (fleet[name].directory / "instep.toml").open("a") as config:
            config.write(f"\n[filesets.data.hooks]\n{hook}\n")
        _golden(fleet[name], f'url = "{apps[name].url}"', page=STAMP)
        eventually(there.exists, 30, fleet[name].log)
        there.unlink()  # an added hook runs once for the present generation
    fleet.write({"page": "farewell"})
    fleet.publish()
    eventually(lambda: "put_back" in str(_events(fleet.main, "rollout")), 30, fleet.main.log)
    codes = {name: fleet[name].await_standing("failing")["code"] for name in seen}
    assert sorted(codes.values()) == ["probe_failed", "put_back_ordered"]
    other = next(name for name, code in codes.items() if code == "put_back_ordered")
    for name in seen:
        eventually(partial(_holds, fleet.tree(name) / "page", "welcome"), 20, fleet[name].log)
    assert not list(fleet.base.glob(f"{other}.seen*")), "it was reloaded only where it was tried"
    for name in seen:
        _golden(fleet[name], f'url = "{apps[name].url}"', page=STAMP + '\nchanges = "expected"')
    fleet.main.run("retry", "data")
    fleet.wait()
    fleet.assert_same()


def test_other_answers_through_the_balancer_put_back_the_rollout(fleet: Fleet, stack: ExitStack) -> None:
    """Goal: the writer asks through the balancer when a rollout has ended; other answers than after the one before put
    every node back, also over a restart of the writer between; declared different they stay."""
    apps = _start(fleet, stack, 2)
    main, section = fleet.main, f'balancer = "{apps["s2"].url}"'  # which sends every client to s2
    _golden(main, section, page=STAMP)
    eventually(lambda: _events(main, "golden"), 20, main.log)
    fleet.write({"other": "no request asks for it"})
    fleet.wait()
    eventually(lambda: "1 of them compared" in str(_events(main, "golden")), 20, main.log)
    document = main.run("test", "--through-balancer").json
    assert [(t["kind"], t["ok"], t["compared"]) for t in document["tests"]] == [("balancer", True, True)]
    with (main.directory / "instep.toml").open("a") as config:
        config.write(
            '\n[balancers.web]\nfilesets = ["data"]\nhttp = { listen = "127.0.0.1:9", backend = 8080 }\n'
        )
    main.run("config", "reload")
    for cookies, expect, why in (
        ((), 4, "sets no cookie INSTEP_NODE_web"),
        (("INSTEP_NODE_web=s1",) * 9, 0, None),
        (
            ["other=1", "INSTEP_NODE_web=s1", "INSTEP_NODE_web=s1", "INSTEP_NODE_web=s2"],
            4,
            "of s1 was answered with that of s2",
        ),
    ):
        apps["s2"].cookies = iter(cookies)
        session = main.run("test", "--through-balancer", expect=expect).json["tests"][-1]
        assert session["name"] == "session" and (why or "") in (session["reason"] or ""), session
    apps["s2"].cookies = iter(())
    fleet.write({"page": "farewell"})
    fleet.publish()
    for name in ("s1", "s2"):
        fleet[name].await_standing("failing", code="put_back_ordered")
        eventually(partial(_holds, fleet.tree(name) / "page", "welcome"), 20, fleet[name].log)
    assert "through the balancer: golden answer page (GET " in str(_events(main, "golden_differs"))
    main.stop()
    main.start()

    def are_back() -> bool:
        return {partner["standing"] for partner in main.line()["partners"]} == {"failing"}

    eventually(
        are_back, 60, main.log
    )  # a rollout without them ends at once, and asks the balancer for the old page
    _golden(main, section, page=STAMP + '\nchanges = "expected"')
    main.run("publish", "data", "-m", "the new page")
    fleet.write({"page": "farewell again"})
    fleet.wait()
    eventually(lambda: main.run("test", "--through-balancer").json["tests"][0]["compared"], 20, main.log)


def test_test_asks_now_and_changes_nothing(fleet: Fleet, stack: ExitStack) -> None:
    """Goal: ``test`` runs probes and golden requests when it is asked to, on partners too, says what differs from
    when it went live and between nodes, exits 4 when something is wrong, refuses where there is nothing to test, and
    leaves no trace in events."""
    apps = _start(fleet, stack, 1)
    main, s1, app = fleet.main, fleet["s1"], apps["s1"]
    assert s1.run("test", expect=4).error["code"] == "nothing_to_test"
    _golden(s1, f'url = "{app.url}"', page=STAMP)
    assert s1.run("test", "--through-balancer", expect=4).error["code"] == "no_balancer"
    assert s1.run("test", "--fleet", expect=4).error["code"] == "not_the_writer"
    fleet.write({"other": "1"})
    fleet.wait()
    with (s1.directory / "instep.toml").open("a") as config:
        config.write(
            f'\n[filesets.data.hooks]\nprobe = {{ run = ["/bin/grep", "-q", "welcome", "{fleet.tree("s1")}/page"] }}\n'
        )
    s1.run("config", "reload")
    before = [event["what"] for event in s1.run("events").json["events"]]
    assert [(t["name"], t["ok"]) for t in s1.run("test").json["tests"]] == [("probe", True), ("page", True)]
    _golden(main, f'url = "{apps["main"].url}"', page=STAMP)
    document = main.run("test", "--fleet").json
    assert document["nodes"] == ["main", "s1"]
    assert [(t["node"], t["name"]) for t in document["tests"]] == [
        ("main", "page"),
        ("s1", "probe"),
        ("s1", "page"),
    ]
    app.root = fleet.base / "elsewhere"
    app.root.mkdir()
    (app.root / "page").write_text("welcomed by another")
    document = main.run("test", "--fleet", expect=4).json
    assert [(t["kind"], t["ok"]) for t in document["tests"]] == [
        ("golden", True), ("probe", True), ("golden", False), ("fleet", False),
    ]  # fmt: skip
    here, _, differs, unequal = document["tests"]
    assert differs["before"]["sha256"] == here["now"]["sha256"] != differs["now"]["sha256"], document
    assert f"main {here['now']['sha256'][:12]}, s1 {differs['now']['sha256'][:12]}" in unequal["reason"]
    assert s1.run("test", "--timeout", "1ms", expect=7).error["code"] == "timed_out"
    assert [event["what"] for event in s1.run("events").json["events"]] == before
    s1.stop()
    tests = main.run("test", "--node", "s1", expect=4).json["tests"]
    assert [(t["node"], t["reason"]) for t in tests] == [("s1", "s1 is not connected")]


def test_a_broken_application_can_be_repaired_and_a_crash_forgets_nothing(
    fleet: Fleet, stack: ExitStack
) -> None:
    """Goal: an answer that is missing before the switch does not keep the repair away, and is named; a status that is
    not the expected one after the switch is put back. A node that is killed once the tree holds the new generation
    compares after its start with the answers recorded before. Method: it is killed when it has written down that it
    switched."""
    apps = _start(fleet, stack, 1)
    s1, index = fleet["s1"], fleet.tree("s1") / "index"
    _golden(s1, f'url = "{apps["s1"].url}"\nretries = 1', index=STAMP)
    fleet.write({"other": "1"})
    fleet.publish()
    line = s1.await_standing("failing", code="probe_failed")
    assert "answered 404, expected 200" in line["reason"], line
    assert "index answered 404, expected 200" in str(_events(s1, "golden_missing"))
    fleet.write({"index": "repaired"})
    fleet.wait()
    assert index.read_text() == "repaired"
    s1.stop()
    s1.environment["INSTEP_FAILPOINT"] = "follow.tree_saved:2"
    s1.start()
    fleet.write({"index": "broken again"})
    fleet.publish()
    s1.await_death()
    assert index.read_text() == "broken again"
    del s1.environment["INSTEP_FAILPOINT"]
    s1.start()
    line = s1.await_standing("failing", code="probe_failed")
    assert "golden answer index" in line["reason"] and ", now 200 sha256 " in line["reason"], line
    eventually(partial(_holds, index, "repaired"), 20, s1.log)


def test_pictures_within_the_tolerance_pass(fleet: Fleet, stack: ExitStack) -> None:
    """Goal: a picture may differ as far as it is allowed to; beyond that it is put back, with how much of it and by how
    much it differed; an answer that is no picture any more is put back too."""
    pytest.importorskip("PIL", reason="the extra images is not installed")
    apps = _start(fleet, stack, 1)
    s1 = fleet["s1"]
    _golden(s1, f'url = "{apps["s1"].url}"', map='compare = "image"\ntolerance = 4\nmax_share = "2%"')
    fleet.write(
        {"map": png(40, 30, lambda x, y: (x % 256, y % 256, 93 if x else 200, 255) if y else (0, 0, 90, 255))}
    )
    fleet.publish()
    line = s1.await_standing("failing", code="probe_failed")
    assert (
        "5.33% of the pixels differ by more than 4, at most 2% may; the largest difference is 110"
        in line["reason"]
    )
    fleet.write({"map": png(40, 30, lambda x, y: (x, y, 93 if (x, y) != (0, 0) else 200, 255))})
    fleet.wait()
    fleet.write({"map": "<ServiceException/>"})
    fleet.publish()
    line = s1.await_standing("failing", code="probe_failed")
    assert "is no PNG or JPEG image: it begins with b'<ServiceException/>" in line["reason"], line
    eventually(lambda: (fleet.tree("s1") / "map").read_bytes().startswith(b"\x89PNG"), 20, s1.log)
