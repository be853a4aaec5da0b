"""Seats of several real daemons on one database: never one too many, and one for a user of several nodes."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from instep.errors import InstepError
from tests.support.fleet import Fleet, Node
from tests.support.postgres import missing_postgres, postgres_server
from tests.support.shared_nodes import DATABASES, database_line, shared_nodes
from tests.support.waiting import eventually

NAMES = ("n1", "n2", "n3")
PLACES = 50


def pool(places: int, grace: str = "30s", more: str = "") -> str:
    return f'[pools.editors]\nplaces = {places}\ngrace = "{grace}"\n{more}'


def acquire(node: Node, user: str) -> str:
    try:
        node.control.call("seat_acquire", {"pool": "editors", "user": user}, timeout_s=60)
    except InstepError as error:
        return error.error_code
    return "seated"


def seated(node: Node) -> dict[str, dict[str, int]]:
    (found,) = node.run("seat", "list").json["pools"]
    return {one["user"]: {use["node"]: use["times"] for use in one["uses"]} for one in found["seats"]}


@pytest.mark.parametrize("kind", DATABASES)
def test_two_thousand_at_once_get_fifty_places(fleet: Fleet, tmp_path: Path, kind: str) -> None:
    with database_line(kind, tmp_path) as line:
        nodes = shared_nodes(fleet, line, NAMES, pool(PLACES))
        asks = [(nodes[number % 3], f"user{number % 400}") for number in range(2_000)]
        random.Random(1).shuffle(asks)
        with ThreadPoolExecutor(24) as callers:
            answers = list(callers.map(lambda ask: acquire(*ask), asks))
        assert set(answers) == {"seated", "seats_full"}
        users = {user for (_, user), answer in zip(asks, answers, strict=True) if answer == "seated"}
        assert len(users) == PLACES
        uses = Counter(
            (user, node.name)
            for (node, user), answer in zip(asks, answers, strict=True)
            if answer == "seated"
        )
        for node in nodes:
            found = seated(node)
            assert {
                (user, name): times for user, by_node in found.items() for name, times in by_node.items()
            } == uses
        fleet.close()


def test_a_user_of_three_nodes_and_a_node_that_dies(fleet: Fleet, tmp_path: Path) -> None:
    with database_line("sqlite", tmp_path) as line:
        nodes = shared_nodes(fleet, line, NAMES, pool(2, "10s"))
        first, other, last = nodes
        for node in nodes:
            node.run("seat", "acquire", "editors", "Ana")
        again = first.run("seat", "acquire", "editors", "ana").json
        assert (again["changed"], again["taken"], again["places"]) == (False, 1, 2)
        other.run("seat", "acquire", "editors", "bo")
        full = last.run("seat", "acquire", "editors", "cy", expect=6)
        assert full.error["code"] == "seats_full"
        assert seated(last) == {"Ana": {"n1": 2, "n2": 1, "n3": 1}, "bo": {"n2": 1}}
        other.kill()
        eventually(lambda: seated(last) == {"Ana": {"n1": 2, "n3": 1}}, describe=lambda: str(seated(last)))
        assert last.run("seat", "acquire", "editors", "cy").json["changed"]
        # A daemon that begins again keeps its users, and one that was away has lost the place of bo meanwhile.
        first.kill()
        first.start()
        other.start()
        assert seated(first)["Ana"] == {"n1": 2, "n3": 1}
        for _ in range(2):
            assert first.run("seat", "release", "editors", "ana").json["changed"]
        last.run("seat", "release", "editors", "ANA")
        assert not last.run("seat", "release", "editors", "ANA").json["changed"]
        assert seated(other) == {"cy": {"n3": 1}}
        assert other.run("seat", "release", "editors", "cy", "--all").json["changed"]
        eventually(partial(_has_event, last, "seat_lost"), describe=lambda: str(last.run("events").json))
        assert seated(first) == {}


def _has_event(node: Node, kind: str) -> bool:
    return any(event["what"] == kind for event in node.run("events").json["events"])


def test_what_is_asked_wrongly(fleet: Fleet, tmp_path: Path) -> None:
    """Other kinds, unknown pools, names that are none, maintenance, and licence servers."""
    with database_line("sqlite", tmp_path) as line:
        servers = 'servers = ["127.0.0.1:9", "127.0.0.1:{port}"]\n'
        one, other = shared_nodes(fleet, line, NAMES[:2], pool(1), is_started=False)
        config = one.directory / "instep.toml"
        config.write_text(config.read_text() + servers.format(port=one.port))
        one.start()
        found = one.run("seat", "acquire", "editors", "ana").json
        assert found["servers"] == [f"127.0.0.1:{one.port}", "127.0.0.1:9"], "the one that answers is first"
        config = other.directory / "instep.toml"
        config.write_text(config.read_text() + 'kind = "floating"\n')
        other.start()
        assert other.run("seat", "acquire", "editors", "bo", expect=4).error["code"] == "seat_kind"
        assert one.run("seat", "acquire", "editor", "bo", expect=2).error["code"] == "no_such_pool"
        assert one.run("seat", "acquire", "editors", " ", expect=2).error["code"] == "bad_user"
        one.run("maintenance", "on")
        assert one.run("seat", "acquire", "editors", "ana", expect=4).error["code"] == "maintenance"
        assert one.run("seat", "release", "editors", "ana").json["changed"]
        one.run("maintenance", "off")
        assert other.run("seat", "acquire", "editors", "bo").json["changed"], (
            "no place was taken: the kind may change"
        )
        assert one.run("seat", "acquire", "editors", "ana", expect=4).error["code"] == "seat_kind"


@pytest.mark.skipif(bool(missing_postgres()), reason=missing_postgres() or "postgresql is there")
def test_the_database_is_away(fleet: Fleet, tmp_path: Path) -> None:
    """Users who sit here go on for the grace, and their places are still theirs afterwards; no new user sits down."""
    with postgres_server() as server:
        one, other = shared_nodes(fleet, server.dsn(), NAMES[:2], pool(2, "1h"))
        for user in ("ana", "ana", "bo"):
            one.run("seat", "acquire", "editors", user)
        server.kill()
        eventually(lambda: acquire(other, "cy") == "cluster_unreachable", describe=other.log)
        away = one.run("seat", "acquire", "editors", "Ana").json
        assert not away["changed"]
        assert away["until"] is not None
        assert one.run("seat", "acquire", "editors", "cy", expect=7).error["code"] == "cluster_unreachable"
        (warned,) = (said for said in one.status()["warnings"] if said.startswith("pool editors"))
        assert "2 users seated here can go on for" in warned
        for _ in range(2):
            one.run("seat", "release", "editors", "ana")
        one.run("seat", "release", "editors", "bo")
        server.start()
        eventually(lambda: acquire(other, "cy") == "seated", describe=other.log)
        eventually(
            lambda: seated(one) == {"ana": {"n1": 1}, "cy": {"n2": 1}}, describe=lambda: str(seated(one))
        )
        fleet.close()
