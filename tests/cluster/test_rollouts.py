"""Rollouts with real daemons and hooks that log: the order of everything, failure, people, crashes, deadlines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.test_readiness import put
from tests.support.cut import Relay
from tests.support.fleet import free_port
from tests.support.rolling import Rolling, Watcher
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rolling]:
    """One fleet for all tests of this file."""
    made = Rolling(tmp_path_factory.mktemp("rolling"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def rolling(shared: Rolling, put_back: Callable[[list[str]], None]) -> Iterator[Rolling]:
    """Each test begins with the default policy and a generation that every partner serves."""
    yield shared
    put_back(shared.put_back())


def test_one_at_a_time_out_of_the_balancer_and_paused_in_the_middle(rolling: Rolling) -> None:
    """Goal: with a reload hook and nothing configured partners go one after another: drained, reloaded, probed, ready
    again before the next is drained; the others are held with the writer named. A pause lets no further node begin."""
    ports = {name: free_port() for name in rolling.partners}
    for name, port in ports.items():
        put(rolling[name], health=f"127.0.0.1:{port}")
    with Watcher(ports) as watcher:
        holds = [rolling.hold(name, "reload", "second") for name in rolling.partners]
        number = rolling.publish("second")
        eventually(lambda: len(rolling.log(number)) == 1, 30, lambda: f"{rolling.log()}\n{rolling.show()}")
        first = rolling.log(number)[0].split()[0]
        others = [name for name in rolling.partners if name != first]
        for name in others:
            line = rolling[name].await_standing("held", code="awaiting_permit")
            assert "main" in line["reason"] and "rollout show" in str(line["next"]), line

        def codes() -> set[str]:
            return {one["code"] for one in rolling.main.line()["partners"] if one["name"] in others}

        eventually(lambda: codes() == {"awaiting_permit"}, 20, lambda: str(rolling.main.line()))
        assert rolling.main.run("rollout", "pause", "data").json["changed"]
        assert not rolling.main.run("rollout", "pause", "data").json["changed"]
        assert rolling.main.line()["rollout"]["paused"]
        for held in holds:
            held.unlink()
        rolling[first].await_standing("in_step")
        eventually(lambda: rolling.show()["rollout"]["switched"] == 1, 20, lambda: str(rolling.show()))
        shown = rolling.show()["rollout"]
        assert (shown["permitted"], shown["paused"]) == ([first], True), shown
        assert sorted(rolling.words()) == ["first", "first", "second"]
        rolling.main.run("rollout", "resume", "data")
        rolling.fleet.wait()
        order = rolling.await_state("done")["permitted"]
        eventually(lambda: [what for *_, what in watcher.seen].count("ready") == 3, describe="all three back")
    assert rolling.log(number) == [f"{name} {kind}" for name in order for kind in ("reload", "probe")]
    for name in order:
        rows = rolling.timeline(name, number, watcher.seen)
        assert rows == ["drained", "reload", "probe", "ready"], (name, rows)
    assert not watcher.out_together
    past = rolling.show()["past"][0]
    assert (past["state"], past["permitted"]) == ("done", order), past
    assert past["author"] and past["started_at"] and past["took_ms"] > 0, past
    assert "rollout" not in rolling.main.line()


def test_a_canary_whose_probe_fails_goes_back_and_nobody_else_switches(rolling: Rolling) -> None:
    """Goal: ``publish --wait`` ends with 4 and the canary's reason; the others ran no hook and keep their tree; after
    the repair one ``retry`` brings it to all."""
    rolling.policy(strategy='"canary"', canary_for='"300ms"')
    before = rolling.words()
    sick = rolling.sick("s1", "probe", "bad")
    rolling.write("bad")
    told = rolling.main.run("publish", "data", "--wait", expect=4).json
    failed, number = told["wait"]["failed"], told["generation"]["number"]
    assert (failed["node"], failed["code"], failed["state"]) == ("s1", "probe_failed", "put_back"), told
    assert not told["wait"]["reached"]
    assert rolling.words() == before
    assert rolling.log(number) == ["s1 reload", "s1 probe"]
    rolling["s2"].await_standing("failing", code="put_back_ordered")
    assert rolling.main.line()["rollout"]["state"] == "put_back"
    assert "is sick of bad" in str(rolling["s1"].run("events").json["events"])
    rolling.await_nobody_drained()
    sick.unlink()
    rolling.main.run("retry", "data")
    rolling.fleet.wait(timeout=60)
    assert rolling.words() == ["bad"] * 3
    rows = rolling.log(number)[2:]
    assert rows == [f"{name} {kind}" for name in rolling.partners for kind in ("reload", "probe")]


def test_those_that_switched_go_back_when_the_last_fails_and_when_somebody_aborts(rolling: Rolling) -> None:
    """Goal: ``put_back`` returns every node to the generation that it replaced, with reload and probe there; ``abort``
    does the same from a person's hand, in the middle of a wave; a rollback then goes through."""
    rolling.policy(strategy='"rolling"')
    before, first = rolling.word("s1"), rolling.fleet.head()
    rolling.sick("s3", "probe", "worse")
    rolling.publish("worse")
    shown = rolling.await_state("put_back")
    assert (shown["failed"]["node"], shown["permitted"]) == ("s3", ["s1", "s2", "s3"]), shown
    assert rolling.words() == [before] * 3
    assert sorted(rolling.log(first)[-6:]) == sorted(
        f"{name} {kind}" for name in rolling.partners for kind in ("reload", "probe")
    )
    rolling.await_nobody_drained()
    held = rolling.hold("s2", "reload", "third")
    number = rolling.publish("third")
    rolling.await_log("s2 reload", number)
    assert rolling.words() == ["third", "third", before]
    rolling.main.run("rollout", "abort", "data")
    assert not rolling.main.run("rollout", "abort", "data").json["changed"]
    held.unlink()
    rolling.await_state("aborted")
    assert rolling.words() == [before] * 3
    assert "s3 reload" not in rolling.log(number)
    refused = rolling.main.run("rollout", "pause", "data", expect=4).error
    assert refused["code"] == "no_rollout" and "aborted" in refused["reason"], refused
    rolling.main.run("rollback", "data", str(first))
    rolling.fleet.wait(timeout=60)
    rolling.await_nobody_drained()


def test_unconfirmed_goes_back_by_itself_and_confirmed_stays(rolling: Rolling) -> None:
    """Goal: without ``confirm`` within the time every node serves the generation before; with it no node goes back."""
    rolling.policy(strategy='"together"', confirm_within='"60s"')
    shown = rolling.await_state("confirming")
    assert "rollout confirm" in str(shown["next"]), shown
    answer = rolling.main.run("rollout", "confirm", "data").json
    assert (answer["changed"], answer["state"]) == (True, "done"), answer
    assert not rolling.main.run("rollout", "confirm", "data").json["changed"]
    before = rolling.words()
    rolling.policy(strategy='"together"', confirm_within='"1s"')
    rolling.await_state("put_back")
    for name in rolling.partners:
        rolling[name].await_standing("failing", code="not_confirmed")
    assert rolling.words() == before
    error = rolling.main.run("rollout", "confirm", "data", expect=4).error
    assert error["code"] == "no_rollout", error
    rolling.policy(strategy='"rolling"')


def test_reload_without_a_generation(rolling: Rolling) -> None:
    """Goal: ``reload`` runs every partner's hooks on what is live, ``--rolling`` one node at a time; a failing one is
    named, ends the command with 4, and those after it are left alone."""
    rolling.policy(strategy='"rolling"')
    begin = len(rolling.log())
    told = rolling.main.run("reload", "data").json
    assert (told["reloaded"], told["waiting_for"], told["failed"]) == (["main", "s1", "s2", "s3"], [], []), (
        told
    )
    assert sorted(rolling.log()[begin:]) == sorted(
        f"{n} {k}" for n in rolling.partners for k in ("reload", "probe")
    )
    begin = len(rolling.log())
    rolling.main.run("reload", "data", "--rolling")
    assert rolling.log()[begin:] == [f"{n} {k}" for n in rolling.partners for k in ("reload", "probe")]
    begin = len(rolling.log())
    sick = rolling.sick("s2", "reload", rolling.word("s2"))
    told = rolling.main.run("reload", "data", "--rolling", expect=4).json
    assert [one["node"] for one in told["failed"]] == ["s2"], told
    assert "s3 reload" not in rolling.log()[begin:]
    sick.unlink()
    rolling["s2"].run("retry", "data")
    eventually(lambda: "s3 probe" in rolling.log()[begin:], 30, lambda: str(rolling.log()[begin:]))
    rolling.await_nobody_drained()


def test_the_writer_is_killed_in_the_middle_and_goes_on(rolling: Rolling) -> None:
    """Goal: the node in its wave finishes without the writer; no other node begins; back again the writer goes on where
    it was, and a partner that was away all the time gets its permit when it is back."""
    rolling.policy(strategy='"rolling"')
    before = rolling.word("s3")
    rolling["s3"].stop()
    held = rolling.hold("s1", "reload", "killed")
    number = rolling.publish("killed")
    rolling.await_log("s1 reload", number)
    rolling.main.kill()
    held.unlink()
    eventually(lambda: rolling["s1"].line()["live"]["number"] == number, 30, rolling["s1"].log)
    assert rolling.words() == ["killed", before, before]
    line = rolling["s2"].await_standing("held", "unreachable")
    assert line["reason"], line
    rolling.main.start()
    rolling["s2"].await_standing("in_step")
    assert rolling.log(number) == ["s1 reload", "s1 probe", "s2 reload", "s2 probe"]
    shown = rolling.await_state("done")
    assert (shown["permitted"], shown["nodes"][2]["state"]) == (["s1", "s2"], "unreachable"), shown
    rolling["s3"].start()
    eventually(lambda: rolling.word("s3") == "killed", 40, rolling["s3"].log)
    rolling["s3"].await_standing("in_step")
    assert rolling.show()["rollout"]["permitted"] == ["s1", "s2", "s3"]
    rolling.await_nobody_drained()


def test_a_partner_is_killed_in_its_wave_and_finishes_it(rolling: Rolling) -> None:
    """Goal: killed between switch and probe it comes back drained, reloads, probes and returns; then the next goes."""
    rolling.policy(strategy='"rolling"')
    held = rolling.hold("s2", "reload", "crash")
    number = rolling.publish("crash")
    rolling.await_log("s2 reload", number)
    rolling["s2"].kill()
    held.unlink()
    shown = rolling.show()["rollout"]
    assert (shown["state"], shown["permitted"]) == ("waves", ["s1", "s2"]), shown
    rolling["s2"].start()
    rolling.fleet.wait(timeout=60)
    rows = [row for row in rolling.log(number) if row != "s2 reload"]
    assert rows == ["s1 reload", "s1 probe", "s2 probe", "s3 reload", "s3 probe"]
    assert rolling.log(number).count("s2 reload") == 2
    rolling.await_nobody_drained()


def test_cut_off_from_two_of_three_the_wave_ends_and_the_rest_goes_on_when_the_network_is_back(
    rolling: Rolling,
) -> None:
    """Goal: with the network to s2 and s3 cut while s2 is drained, s2 ends its wave and is back alone, s3 keeps what it
    serves and says what it waits for; no node stays drained, and once mended the rollout reaches s3."""
    rolling.policy(strategy='"rolling"')
    with Relay(rolling.main.port) as relay:
        for name in ("s2", "s3"):
            rolling[name].run("partner", "set", "main", "--address", f"127.0.0.1:{relay.port}")
        rolling.settle()
        before = rolling.word("s3")
        held = rolling.hold("s2", "reload", "cut")
        number = rolling.publish("cut")
        rolling.await_log("s2 reload", number)
        relay.cut()
        held.unlink()
        eventually(lambda: rolling["s2"].line()["live"]["number"] == number, 30, rolling["s2"].log)
        rolling["s2"].await_standing("unreachable")
        line = rolling["s3"].await_standing("held", code="awaiting_permit")
        assert "main" in line["reason"], line
        assert "link to main is down" in rolling["s3"].run("status", json=False).stdout
        assert rolling.words() == ["cut", "cut", before]
        assert [rolling.is_drained(name) for name in rolling.partners] == [False] * 3
        shown = rolling.show()["rollout"]
        assert (shown["state"], shown["permitted"]) == ("waves", ["s1", "s2"]), shown
        assert "s2" in shown["reason"], shown
        relay.mend()
        rolling.fleet.wait(timeout=60)
        assert rolling.words() == ["cut"] * 3
        rows = [f"{name} {kind}" for name in rolling.partners for kind in ("reload", "probe")]
        assert rolling.log(number) == rows
        rolling.await_nobody_drained()
        for name in ("s2", "s3"):  # while the relay still runs
            rolling[name].run("partner", "set", "main", "--address", f"127.0.0.1:{rolling.main.port}")


def test_half_done_and_the_writer_gone_a_partner_goes_back_by_its_own_deadline(rolling: Rolling) -> None:
    """Goal: a wave that cannot finish is put back within ``finish_within`` by the partner alone; the writer, back
    again, learns of it and puts back the nodes that had switched."""
    rolling.policy(strategy='"rolling"', finish_within='"3s"')
    before = rolling.word("s3")
    rolling.sick("s2", "reload", "stuck")
    number = rolling.publish("stuck")
    rolling.await_log("s2 reload", number)
    rolling.main.kill()  # at once: the time to finish runs already
    line = rolling["s2"].await_standing("failing", code="not_finished")
    eventually(lambda: rolling.word("s2") == before, 20, rolling["s2"].log)
    assert "instep retry" in str(line["next"]), line
    assert rolling.words() == ["stuck", before, before]
    rolling.main.start()
    shown = rolling.await_state("put_back")
    assert (shown["failed"]["node"], shown["failed"]["code"]) == ("s2", "not_finished"), shown
    eventually(lambda: rolling.words() == [before] * 3, 30, lambda: f"{rolling.words()} {rolling.show()}")
    rolling.await_nobody_drained()
    assert [rolling.is_drained(name) for name in rolling.partners] == [False] * 3
    waited = rolling.main.run("wait", "data", expect=4).json
    assert (waited["reached"], waited["failed"]["code"]) == (False, "not_finished"), waited
