"""A content site: two staging and two production servers, each pair behind HAProxy, and a database that is named.

``s1`` and ``p1`` are the homes of their sides, ``s2`` and ``p2`` follow them. Runs bring both sides together while
visitors read staging and production.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from examples.cms.site import PAGES, TEMPLATE, digest_of, nginx_of, write, write_page
from examples.database import Database
from examples.fleet import Fleet, Node
from examples.load import Load, ask
from examples.play import narrated, play
from examples.servers import Servers, free_port, program
from examples.waiting import Failed, eventually, eventually_seen

FILESET = "site"
SIDES = {"staging": ("s1", "s2"), "production": ("p1", "p2")}
SHOWN = {"staging": "news", "production": "shop"}
"""The page that the visitors of a side read: one that only the other side changes."""
PROFILE = """[sync.site]
left = "site@s1"
right = "site@p1"
initiators = ["s1", "s2"]
[sync.site.kinds.templates]
paths = ["/templates/"]
direction = "up"
locked = "right"
"""


class Example:
    """The servers, the load and the runs, step by step."""

    def __init__(self, top: Path, given: argparse.Namespace) -> None:
        self.top = top
        self.rounds: int = given.rollouts
        self.tell = narrated(given)
        self.fleet = Fleet(top, FILESET, home="s1", is_verbose=not given.json)
        self.servers = Servers()
        self.fronts = {side: free_port() for side in SIDES}
        self.ports: dict[str, int] = {}
        self.number = 0
        """Of the shop and the news that all servers show."""

    @property
    def s1(self) -> Node:
        return self.fleet.nodes["s1"]

    @property
    def p1(self) -> Node:
        return self.fleet.nodes["p1"]

    # The servers --------------------------------------------------------------------------------------------

    def serve(self, node: Node) -> None:
        port = self.ports[node.name] = free_port()
        base = node.directory.parent
        conf = nginx_of(base, node.tree, node.name, port)
        words = [program("nginx", "nginx-light"), "-e", str(base / "nginx.log"), "-c", str(conf)]
        self.servers.start(f"nginx of {node.name}", [*words, "-g", "daemon off;"], port, base / "nginx.log")

    def hooks(self, node: Node) -> str:
        return (
            f"[filesets.{FILESET}.hooks]\n"
            f'reload = {{ signal = "HUP", pid_file = "{node.directory.parent}/nginx.pid", '
            'paths = ["/*.html", "/parts/"] }\n'
            f'probe = {{ http = "GET http://127.0.0.1:{self.ports[node.name]}/shop.html", expect_status = 200 }}\n'
        )

    def balancer(self, side: str) -> str:
        names = SIDES[side]
        places = ", ".join(
            f'{name} = {{ http = "127.0.0.1:{self.ports[name]}", health = "127.0.0.1:{node.health}", '
            f'agent = "127.0.0.1:{node.agent}" }}'
            for name, node in ((name, self.fleet.nodes[name]) for name in names)
        )
        return (
            f'[balancers.{side}]\nfilesets = ["{FILESET}"]\nnodes = {json.dumps(names)}\naffinity = "off"\n'
            f'http = {{ listen = "127.0.0.1:{self.fronts[side]}", backend = 80 }}\nbackends = {{ {places} }}\n'
        )

    def balance(self, home: Node, side: str) -> None:
        path = self.top / f"{side}.cfg"
        home.run("balancer", "render", "haproxy", "--output", str(path), "--check")
        words = [program("haproxy", "haproxy"), "-db", "-f", str(path)]
        self.servers.start(f"HAProxy of {side}", words, self.fronts[side], self.top / f"{side}.log")

    def make(self) -> None:
        """Four nodes of one cluster, a fileset on each side, the profile on both of staging."""
        self.fleet.make_named("s1", "s2", "p1", "p2")
        for node in self.fleet.nodes.values():
            self.serve(node)
        s1, s2, p1, p2 = self.fleet.nodes.values()
        for page in PAGES:
            write_page(s1.tree, page, 0)
        write(s1.tree, "docs/about.txt", "about us\n")
        write(s1.tree, "templates/page.html", TEMPLATE)
        s1.run("fileset", "add", FILESET, str(s1.tree), "--to", "s2", "--settle", "50ms")
        rollout = f'[filesets.{FILESET}.rollout]\nstrategy = "rolling"\n'
        self.fleet.join(
            s2,
            "--accept",
            f"{FILESET}={s2.tree}",
            settings=f"{self.hooks(s2)}{PROFILE}",
            of_fileset='drift = "offer"',
        )
        for node in (p1, p2):
            self.fleet.join(node)
        self.fleet.acquaint(p1, p2)
        p1.tree.mkdir()
        p1.run("fileset", "add", FILESET, str(p1.tree), "--to", "p2", "--settle", "50ms")
        p1.add_settings(
            tables=f"{self.hooks(p1)}{rollout}{self.balancer('production')}",
            of_fileset='offers_from = ["s1"]',
            partners=dict.fromkeys(("s1", "p2"), "replicate = true\ndata = true"),
        )
        p2.add_settings(partners={"p1": f'address = "127.0.0.1:{p1.port}"'})
        s1.add_settings(
            top=self.fleet.listeners(s1),
            tables=f"{self.hooks(s1)}{rollout}{self.balancer('staging')}{PROFILE}",
            of_fileset='offers_from = ["s2"]', partners={"p1": f'address = "127.0.0.1:{p1.port}"'},
        )  # fmt: skip
        p1.run("publish", FILESET, "-m", "an empty production")
        p2.run("fileset", "accept", FILESET, str(p2.tree))
        p2.add_settings(tables=self.hooks(p2))

    # Runs ---------------------------------------------------------------------------------------------------

    def sync(self, node: str, *words: str, expect: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = self.fleet.nodes[node].run("sync", "run", "site", *words, expect=expect)
        return found

    def settled(self) -> None:
        for home in (self.s1, self.p1):
            home.run("wait", FILESET, "--timeout", "60s")

    def require_pages(self) -> None:
        for name, port in self.ports.items():
            for page in PAGES:
                answer = ask(port, f"/{page}.html")
                if (answer.status, answer.digest) != (200, digest_of(page, self.number)):
                    raise Failed(f"{name} does not show {page} {self.number}: {answer}")

    def await_page(self, side: str) -> None:
        port, path = self.fronts[side], f"/{SHOWN[side]}.html"
        eventually(lambda: ask(port, path).status == 200, f"the first page of {side}", 60)

    def text(self, name: str, path: str) -> str:
        return (self.fleet.nodes[name].tree / path).read_text()

    # The play -----------------------------------------------------------------------------------------------

    def play(self) -> dict[str, Any]:
        began = time.monotonic()
        self.tell("1. Staging s1 and s2, production p1 and p2: nginx on each, HAProxy before each side.")
        self.make()
        self.tell("2. The first run: production is empty, staging is right.")
        self.sync("s1", "--initial", "left")
        self.settled()
        self.require_pages()
        self.balance(self.s1, "staging")
        self.balance(self.p1, "production")
        loads = {
            side: Load(front, f"/{SHOWN[side]}.html", every_s=0.2) for side, front in self.fronts.items()
        }
        for side, load in loads.items():
            self.await_page(side)
            load.start()
        try:
            self.bring_together()
            self.collide()
            self.lock()
            self.name_the_database()
        finally:
            for side, load in loads.items():
                load.stop()
                load.keep(self.top / f"requests-{side}.log")
        for home in (self.s1, self.p1):
            home.run("verify", FILESET, "--fleet", "--deep")
        return {**self.report(loads), "seconds": round(time.monotonic() - began, 1)}

    def bring_together(self) -> None:
        self.tell(f"3. {self.rounds} runs: staging writes the shop, production the news; s2 starts them.")
        for number in range(1, self.rounds + 1):
            write_page(self.s1.tree, "shop", number)
            write_page(self.p1.tree, "news", number)
            saved = f"from-s2-{number}.txt"
            write(self.fleet.nodes["s2"].tree, saved, "saved on the follower of staging\n")
            eventually((self.s1.tree / saved).exists, "the offer of s2 to be at s1", 60)
            run = self.sync("s2")
            self.settled()
            self.number = number
            self.require_pages()
            up, down = run["right"]["made"], run["left"]["made"]
            self.tell(f"   run {run['run']}: {up} paths up, {down} down, on all four servers")
        refused = self.p1.run("sync", "run", "site", expect=5)["error"]
        self.tell(f"   from production: {refused['reason']}")

    def collide(self) -> None:
        self.tell("4. Both sides change one page: both texts are kept, and an editor decides.")
        write(self.s1.tree, "docs/about.txt", "about us, by staging\n")
        write(self.p1.tree, "docs/about.txt", "about us, by production\n")
        run = self.sync("s1", expect=20)
        (listed,) = run["listed"]
        texts = {
            self.text(name, path) for name in ("s1", "p1") for path in ("docs/about.txt", listed["copy"])
        }
        if texts != {"about us, by staging\n", "about us, by production\n"}:
            raise Failed(f"a text is lost: {texts}")
        self.tell(f"   the younger is kept as {listed['copy']}")
        write(self.s1.tree, "docs/about.txt", "about us, by both\n")
        (self.s1.tree / listed["copy"]).unlink()
        self.s1.run("sync", "collisions", "site", "--reviewed", listed["id"])
        self.sync("s1")
        if (
            self.text("p1", "docs/about.txt") != "about us, by both\n"
            or (self.p1.tree / listed["copy"]).exists()
        ):
            raise Failed("the editor's word did not reach production")

    def lock(self) -> None:
        self.tell(
            "5. A template edited on production: named, never carried to staging, replaced by the next run."
        )
        write(self.p1.tree, "templates/page.html", "edited on production\n")
        run = self.sync("s1", expect=20)
        if [(each["path"], each["why"]) for each in run["listed"]] != [
            ("templates/page.html", "locked_edit")
        ]:
            raise Failed(f"the template was not named: {run['listed']}")
        if {self.text(name, "templates/page.html") for name in ("s1", "p1")} != {TEMPLATE}:
            raise Failed("the edit of the template stayed, or was carried")
        archived = self.p1.run("archive", "list", FILESET)["items"]
        if "templates/page.html" not in {each["path"] for each in archived}:
            raise Failed("the edit of the template is not in production's archive")
        self.s1.run("sync", "collisions", "site", "--reviewed", run["listed"][0]["id"])

    def name_the_database(self) -> None:
        self.tell("6. The database beside the files: a run does not carry it, and says so.")
        database = Database(self.top / "postgres", self.servers)
        for name in SIDES:
            database.ask("postgres", f"CREATE DATABASE {name}")
            database.ask(name, "CREATE TABLE article (title text)")
        database.ask("staging", "INSERT INTO article VALUES ('only in the database')")
        for home in (self.s1, self.p1):
            home.run("fileset", "external", "add", FILESET, "cms-db")
        self.sync("s1", expect=11)
        shown = self.s1.run("sync", "show", "site", "--exit-code", expect=11)
        self.tell(f"   {shown['why_not']}")
        if database.ask("production", "SELECT title FROM article"):
            raise Failed("the row is there although nothing carried it")
        database.copy("staging", "production")
        for home in (self.s1, self.p1):
            home.run(
                "fileset",
                "external",
                "add",
                FILESET,
                "cms-db",
                "--covered-by",
                "pg_dump and psql after each run",
            )
        self.sync("s1")
        self.s1.run("sync", "show", "site", "--exit-code")
        if database.ask("production", "SELECT title FROM article") != "only in the database":
            raise Failed("the copy of the database did not bring the row")

    def report(self, loads: dict[str, Load]) -> dict[str, Any]:
        found = {
            side: load.report("text/html", {digest_of(SHOWN[side], n) for n in range(self.number + 1)})
            for side, load in loads.items()
        }
        drains = {home.name: self.drains(home) for home in (self.s1, self.p1)}
        if not all(drains.values()):
            raise Failed(f"a home was never drained for a run: {drains}")
        return {
            "runs": self.rounds,
            "failures": sum(each["failures"] for each in found.values()),
            "drains_for_runs": drains,
            "untold": self.fleet.untold(),
            **found,
        }

    def drains(self, home: Node) -> int:
        """How often the home was drained for a run and returned."""

        def is_back() -> tuple[bool, list[str]]:
            events = [each["what"] for each in home.run("events", "--since", "1h")["events"]]
            return events.count("drained") == events.count("undrained"), events

        return eventually_seen(is_back, f"{home.name} to be back", 60).count("drained")


if __name__ == "__main__":
    sys.exit(play(__doc__, Example, rollouts=2))
